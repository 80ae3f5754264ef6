"""The napari plugin, offscreen, against a real server. napari is no dependency of SegMed: see docs/napari.md.

SEGMED_NAPARI=/path/to/site-packages ./scripts/test.sh tests/client/test_napari.py
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from running import ROOT, Server
from scipy import ndimage
from segmed.client import SegMedClient
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if folder := os.environ.get("SEGMED_NAPARI", ""):
    sys.path.append(folder)
pytest.importorskip(
    "napari",
    reason="napari is not installed: pip install --target DIR 'napari[pyside6]', and set SEGMED_NAPARI=DIR",
    exc_type=ImportError,
)
sys.path.append(str(ROOT / "clients" / "napari" / "src"))
from napari.components import ViewerModel
from napari_segmed import offline
from napari_segmed.panel import SegMedPanel
from qtpy.QtWidgets import QApplication

K = 14


@pytest.fixture(scope="module")
def application() -> Any:
    return QApplication.instance() or QApplication([])


@pytest.fixture
def viewer(application: Any) -> Any:
    """A viewer with all but its canvas, which needs OpenGL."""
    return ViewerModel()


@pytest.fixture
def panel(viewer: Any, served: Server, request: pytest.FixtureRequest) -> SegMedPanel:
    panel = SegMedPanel(viewer)
    panel.name.setText(f"Dr {request.node.name}"[:100])
    panel.connect_to(served.url)
    wait(lambda: not panel.busy)
    panel.images.setCurrentText("ct")
    return panel


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not until():
        QApplication.processEvents()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def opened(panel: SegMedPanel) -> Any:
    panel.open_image()
    assert panel.open_work is not None, panel.status.text()
    panel.models.setCurrentText("classical")
    panel.labels.setCurrentText("liver")
    return panel.open_work


def segment(panel: SegMedPanel) -> str:
    panel.segment()
    wait(lambda: not panel.busy)
    return panel.status.text()


def test_a_box_shows_the_mask_where_it_belongs(panel: SegMedPanel, viewer: Any, body: Phantom) -> None:
    assert "Connected to SegMed" in panel.status.text() and panel.images.count() >= 2
    work = opened(panel)
    np.testing.assert_array_equal(work.image.data, body.image.T)
    np.testing.assert_allclose(work.labels.scale, (8.0, 3.6, 3.6), rtol=1e-5)
    assert segment(panel).startswith("Nothing is drawn")
    i, j = np.nonzero(body.labels[:, :, K] == 1)
    corners = [[K, j.min(), i.min()], [K, j.min(), i.max()], [K, j.max(), i.max()], [K, j.max(), i.min()]]
    viewer.layers["shapes object"].add_rectangles([corners])
    assert segment(panel) == "liver was segmented."
    assert Overlap.of(work.labels.data[K].T == 1, body.labels[:, :, K] == 1).dice() > 0.8
    assert work.labels.features["name"].tolist() == ["background", "liver", "spleen"]
    assert not len(viewer.layers["shapes object"].data), "what was drawn is used once"
    panel.step("undo")
    assert not work.labels.data.any()
    panel.step("redo")
    np.testing.assert_array_equal(work.labels.data, work.work.labels.T)


def test_points_lines_and_polygons_in_any_plane(panel: SegMedPanel, viewer: Any, body: Phantom) -> None:
    work = opened(panel)
    liver = body.labels == 1
    i, j, k = np.unravel_index(ndimage.distance_transform_edt(liver).argmax(), liver.shape)
    viewer.layers["points object"].add([k, j, i])
    viewer.layers["points beside"].add([k, 2, 2])
    segment(panel)
    assert work.labels.data[k, j, i] == 1 and work.work.told.prompt.background == [[2, 2, k]]
    viewer.dims.order = (2, 0, 1)  # sagittal
    viewer.layers["shapes object"].add_paths([np.array([[k - 1, j, i], [k + 1, j, i]])])
    segment(panel)
    assert (work.labels.data[k - 1 : k + 2, j, i] == 1).all(), panel.status.text()
    viewer.dims.order = (0, 1, 2)
    viewer.layers["shapes beside"].add_paths([np.array([[k, 3, 1], [k, 3, 8]])])
    segment(panel)
    assert not work.labels.data[k, 3, 1:9].any() and work.labels.data[k, j, i] == 1
    panel.step("accept")
    polygon = np.array([[k, j - 4, i - 4], [k, j - 4, i + 4], [k, j + 4, i + 4], [k, j + 4, i - 4]])
    viewer.layers["shapes object"].add_polygons([polygon])
    panel.labels.setCurrentText("my tumour")
    assert "was segmented" in segment(panel) or "liver" in panel.status.text()
    assert "my tumour" in work.work.values()


def test_what_is_painted_by_hand_is_sent_and_saved(panel: SegMedPanel, served: Server) -> None:
    panel.images.setCurrentText("other")
    work = opened(panel)
    work.work.clear()
    work.labels.data[5, 12:22, 10:20] = 2
    work.labels.data[6, 12:22, 10:20] = 77  # a value without a name is the chosen label
    panel.save()
    assert "liver (100 voxels)" in panel.status.text() and "spleen (100 voxels)" in panel.status.text()
    there = SegMedClient(served.url, "somebody else").open("other")
    np.testing.assert_array_equal(there.labels, work.labels.data.T)


def test_a_layer_is_sent_and_worked_on(panel: SegMedPanel, viewer: Any, served: Server) -> None:
    panel.open_layer()
    assert panel.status.text().startswith("No image layer is selected")
    truth = np.zeros((40, 50), bool)
    truth[10:30, 15:40] = True
    picture = np.random.default_rng(0).normal(100.0, 8.0, truth.shape) + 120.0 * truth
    layer = viewer.add_image(picture, name="my: picture", scale=(0.5, 0.25))
    panel.open_layer()
    assert panel.open_work is not None and panel.open_work.image is layer, panel.status.text()
    panel.models.setCurrentText("classical")
    viewer.layers["shapes object"].add_rectangles([[[0, 8, 13], [0, 8, 42], [0, 32, 42], [0, 32, 13]]])
    segment(panel)
    assert Overlap.of(panel.open_work.labels.data[0] > 0, truth).dice() > 0.8
    assert httpx.delete(f"{served.url}/datastore/image?id=my_ picture").status_code == 200
    viewer.add_image(np.zeros((2, 3, 4, 5)), name="four")
    panel.open_layer()
    assert "has 4 dimensions" in panel.status.text()


def test_errors_are_shown_and_nothing_is_lost(panel: SegMedPanel, viewer: Any) -> None:
    work = opened(panel)
    viewer.layers["points beside"].add([K, 2, 2])
    assert "draw a box" in segment(panel)
    assert len(viewer.layers["points beside"].data) == 1
    panel.connect_to("http://127.0.0.1:1")
    wait(lambda: not panel.busy)
    assert "No server answers" in panel.status.text() and panel.open_work is work


def test_offline_needs_segmed_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmed.server.embedded", None)
    offline.own_server.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="install SegMed itself"):
        offline.own_server()


def test_offline_starts_a_server_in_this_process(
    panel: SegMedPanel, viewer: Any, monkeypatch: pytest.MonkeyPatch, served: Server
) -> None:
    """The server itself is tested in tests/server/test_embedded.py."""
    monkeypatch.setattr("napari_segmed.panel.own_server", lambda: served.url)
    panel.client = None
    panel.connect_to()
    wait(lambda: not panel.busy)
    assert panel.client is not None
    assert "Connected to SegMed" in panel.status.text()


def test_the_plugin_is_declared() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(ROOT / "clients" / "napari" / "src" / "napari_segmed" / "napari.yaml")
    widget = manifest.contributions.widgets[0]
    assert manifest.contributions.commands[0].python_name == "napari_segmed.panel:SegMedPanel"
    assert widget.command == manifest.contributions.commands[0].id
