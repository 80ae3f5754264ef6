"""The MONAI Label module of 3D Slicer itself, as it comes with MONAI Label, against a real server.

Its source is run on a stub of 3D Slicer's interface, so that each request of each panel is made by the
module's own code, and each answer is read by it. 3D Slicer itself is not run.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import nibabel as nib
import numpy as np
import pytest
import requests
from guarded_server import PASSWORD, Guarded, guarded
from running import Server, Start
from scipy import ndimage
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from slicer_fixtures import NAMES, K, slab, truth
from slicer_nodes import Node, affine_of
from slicer_stub import SegmentEditor, Stub
from slicer_widgets import Widgets

__all__ = ["guarded"]
PLUGINS = Path(sys.prefix) / "monailabel" / "plugins" / "slicer"
pytestmark = pytest.mark.skipif(
    not (PLUGINS / "MONAILabel" / "MONAILabel.py").is_file(),
    reason=f"MONAI Label's module of 3D Slicer is not in {PLUGINS}; pip install monailabel puts it there",
)


def load(stub: Stub, name: str) -> ModuleType:
    """The source of one of MONAI Label's modules, executed."""
    path = PLUGINS / name / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        for loaded in [m for m in sys.modules if m.startswith(f"{name}Lib")]:
            del sys.modules[loaded]
    return module


class Module:
    """The module's widget with all of its panels, and what the tests do in its place by mouse."""

    def __init__(self, stub: Stub, url: str) -> None:
        self.stub, self.source = stub, load(stub, "MONAILabel")
        widget = self.source.MONAILabelWidget()
        widget.ui = Widgets()
        widget.ui.embeddedSegmentEditorWidget = SegmentEditor()
        widget.ui.freezeUpdateCheckBox.checked = False
        for place in ("sam2", "scribbles"):
            getattr(widget.ui, f"{place}PlaceWidget").currentNode = lambda place=place: self.roi(place)
        for section in ("infer", "train", "activelearning", "scoring"):
            widget.ui.optionsSection.addItem(section)
        self.parameters: dict[str, str] = {}
        widget._parameterNode = MagicMock(
            GetParameter=lambda key: self.parameters.get(key, ""), SetParameter=self.parameters.__setitem__
        )
        stub.scene.on_close = self.close
        widget.parent, widget.resourcePath = None, lambda name: name
        widget.tmpdir = str(stub.folder)
        widget.logic = self.source.MONAILabelLogic(str(stub.folder), resourcePath=str)
        widget.ui.serverComboBox.currentText = url
        self.widget, self.ui = widget, widget.ui

    def close(self) -> None:
        """The scene is closed, and the module begins anew."""
        parameters = self.widget._parameterNode
        self.widget.onSceneStartClose(None, None)
        self.widget._parameterNode = parameters

    def roi(self, place: str) -> Node | None:
        return self.widget._sam2ROINode if place == "sam2" else self.widget._scribblesROINode

    def connect(self) -> None:
        self.widget.onClickFetchInfo()
        assert self.stub.shown == []

    def next_sample(self, strategy: str = "sequential") -> None:
        self.ui.strategyBox.currentText = strategy
        self.widget.onNextSampleButton()
        assert self.stub.shown == [] and self.widget._volumeNode is not None

    def mask(self, name: str) -> np.ndarray:
        return np.asarray(self.widget._segmentNode.segmentation.segments[name].mask)

    def ras(self, ijk: Any) -> list[float]:
        return [float(v) for v in (affine_of(self.widget._volumeNode.image) @ [*ijk, 1.0])[:3]]

    def click(self, name: str, ijk: Any, positive: bool = True) -> None:
        self.ui.labelComboBox.currentText = name
        points = self.widget.dgPositivePointListNode if positive else self.widget.dgNegativePointListNode
        points.AddControlPoint(self.ras(ijk))

    def box(self, mask: np.ndarray, place: str = "sam2") -> None:
        corners = np.array([self.ras(v) for v in (np.argwhere(mask).min(0), np.argwhere(mask).max(0))])
        node = self.roi(place)
        assert node is not None
        node.box = corners.min(0), corners.max(0)


@pytest.fixture(scope="module")
def slicer_server(
    start: Start, bodies: dict[str, Phantom], weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """Two volumes whose axes are those of the patient, and models of each type."""
    studies = tmp_path_factory.mktemp("plugin")
    for name, body in ((name, bodies[name]) for name in ("lps", "ras")):
        nib.save(nib.Nifti1Image(body.image, body.affine), studies / f"{name}.nii.gz")
    words = {"models": "segmed,classical,lora", "untrained": "true", "backbone_lora": str(weights)}
    words["labels"] = ",".join(NAMES)
    return start(studies, *(w for key, value in words.items() for w in ("--conf", key, value)))


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(tmp_path)
    stub.settings["MONAILabel/autoRunSegmentationOnNextSample"] = False
    with stub.imported():
        yield stub


@pytest.fixture
def module(stub: Stub, slicer_server: Server, monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module(stub, slicer_server.url)
    module.connect()
    monkeypatch.setattr(module.source.time, "sleep", lambda _: None)
    stub.settings["MONAILabel/clientId"] = "Dr Lee"
    return module


def deep(mask: np.ndarray) -> list[int]:
    """The voxel of a mask on slice K that is farthest from its edge."""
    i, j = np.unravel_index(ndimage.distance_transform_edt(mask[:, :, K]).argmax(), mask.shape[:2])
    return [int(i), int(j), K]


def dice(module: Module, name: str, wanted: np.ndarray) -> float:
    return Overlap.of(module.mask(name), wanted).dice()


def body_of(module: Module, bodies: dict[str, Phantom]) -> Phantom:
    """The body that Next Sample has brought."""
    return bodies[module.widget.current_sample["id"]]


def test_data_and_active_learning(module: Module, slicer_server: Server) -> None:
    """Connect, the bars, Next Sample with each strategy, and a scene that is asked for twice."""
    assert module.ui.strategyBox.items and module.ui.segmentationModelSelector.items == ["lora"]
    assert module.ui.scribblesMethodSelector.items
    for strategy in module.ui.strategyBox.items[:3]:
        module.next_sample(strategy)
        assert list(module.widget._segmentNode.segmentation.segments) == NAMES
    sample = module.widget.current_sample
    assert (module.stub.folder / sample["name"]).is_file()


def test_smart_edit_clicks_then_a_box_then_the_volume(module: Module, bodies: dict[str, Phantom]) -> None:
    module.next_sample()
    liver = truth(body_of(module, bodies), "liver")
    module.ui.deepgrowModelSelector.currentText = "classical"
    module.click("liver", deep(liver))
    module.widget.onUpdateDeepgrow()
    assert module.stub.shown == [] and module.mask("liver")[:, :, K].any()
    assert not module.mask("liver")[:, :, :K].any()
    module.click("liver", [0, 0, K], positive=False)
    module.widget.onDeepGrowPointListNodeModified(_moved(module.widget.dgNegativePointListNode), None)
    module.widget.dgPositivePointListNode.points = []
    module.widget.dgNegativePointListNode.points = []
    module.box(slab(liver))
    module.ui.deepgrowModelSelector.currentText = "classical_3d"
    module.widget.onUpdateDeepgrow()
    assert module.stub.shown == [] and dice(module, "liver", liver) > 0.7
    module.parameters["CurrentLabel"] = "liver"
    module.ui.labelComboBox.currentText = "spleen"
    module.widget.onSelectLabel()
    module.ui.deepgrowModelSelector.currentText = "classical_3d"
    module.box(truth(body_of(module, bodies), "spleen"))
    module.widget.onUpdateDeepgrow()
    assert module.stub.shown == [] and module.mask("spleen").any() and module.mask("liver").any()


def test_auto_segmentation_of_a_session(
    module: Module, slicer_server: Server, bodies: dict[str, Phantom]
) -> None:
    """A volume that was loaded by hand is sent once, and its name is not looked up."""
    module.stub.volume(slicer_server.studies / "ras.nii.gz", "2: CT/Thorax Müller")
    module.widget.updateGUIFromParameterNode()
    module.ui.segmentationModelSelector.currentText = "lora"
    module.widget.onClickSegmentation()
    session = module.widget.current_sample["session_id"]
    module.widget.onClickSegmentation()
    assert module.widget.current_sample["session_id"] == session and module.stub.shown == []
    module.ui.deepgrowModelSelector.currentText = "classical_3d"
    module.box(truth(bodies["ras"], "liver"))
    module.ui.labelComboBox.currentText = "liver"
    module.widget.onUpdateDeepgrow()
    assert module.stub.shown == [] and dice(module, "liver", truth(bodies["ras"], "liver")) > 0.7
    requests.delete(f"{slicer_server.url}/session/{session}", timeout=30)
    module.widget.onClickSegmentation()  # this version of the module opens no new one
    assert "Load the image again" in module.stub.shown[0]


def test_scribbles(module: Module, bodies: dict[str, Phantom]) -> None:
    module.next_sample()
    liver = truth(body_of(module, bodies), "liver")
    i, j, k = deep(liver)
    segments = module.widget._segmentNode.segmentation
    for name in ("background_scribbles", "foreground_scribbles"):
        segments.AddEmptySegment(name)
    segments.segments["foreground_scribbles"].mask[i - 2 : i + 3, j, k] = True
    segments.segments["background_scribbles"].mask[1:5, 2, k] = True
    module.ui.scribLabelComboBox.currentText = "liver"
    module.ui.scribblesMethodSelector.currentText = "segmed_scribbles"
    module.box(slab(liver), "scribbles")
    module.widget.onUpdateScribbles()
    assert module.stub.shown == [] and module.mask("liver")[i - 2 : i + 3, j, k].all()
    assert not module.mask("liver")[1:5, 2, k].any()


def test_submitted_labels_come_back(
    module: Module, slicer_server: Server, bodies: dict[str, Phantom], tmp_path: Path
) -> None:
    """As a label map and as .seg.nrrd, whose overlaps and names are kept both ways."""
    module.next_sample()
    image = module.widget.current_sample["id"]
    liver, spleen = (truth(body_of(module, bodies), name) for name in ("liver", "spleen"))
    segments = module.widget._segmentNode.segmentation.segments
    segments["liver"].mask, segments["spleen"].mask = liver, spleen
    module.ui.segmentationModelSelector.currentText = "lora"
    module.widget.onSaveLabel()
    assert module.stub.shown == ["Label-Mask saved into MONAI Label Server"]
    stored = module.widget.logic.download_label(image, "final")
    values = np.asarray(nib.load(stored).dataobj)
    np.testing.assert_array_equal(values, liver + 2 * spleen)
    module.widget.file_ext = module.stub.settings["MONAILabel/fileExtension"] = ".seg.nrrd"
    module.stub.settings["MONAILabel/allowOverlappingSegments"] = True
    segments["spleen"].mask = spleen | ndimage.binary_erosion(liver)
    both = segments["spleen"].mask.copy()
    module.widget.onSaveLabel()
    assert len(module.stub.shown) == 2, module.stub.shown
    stored = module.widget.logic.download_label(image, "final")
    assert stored.endswith(".seg.nrrd")
    for segment in segments.values():
        segment.mask = np.zeros_like(segment.mask)
    module.ui.labelPathLineEdit.currentPath = stored
    module.widget.onImportLabel()
    np.testing.assert_array_equal(module.mask("spleen"), both)
    np.testing.assert_array_equal(module.mask("liver"), liver)


def test_own_volumes_are_uploaded_and_bad_names_refused(
    module: Module, slicer_server: Server, tmp_path: Path
) -> None:
    node = module.stub.volume(slicer_server.studies / "lps.nii.gz", "a/b")
    module.widget.updateGUIFromParameterNode()
    assert not module.widget.onUploadImage() and "Rename it" in module.stub.shown[0]
    node.SetName("uploaded by hand")
    assert module.widget.onUploadImage()
    assert (slicer_server.studies / "uploaded by hand.nii.gz").is_file()
    removed = requests.delete(f"{slicer_server.url}/datastore/image?id=uploaded by hand", timeout=30)
    assert removed.status_code == 200


def test_options_and_training(module: Module, slicer_server: Server) -> None:
    module.ui.optionsSection.setCurrentIndex(1)
    module.widget.updateConfigTable()
    assert module.ui.optionsName.items and module.ui.configTable.rowCount > 5
    keys = [module.ui.configTable.item(row, 0).text() for row in range(module.ui.configTable.rowCount)]
    row = keys.index("epochs")
    module.ui.configTable.item(row, 1).content = "2"
    trainer = module.ui.optionsName.currentText
    assert module.widget.getParamsFromConfig("train", trainer)["epochs"] == 2
    module.ui.trainerBox.currentText = "lora"
    module.widget.onTraining()
    assert module.stub.shown == []
    deadline = time.monotonic() + 120
    while (module.widget.isTrainingRunning(False) or {}).get("status") in ("SUBMITTED", "RUNNING"):
        module.widget.monitorTraining() if module.widget.timer else None
        module.widget.onStopTraining()
        assert time.monotonic() < deadline
    assert module.stub.shown == []


def test_monai_labels_names_of_options_and_unknown_ones(slicer_server: Server) -> None:
    url = f"{slicer_server.url}/train/lora"
    theirs = {"max_epochs": 1, "train_batch_size": 4, "val_batch_size": 1, "val_split": 0.25}
    theirs |= {"pretrained": False, "dataset": "CacheDataset", "client_id": "x", "epoch_stepz": 3}
    told = requests.post(url, json=theirs, params={"enqueue": True}, timeout=60).json()
    requests.delete(f"{slicer_server.url}/train/", timeout=60)
    sent = told["request"]
    assert (sent["epochs"], sent["batch"], sent["validation"], sent["fresh"]) == (1, 4, 0.25, True)
    assert len(told["warnings"]) == 3 and "val_batch_size has no effect" in told["warnings"][0]
    assert "dataset has no effect" in told["warnings"][1]
    assert "'epoch_stepz' is not known" in told["warnings"][2]
    refused = requests.post(url, json={"pretrained": "maybe"}, timeout=60)
    assert refused.status_code == 400 and "must be true or false" in refused.json()["detail"]
    asked = {"params": json.dumps({"roi": [1, 9, 1, 9, 3, 3], "rio": [1], "slice": 3, "liver": []})}
    url = f"{slicer_server.url}/infer/classical?image=lps&output=json"
    told = requests.post(url, data=asked, timeout=60).json()
    assert [w for w in told["warnings"] if w.startswith("Not known, and ignored: rio. Known are")]


def test_a_login(stub: Stub, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialog asks once; then each request carries the token."""
    module = Module(stub, guarded.server.url)
    asked: list[int] = []

    def dialog(**_: Any) -> Any:
        asked.append(1)
        texts = {"username": SimpleNamespace(text="annotator"), "password": SimpleNamespace(text=PASSWORD)}
        return SimpleNamespace(exec=lambda: None, ui=SimpleNamespace(**texts))

    monkeypatch.setattr(module.source, "LoginDialog", dialog)
    module.connect()
    assert asked == [1] and module.ui.deepgrowModelSelector.items


def test_the_reviewers_module(guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MONAI Label Reviewer notes its verdict with the label; with a login, reviewers may, and others not.

    The module knows no login, so that the header is put into its requests here, as a reverse proxy does.
    """
    rest = _rest()
    image = nib.load(guarded.server.studies / "ct.nii.gz")
    mask = (np.asarray(image.dataobj) > 300).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "l.nii.gz")
    label = {"label": ("l.nii.gz", (tmp_path / "l.nii.gz").read_bytes())}
    assert guarded.ask("annotator", "PUT", "/datastore/label?image=ct", files=label).status_code == 200
    server = rest.MonaiServerREST(guarded.server.url)
    verdict = {"segmentationMeta": {"status": "approved", "level": "easy", "approvedBy": "Dr Lee"}}
    answers = {}
    for role in ("reader", "annotator", "reviewer"):
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {guarded.tokens[role]}"
        for verb in ("get", "put"):
            monkeypatch.setattr(rest.requests, verb, getattr(session, verb))
        answers[role] = server.updateLabelInfo("ct", "final", verdict)
    assert answers == {"reader": 403, "annotator": 403, "reviewer": 200}
    noted = server.requestDataStoreInfo()["objects"]["ct"]["labels"]["final"]["info"]
    assert noted["segmentationMeta"]["status"] == "approved" and noted["segments"]
    assert server.requestSegmentation("ct", "final").status_code == 200


def _rest() -> Any:
    """The requests of MONAI Label Reviewer."""
    path = PLUGINS / "MONAILabelReviewer" / "MONAILabelReviewerLib" / "MonaiServerREST.py"
    spec = importlib.util.spec_from_file_location("MonaiServerREST", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _moved(node: Node) -> Node:
    """The list of points, whose last point was moved."""
    node.GetDisplayNode = lambda: MagicMock(GetActiveControlPoint=lambda: len(node.points) - 1)
    return node
