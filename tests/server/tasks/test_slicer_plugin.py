"""MONAI Label's own module of 3D Slicer works with a real server, from the first sample to the training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest.mock import MagicMock

import nibabel as nib
import numpy as np
import pytest
import requests
from running import Server, Start
from scipy import ndimage
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from slicer_fixtures import NAMES, K, slab, truth
from slicer_module import Module, needs_plugins
from slicer_nodes import Node
from slicer_stub import Stub

pytestmark = needs_plugins


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


def _moved(node: Node) -> Node:
    """The list of points, whose last point was moved."""
    node.GetDisplayNode = lambda: MagicMock(GetActiveControlPoint=lambda: len(node.points) - 1)
    return node
