"""The TrainTask of all methods: training on the submitted labels in a separate process."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from segmed.active.store.process_id import ProcessId, is_alive
from segmed.data.datastore import load_datastore
from segmed.data.slices import SliceDataset
from segmed.methods.base.method import Method
from segmed.server.datastores.dicom_studies import DicomStudies
from segmed.server.engine import Engine
from segmed.server.http.errors import BadRequest
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, train_model
from segmed.training.progress import Progress

logger = logging.getLogger(__name__)
_STATUS, _STOP = "status.json", "stop"
_TOLD_EVERY = 1.0  # seconds
_COMMON: dict[str, Any] = {
    "epochs": 30,
    "batch": 8,
    "learning_rate": 0.0,
    "validation": 0.2,
    "patience": 10,
    "epoch_steps": 10,
    "seed": 0,
    "augment": False,
    "fresh": False,
}
_LIMITS = {
    "epochs": (1, 10_000),
    "batch": (1, 1024),
    "patience": (1, 10_000),
    "epoch_steps": (1, 10_000),
    "seed": (0, 2**31),
}


class MethodTrainTask(TrainTask):
    """A trainer in the viewers; `learning_rate` 0 takes that of the recipe.

    Args:
        method: Method that can be trained.
        engine: Engine with settings and registry.
    """

    def __init__(self, method: Method, engine: Engine) -> None:
        super().__init__(f"Train {method.title.split(':')[0]} on the submitted labels")
        self.method = method
        self.engine = engine
        self.folder = engine.registry.folder / ".runs" / method.name

    def config(self) -> dict[str, Any]:
        """The options for the user, as 3D Slicer's table shows them."""
        assert self.method.training is not None
        return {"device": self.engine.devices(), **_COMMON, **choices(self.method.training.config)}

    def stats(self) -> dict[str, Any]:
        """The progress of the running or last training, also if its process has crashed."""
        try:
            status = dict(json.loads((self.folder / _STATUS).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}
        process = status.pop("process", None)
        if status.get("state") == "running" and not (
            isinstance(process, dict) and is_alive(ProcessId(**process))
        ):
            status |= {
                "state": "interrupted",
                "message": "It was interrupted. Train again with the same options to go on.",
            }
        return status

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        """The known keys of a request with checked values; other keys are dropped.

        Raises:
            BadRequest: A value is not allowed.
        """
        known = self.config()
        return {key: _checked(key, request[key], known[key]) for key in known if key in request}

    def announce(self) -> None:
        """Clear the progress of the previous training, when a new one is requested and none is running."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (_STOP, _STATUS):
            (self.folder / name).unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask the running training to keep its result and end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _STOP).touch()

    def __call__(
        self,
        request: dict[str, Any],
        datastore: Datastore,
        choose: Callable[[SliceDataset], SliceDataset] = lambda data: data,
        note: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Train; called in a separate process.

        Args:
            request: Request as returned by `check`.
            datastore: Datastore of the server, with the final labels to train on.
            choose: Function that selects the images to train on.
            note: Note to keep with the version; a training with a note resumes on its own, beside those that
                users begin.

        Returns:
            The `stats` at the end.

        Raises:
            ValueError: There are no labels to train on, or the method cannot be trained on them.
        """
        request = self.check(request)
        self.folder.mkdir(parents=True, exist_ok=True)
        begun, parent = time.monotonic(), os.getppid()
        device = self.engine.device(request.get("device"))
        last = 0.0

        def tell(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _TOLD_EVERY:
                last = now
                self._tell(begun, "running", "", progress)

        def stop() -> bool:  # an orphan would train for a server that is gone
            return (self.folder / _STOP).exists() or os.getppid() != parent

        config = job_config(request)
        nothing = Progress(0, request.get("epochs", _COMMON["epochs"]), 0, 0, math.nan, math.nan, math.nan)
        self._tell(begun, "running", "reading the labels", nothing)
        try:
            result = train_model(
                self.method.name,
                self.engine.settings.backbones[self.method.name],
                choose(self._data(datastore)),
                self.engine.registry,
                self.folder / ("retraining" if note else "run"),
                config,
                device,
                tell,
                stop,
                note,
            )
        except Exception as error:  # whatever it is, the viewer shows it
            self._tell(begun, "failed", str(error) or type(error).__name__)
            raise
        status = self._tell(begun, result.training.ended, result.message, best=result.training.best)
        logger.warning("%s", result.message)
        return status

    def _data(self, datastore: Datastore) -> SliceDataset:
        structures, pattern = self.engine.settings.structures, self.engine.settings.patient
        if isinstance(datastore, DicomStudies):
            images = datastore.pairs()
            patients = {image: datastore.facts(image).owner for image in images}
            return load_datastore(datastore.labels.root, labels=structures, images=images, patients=patients)
        folder = getattr(datastore, "_datastore_path", None)
        if not folder:
            raise ValueError("Training needs studies in a folder. Start the server with --studies FOLDER.")
        matches = {image: pattern.search(image) for image in datastore.list_images()} if pattern else {}
        patients = {image: match.group(1) for image, match in matches.items() if match and match.group(1)}
        return load_datastore(folder, labels=structures, patients=patients)

    def _tell(
        self, begun: float, state: str, message: str, progress: Progress | None = None, best: float = math.nan
    ) -> dict[str, Any]:
        """Write the progress that 3D Slicer's progress bar reads."""
        best = progress.best if progress else best
        before = self.stats()
        epochs: dict[str, Any] = {
            key: before[key] for key in ("epoch", "total_epochs") if state != "running" and key in before
        }
        if progress:
            epochs = {"epoch": progress.epoch, "total_epochs": progress.epochs}
        left = progress.seconds_left if progress else 0.0
        status: dict[str, Any] = {
            **epochs,
            "elapsed": _clock(
                time.monotonic() - begun
            ),  # as `total_time` it would hold the viewers' bars at 0
            **({} if math.isnan(best) else {"best_metric": round(best, 4)}),  # 3D Slicer fails at None
            "loss": round(progress.loss, 5) if progress and math.isfinite(progress.loss) else None,
            "eta": _clock(left) if math.isfinite(left) else "",
            "state": state,
            "message": message,
        }
        try:
            fresh = self.folder / f".{_STATUS}"
            fresh.write_text(json.dumps({**status, "process": asdict(ProcessId.current())}), encoding="utf-8")
            fresh.replace(self.folder / _STATUS)
        except OSError as error:
            logger.warning("The progress cannot be written: %s", error)
        return status


def job_config(request: dict[str, Any]) -> JobConfig:
    """The settings of the training from a checked request."""
    values = {**_COMMON, **request}
    own = {k: v for k, v in request.items() if k not in _COMMON and k != "device"}
    training = FinetuneConfig(**{name: values[name] for name in _LIMITS})
    rate = values["learning_rate"] or None
    return JobConfig(own, training, rate, values["validation"], values["augment"], values["fresh"])


def choices(config: type[Any]) -> dict[str, Any]:
    """The fields of a method's config that a viewer can show: numbers, switches, texts and choices.

    Files of the server's machine are not among them.
    """
    hints = get_type_hints(config)
    shown: dict[str, Any] = {}
    for field in fields(config):
        if field.metadata.get("local"):
            continue
        hint, default = hints[field.name], field.default
        if get_origin(hint) is Literal:
            shown[field.name] = [default, *(word for word in get_args(hint) if word != default)]
        elif hint in (int, float, bool, str):
            shown[field.name] = default
    return shown


def _checked(key: str, value: Any, known: Any) -> Any:
    """The value converted to the type of the default; for lists, one of the choices."""
    if isinstance(known, list):
        value = value[0] if isinstance(value, list) and value else value
        if value not in known:
            raise BadRequest(
                f"{key} {str(value)[:60]!r} is not allowed. Choose one of {', '.join(map(str, known))}."
            )
        return value
    if isinstance(known, bool):
        if not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
            raise BadRequest(f"{key} {str(value)[:60]!r} must be true or false.")
        return value if isinstance(value, bool) else str(value).lower() == "true"
    if isinstance(known, str):
        return str(value)[:100]
    try:
        number = type(known)(value)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"{key} {str(value)[:60]!r} must be a number such as {known}.") from error
    low, high = _LIMITS.get(key, (-math.inf, math.inf))
    if not low <= number <= high or not math.isfinite(number):
        raise BadRequest(f"{key} {number} must be between {low} and {high}.")
    return number


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
