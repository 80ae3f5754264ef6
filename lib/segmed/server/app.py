"""The application behind MONAI Label's endpoints."""

from __future__ import annotations

import logging
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from monailabel.config import settings as monailabel_settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

import segmed
from segmed.dicom.codes import read_codes
from segmed.imaging.formats.limits import set_most_voxels
from segmed.methods import find_method
from segmed.registry.versions import Registry
from segmed.server.config.settings import ServerSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies, is_dicom_folder
from segmed.server.datastores.dicom_studies import DicomStudies
from segmed.server.datastores.folder_datastore import FolderDatastore
from segmed.server.datastores.folder_list import check_there
from segmed.server.datastores.pacs import PacsStudies
from segmed.server.datastores.state import log_left_out
from segmed.server.datastores.studies import state_folder
from segmed.server.decoding import decoder
from segmed.server.engine import Engine
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import InferParams, check_id, check_session, check_tag, check_uid
from segmed.server.http.turns import Turns
from segmed.server.learning.learning import ActiveLearning
from segmed.server.learning.retrainer import check_options, is_remote
from segmed.server.learning.scoring import ImageScoring, LabelDice
from segmed.server.learning.strategies import strategies
from segmed.server.segmenting.jobs import Jobs
from segmed.server.tasks.answers import AnswerLog
from segmed.server.tasks.automatic import AutomaticInferTask
from segmed.server.tasks.batch import BatchInference
from segmed.server.tasks.detection import DetectionInferTask
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.tasks.scribbles import ScribblesInferTask, scribbles_name
from segmed.server.tasks.train import MethodTrainTask
from segmed.server.workspace.journal import Journal
from segmed.server.workspace.workspaces import Workspaces

logger = logging.getLogger(__name__)
_VERSIONS_TOLD = 10


class SegMedApp(MONAILabelApp):
    """Offers the methods of `--conf models`; construction reads no weights.

    Args:
        app_dir: folder of the app.
        studies: folder of images, or a DICOMweb URL.
        conf: `--conf` values, see `ServerSettings`.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        settings = ServerSettings.from_conf(conf or {})
        set_most_voxels(settings.max_voxels)
        self.turns, self.jobs, self.answers = Turns(), Jobs(), AnswerLog()
        self.engine = Engine(settings, Registry(settings.registry or Path(app_dir) / "model" / "trained"))
        self.codes = read_codes(settings.codes) if settings.codes else None
        super().__init__(
            app_dir,
            studies,
            conf or {},
            name="SegMed",
            description="Interactive segmentation with the SAM family",
            version=segmed.__version__,
            labels=list(self.engine.settings.labels),
        )
        self._auto_update_scoring = False  # it would begin a process at each request
        self._batch_infer = BatchInference()
        if settings.learning.options:
            check_options(settings.learning.options, self.trainer(settings.learning.model))

    @cached_property
    def learning(self) -> ActiveLearning:
        """Its state lies where the datastore keeps its labels, so that this comes after the datastore."""
        return ActiveLearning(self.engine, self.studies, self.datastore, self.trainer)

    @cached_property
    def workspaces(self) -> Workspaces:
        """What users work on; unsaved work is kept beside the state of active learning."""
        folder = state_folder(self.datastore(), self.engine.settings.learning.folder)
        return Workspaces(journal=Journal(folder / "work"))

    def init_infers(self) -> dict[str, InferTask]:
        """Models `<name>` and `<name>_3d` for prompts; automatic ones `<name>`, prompted `<name>_prompt`."""
        tasks: dict[str, InferTask] = {}
        for method in self.engine.offered():
            for name in self.engine.names(method):
                if method.detects and name == method.name:
                    tasks[name] = DetectionInferTask(method, self.engine)
                elif method.detects or (method.automatic and name == method.name):
                    tasks[name] = AutomaticInferTask(method, self.engine)
                else:
                    tasks[name] = PromptInferTask(method, name.endswith("_3d"), self.engine)
        prompted = [(name, task) for name, task in tasks.items() if isinstance(task, PromptInferTask)]
        for name, task in prompted[:2]:  # of the default method, on a slice and through the volume
            tasks[scribbles_name(name)] = ScribblesInferTask(task)
        return tasks

    def init_trainers(self) -> dict[str, TrainTask]:
        methods = [find_method(name) for name in self.engine.settings.models]
        return {m.name: MethodTrainTask(m, self.engine) for m in methods if m.learns}

    def init_strategies(self) -> dict[str, Strategy]:
        return strategies(self.learning)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {
            "images": ImageScoring(self.learning.scorer),
            "dice": LabelDice(self.engine.settings.structures),
        }

    def info(self) -> dict[str, Any]:
        """As MONAI Label has it, with what the gate said of each model's last version."""
        self._infers = self.init_infers()  # versions may have come or gone, by another process too
        told = dict(super().info())
        # 3D Slicer's bar shows the first entry
        stats = {name: task.stats() for name, task in self._trainers.items() if task.stats()}
        told["train_stats"] = dict(sorted(stats.items(), key=lambda item: item[1].get("state") != "running"))
        for name in self._trainers:
            told["trainers"][name]["versions"] = [
                {
                    "version": v.version,
                    "served": v.served,
                    "gate": v.record.verdict.reason if v.record and v.record.verdict else v.damage,
                }
                for v in self.engine.registry.versions(name)[-_VERSIONS_TOLD:]
            ]
        return told

    def trainer(self, model: str) -> MethodTrainTask:
        """The trainer of that name. Raises BadRequest (404) if there is none."""
        task = self._trainers.get(model)
        if not isinstance(task, MethodTrainTask):
            raise BadRequest(
                f"There is no trainer {model[:60]!r}. Choose one of {', '.join(self._trainers)}.", 404
            )
        return task

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train in this process, which MONAI Label starts for it; `job` is a retraining."""
        if "job" in request:
            return self.learning.retrainer.learn(int(request["job"]), self.datastore())
        return self.trainer(str(request.get("model", "")))(request, self.datastore())

    def init_datastore(self) -> Datastore:
        settings = self.engine.settings
        if is_remote(self.studies):
            return PacsStudies(self.studies, settings.dicomweb, settings.structures, self.codes)
        if is_dicom_folder(Path(self.studies)):
            dicom = settings.dicomweb
            store = DicomFolderStudies(Path(self.studies), dicom.modalities, settings.structures, self.codes)
            store.show_patient = dicom.show_patient
            return store
        return FolderDatastore.of_folder(
            self.studies,
            monailabel_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            monailabel_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def studies_state(self) -> dict[str, Any]:
        """What the studies are, and whether they can be had.

        Returns:
            `kind`, which is folder, dicom or pacs; `state`, ok or down; `message` for the user, "" for none;
            and `left_out`, name, reason and count of what is not offered, where something is.
        """
        store = self.datastore()
        assert isinstance(store, DicomStudies | FolderDatastore)
        return store.state()

    def on_init_complete(self) -> None:
        """Expired sessions hold patient data: they go every five minutes. Active learning begins."""
        threading.Thread(target=decoder().workers.warm, daemon=True, name="decoding").start()
        threading.Thread(target=lambda: log_left_out(self.studies_state()), daemon=True).start()
        self.learning.start()
        threading.Thread(target=self._clean_sessions, daemon=True, name="sessions").start()

    def on_save_label(self, image_id: str, label_id: str, user: str = "") -> None:
        """A final label was saved."""
        self.learning.submitted(image_id, user)

    def _download_dcmqi_tools(self) -> None:
        """MONAI Label would fetch programs from the internet here; DICOM SEG is written by
        `dicom/segmentation.py`."""

    def close(self) -> None:
        """The server ends."""
        self.learning.close()
        decoder().workers.close()

    def _clean_sessions(self) -> None:
        while self._sessions is not None:
            try:
                self.cleanup_sessions()
            except (OSError, AttributeError, ValueError) as error:  # a folder that is just being written
                logger.info("sessions are cleaned later: %s", error)
            time.sleep(300)

    def task(self, model: str) -> InferTask:
        """The model of that name. Raises BadRequest (404) if there is none."""
        if model not in self._infers:
            self._infers = self.init_infers()
        if model not in self._infers:
            raise BadRequest(
                f"There is no model {model[:60]!r}. Choose one of {', '.join(self._infers)}.", 404
            )
        return self._infers[model]

    def image_path(self, image: str) -> str:
        """Where the datastore keeps an image.

        Raises:
            BadRequest: not an id, or no such image; (503) the studies folder is gone.
        """
        store = self.datastore()
        (check_id if isinstance(store, LocalDatastore) else check_uid)(image)
        if isinstance(store, LocalDatastore) and image not in store.list_images():
            raise BadRequest(
                f"There is no image {image!r} in the studies. See GET /datastore/?output=all.", 404
            )
        path = store.get_image_uri(image)
        if not path or not Path(path).exists():
            if isinstance(store, FolderDatastore):
                check_there(store.root)
            raise BadRequest(f"The image {image!r} cannot be had from the studies. Upload it again.", 404)
        return str(path)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run a model.

        Args:
            request: `model`; `image`, an id of the datastore, or `image_path`, which only our endpoint sets;
                `params` as `InferParams` or, from MONAI Label's own endpoints, its keys beside the others,
                with `session`, `save_label` and `label_tag`; `user`, who works on the image.
            datastore: another place to save the label to.

        Returns:
            `label`, `file` and `params`, as MONAI Label's endpoints expect.

        Raises:
            BadRequest: unknown model, image or tag.
            ValueError: unusable image or prompt.
        """
        task = self.task(str(request.get("model", "")))
        tag = check_tag(request.get("label_tag", DefaultLabelTag.ORIGINAL))
        params = request.get("params")
        if not isinstance(params, InferParams):
            params = InferParams(**{k: v for k, v in request.items() if k in InferParams.model_fields})
        path = request.get("image_path")
        if not isinstance(path, Path):  # a client can only send text
            path = self._sent_image(request) or self.image_path(str(request.get("image", "")))
        with self.learning.user_request():
            sent = {"image": str(path), "params": params}
            if isinstance(request.get("label_path"), Path):
                sent["label_path"] = request["label_path"]
            file, told = task(sent)
        if request.get("image") and request.get("user"):
            prompts = int(isinstance(task, PromptInferTask | ScribblesInferTask))
            image, user = str(request["image"]), str(request["user"])
            self.learning.record_activity(image, user, prompts, str(request["model"]))
            self.answers.note(user, image, told["label_names"], told["provenance"])
        label = file
        if request.get("save_label") and file:
            info = {"model": request["model"], "params": told}
            info["provenance"] = dict.fromkeys(told["label_names"], told["provenance"])
            label = (datastore or self.datastore()).save_label(request["image"], file, tag, info)
        return {"label": label, "tag": tag, "file": file, "params": told}

    def _sent_image(self, request: dict[str, Any]) -> str:
        """The image of the session that MONAI Label's own endpoint puts into a request; "" without one."""
        name = str((request.get("session") or {}).get("name", ""))
        session = self.sessions().get_session(check_session(name)) if name and self.sessions() else None
        return str(session.image) if session else ""

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reserve images for a user, see `NextSample`."""
        task = self._strategies.get(request.get("strategy"))
        if task is None:
            raise BadRequest(
                f"There is no strategy {str(request.get('strategy'))[:60]!r}. Choose one of "
                f"{', '.join(self._strategies)}.",
                404,
            )
        sample: dict[str, Any] = task(request, self.datastore())
        return sample
