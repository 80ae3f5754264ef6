"""Our module of 3D Slicer on a stub of its interface, against a real server. 3D Slicer itself is not run."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from running import ROOT, Server
from scipy import ndimage
from segmed.client import SegMedClient
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from slicer_nodes import Node
from slicer_stub import Stub
from slicer_widgets import Button

FOLDER = ROOT / "clients" / "slicer" / "SegMed"
K = 14


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(tmp_path)
    with stub.imported():
        yield stub


@pytest.fixture
def panel(stub: Stub, served: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The panel, connected to the server."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    panel = importlib.import_module("SegMed").SegMedWidget()
    panel.setup()
    panel.url.text, panel.name.text = served.url, f"Dr {stub.folder.name}"[:100]
    press("Connect")
    yield panel
    for name in set(sys.modules) - before:
        if name.startswith(("SegMed", "segmed_client")):
            del sys.modules[name]


def press(button: str) -> None:
    Button.pressed[button]()


def opened(panel: Any, image: str = "ct") -> Any:
    panel.images.currentText = image
    press("Open")
    panel.models.currentText, panel.labels.currentText = "classical", "liver"
    return panel.logic.session


def ras(body: Phantom, voxels: Any) -> list[list[float]]:
    return np.asarray(nib.affines.apply_affine(body.affine, voxels)).tolist()


def draw(panel: Any, role: str, points: list[list[float]]) -> Node:
    press({"box": "Box", "lasso": "Lasso", "foreground": "Point +", "scribble": "Scribble +"}[role])
    node: Node = panel.markups[role]
    if role == "box":
        node.box = np.min(points, axis=0), np.max(points, axis=0)
    else:
        node.points += points
    return node


def liver(body: Phantom) -> np.ndarray:
    return np.asarray(body.labels == 1)


def mask(session: Any, name: str = "liver") -> np.ndarray:
    return np.asarray(session.segmentation.segmentation.segments[name].mask)


def test_connecting_lists_images_models_and_labels(panel: Any, stub: Stub) -> None:
    assert "Connected to SegMed" in panel.status.text and " images" in panel.status.text
    assert set(panel.images.items) >= {"ct", "other"} and "classical_3d" in panel.models.items
    assert panel.labels.items == ["liver", "spleen"] and stub.settings["SegMed/url"] == panel.url.text
    panel.url.text = "http://127.0.0.1:1"
    press("Connect")
    assert "No server answers" in panel.status.text
    press("Segment")
    assert panel.status.text.startswith("No image is open")


def test_a_box_a_point_undo_and_a_volume(panel: Any, body: Phantom) -> None:
    session = opened(panel)
    np.testing.assert_allclose(
        nib.affines.voxel_sizes(body.affine), session.volume.image.GetSpacing(), rtol=1e-5
    )
    press("Segment")
    assert panel.status.text.startswith("Nothing is drawn")
    flat = np.argwhere(liver(body) & (np.arange(24) == K))
    node = draw(panel, "box", ras(body, [flat.min(0), flat.max(0)]))
    press("Segment")
    assert panel.status.text == "liver was segmented." and node.box is None
    assert Overlap.of(mask(session)[:, :, K], liver(body)[:, :, K]).dice() > 0.8
    np.testing.assert_array_equal(mask(session), session.work.labels == 1)
    press("Undo")
    assert not mask(session).any()
    press("Redo")
    once = mask(session).copy()
    press("Next object")
    panel.models.currentText, panel.labels.currentText = "classical_3d", "my tumour"
    spleen = np.argwhere(body.labels == 2)
    draw(panel, "box", ras(body, [spleen.min(0), spleen.max(0)]))
    press("Segment")
    assert mask(session, "my tumour").any(axis=(0, 1)).sum() > 1
    np.testing.assert_array_equal(mask(session) | mask(session, "my tumour"), session.work.labels > 0)
    assert (once & ~mask(session)).sum() == 0


def test_points_and_scribbles_in_a_sagittal_view(panel: Any, body: Phantom) -> None:
    session = opened(panel)
    i, j, k = np.unravel_index(ndimage.distance_transform_edt(liver(body)).argmax(), body.labels.shape)
    draw(panel, "foreground", ras(body, [[i, j, k]]))
    press("Segment")
    assert mask(session)[i, j, k]
    draw(panel, "scribble", ras(body, [[i, j, k - 1], [i, j, k + 1]]))
    press("Segment")
    assert mask(session)[i, j, k - 1 : k + 2].all(), panel.status.text
    side = ras(body, [[i, j - 3, k - 1], [i, j + 3, k - 1], [i, j, k + 1]])
    draw(panel, "lasso", side)
    press("Segment")
    planes = bool(session.work.image.planes)  # of servers that segment in each plane
    assert planes or "in the stored slices only" in panel.status.text


def test_progress_is_shown_and_stop_reaches_the_server(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(panel)
    stopped: list[bool] = []
    monkeypatch.setattr(session.work, "stop", lambda keep=True: stopped.append(keep))
    told = sys.modules["segmed_client"].Progress(3, 12, 2.0, 6.2)
    panel._on_progress(told)
    assert panel.status.text == "3 of at most 12 slices, about 6 s left" and stopped == []
    press("Stop")
    panel._on_progress(told)
    panel._on_progress(told)
    assert stopped == [True]


def test_edits_and_submitting(panel: Any, served: Server) -> None:
    session = opened(panel, "other")
    panel.labels.currentText = "spleen"
    edited = np.zeros(session.work.labels.shape, bool)
    edited[10:20, 12:22, 5] = True
    session.segmentation.segmentation.AddEmptySegment("spleen")
    session.segmentation.segmentation.segments["spleen"].mask = edited
    press("Take edits of the Segment Editor")
    assert panel.status.text == "The edits were taken."
    np.testing.assert_array_equal(session.work.labels == session.work.values()["spleen"], edited)
    press("Submit")
    assert panel.status.text.startswith("Submitted: ") and "spleen (100 voxels)" in panel.status.text
    assert (served.studies / "labels" / "final" / "other.nii.gz").is_file()


def test_an_open_volume_is_sent_and_segmented(
    panel: Any, stub: Stub, served: Server, body: Phantom, tmp_path: Path
) -> None:
    nib.save(nib.Nifti1Image(body.image, body.affine), tmp_path / "mine.nii.gz")
    press("Send the open volume to the server")
    assert panel.status.text.startswith("No volume is open")
    volume = stub.volume(tmp_path / "mine.nii.gz", "mine")
    press("Send the open volume to the server")
    assert panel.logic.session.volume is volume and "mine" in panel.status.text
    assert (served.studies / "mine.nii.gz").is_file()
    assert httpx.delete(f"{served.url}/datastore/image?id=mine").status_code == 200


def test_a_region_that_is_turned_or_outside_becomes_a_box_of_the_image(panel: Any) -> None:
    from SegMedLib.markups import box_in_voxels  # type: ignore[import-not-found]

    corners = np.array([[-5.0, 2.2, 3.1], [4.6, 7.9, 3.3]])
    assert box_in_voxels(corners, (10, 10, 10)) == [0, 5, 2, 8, 3, 3]
    assert box_in_voxels(np.add(corners, (0, 0, 90)), (10, 10, 10)) == [0, 5, 2, 8, 9, 9]


def test_httpx_is_installed_when_the_user_agrees(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    loading = importlib.import_module("SegMedLib.loading")
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    util = stub.modules["slicer.util"]
    util.__dict__["confirmOkCancelDisplay"] = lambda text: False
    with pytest.raises(ModuleNotFoundError, match="cannot work without httpx"):
        loading.load_client(util)
    installed: list[str] = []
    util.__dict__.update(confirmOkCancelDisplay=lambda text: True, pip_install=installed.append)
    assert issubclass(loading.load_client(util).SegMedClient, object) and installed == ["httpx>=0.27,<0.29"]
    assert loading.load_client(util).SegMedClient is not SegMedClient, "a copy of its own"


def test_the_module_can_be_read_by_the_python_of_3d_slicer() -> None:
    for path in FOLDER.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
