"""OHIF on a real PACS, in a real browser: from the study list to the DICOM SEG in the PACS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import highdicom
import httpx
import numpy as np
import pytest
from browser import Picture
from ohif_page import Ohif, Places, uids
from orthanc import Pacs
from playwright.sync_api import Page, expect
from running import Server
from segmed.data.phantom import Phantom

from ohif.structures import (
    KIDNEY,
    LIVER,
    SPLEEN,
    VIEWS,
    assert_verified,
    middle_of,
    overlap,
    seg_places,
    structure_of,
)


@pytest.fixture
def elsewhere(page: Page) -> Iterator[list[str]]:
    """Requests that left the page's own server."""
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    yield asked


@pytest.mark.parametrize("plane", VIEWS)
def test_from_a_box_to_the_pacs(
    plane: str,
    pacs: Pacs,
    phantoms: dict[str, tuple[Path, Phantom]],
    server: Server,
    page: Page,
    elsewhere: list[str],
    picture: Picture,
    tmp_path: Path,
) -> None:
    """Box, Auto, click, brush, eraser, undo and save, each in its place on the screen and in the patient."""
    folder, phantom = phantoms[plane]
    study, series = uids(folder)
    ohif, view = Ohif(page, server.url, series), VIEWS[plane]
    ohif.open(study)
    large, *small = (ohif.pixels(f"mpr-{name}").shape for name in ("axial", "sagittal", "coronal"))
    assert all(large[0] > 1.8 * h and large[1] > 1.8 * w for h, w, _ in small)
    assert page.locator(".monaiLabelPanel").count() == 0
    assert np.allclose(ohif.range(view), ohif.window, atol=1)  # the files name no window

    k, corners, inside = middle_of(phantom, LIVER, ohif)
    ohif.go_to(view, inside)
    before = ohif.pixels(view)
    page.fill("#segmed-label", "liver")
    ohif.press("box")
    ohif.drag(view, corners[0], corners[1], "/prompt")
    box = ohif.both()
    assert set(box.by_name) == {"liver"}
    assert overlap(box, structure_of(phantom, LIVER, k), "liver") > 0.75

    changed = np.abs(ohif.pixels(view) - before).max(-1) > 12
    shown = ohif.mask_on_screen(view, box)
    assert shown.sum() > 500
    assert (changed & shown).sum() / (changed | shown).sum() > 0.9

    ohif.press("auto")  # through the volume, from the box
    volume = ohif.both()
    assert len(np.unique(ohif.voxel(volume.by_name["liver"])[:, 2])) > 3
    assert overlap(volume, structure_of(phantom, LIVER), "liver") > 0.5

    ohif.press("fresh")
    page.fill("#segmed-label", "spleen")
    _, _, spleen = middle_of(phantom, SPLEEN, ohif)
    ohif.go_to(view, spleen)
    ohif.press("foreground")
    ohif.click(view, spleen, "/prompt")
    clicked = ohif.both()
    assert clicked.count("liver") <= volume.count("liver") and clicked.count("spleen") > 3
    near = clicked.by_name["spleen"] - (ohif.affine @ [*spleen, 1])[:3]
    assert np.linalg.norm(near, axis=1).min() < 0.1

    picture(page, f"ohif-{plane}")

    ohif.press("brush")
    corner = np.array([3, 3, spleen[2]])
    ohif.drag(view, corner, corner + np.array([6, 0, 0]), "/labelmap")
    painted = ohif.both()
    assert painted.count("spleen") > clicked.count("spleen")
    ohif.press("undo")
    assert ohif.both().agree(clicked)
    ohif.press("undo")
    assert ohif.both().agree(volume)
    ohif.press("redo")
    ohif.press("redo")
    assert ohif.both().agree(painted)
    ohif.press("eraser")
    ohif.drag(view, spleen, spleen + np.array([1, 0, 0]), "/labelmap")
    erased = ohif.both()
    assert 0 < erased.count("spleen") < painted.count("spleen")

    assert "in the PACS as DICOM SEG" in ohif.save()
    (stored,) = pacs.series("SEG", study)
    (tmp_path / "seg.dcm").write_bytes(stored)
    assert_verified(tmp_path / "seg.dcm")
    assert seg_places(highdicom.seg.segread(tmp_path / "seg.dcm")).agree(erased)
    assert [url for url in elsewhere if not url.startswith((server.url, "blob:", "data:"))] == []


def test_study_list_panel_and_next_case(
    phantoms: dict[str, tuple[Path, Phantom]], server: Server, page: Page, picture: Picture
) -> None:
    """The way in, MONAI Label's own prompts, work that outlives the page, and the way on."""
    folder, phantom = phantoms["axial"]
    series = uids(folder)[1]
    page.goto(f"{server.url}/ohif/")
    page.get_by_text("Phantom, Axial").first.click()
    picture(page, "ohif-studies")
    page.get_by_text("MONAI Label", exact=True).first.click()
    ohif = Ohif(page, server.url, series)
    ohif.wait()
    started = ohif.both()

    _, _, kidney = middle_of(phantom, KIDNEY, ohif)  # which nobody has labelled before
    ohif.go_to("mpr-axial", kidney)
    page.locator("[data-cy=side-panel-header-right]").click()
    expect(page.locator(".monaiLabelPanel .subtitle")).to_have_text("SegMed")
    assert page.input_value("#monailabelServerURL") == f"{server.url}/"
    page.get_by_text("Point Prompts").click()
    page.locator(".clickable-row", has_text="spleen").last.click()
    ohif.click("mpr-axial", kidney)
    marks = "cornerstoneTools.annotation.state.getAllAnnotations()"
    page.wait_for_function(f"{marks}.some(mark => mark.metadata.toolName === 'ProbeMONAILabel')")
    with page.expect_response(lambda answer: "/labelmap" in answer.url):
        page.locator(".tab", has_text="Point Prompts").get_by_text("Run").click()
    ohif.wait()
    prompted = ohif.both()
    assert prompted.count("spleen") > started.count("spleen")
    ohif.press("undo")
    assert ohif.both().agree(started)
    ohif.press("redo")

    page.reload()
    ohif.wait()
    assert ohif.both().agree(prompted)

    opened = [series]
    for _ in range(3):
        with page.expect_navigation(url=lambda url: "initialseriesinstanceuid=" in url, timeout=60_000):
            page.click("#segmed-next")
        ohif.wait()
        opened.append(ohif.shown())
        assert opened[-1] in page.url and opened[-1] != opened[-2]


def test_each_series_of_a_study_has_its_own_work(
    phantoms: dict[str, tuple[Path, Phantom]], server: Server, page: Page
) -> None:
    folder, phantom = phantoms["two"]
    study, series = uids(folder)
    ohif = Ohif(page, server.url, series)
    ohif.open(study)
    assert ohif.both().by_name == {}
    _, _, inside = middle_of(phantom, LIVER, ohif)
    ohif.go_to("mpr-axial", inside)
    page.fill("#segmed-label", "tumor links – größer")
    ohif.press("foreground")
    ohif.click("mpr-axial", inside, "/prompt")
    first = ohif.both()
    assert first.count("tumor links – größer") > 0

    size = "services.segmentationService.getLabelmapVolume('1')?.dimensions[0]"
    for thumbnail, columns, expected in (("S:2", 40, None), ("S:1", 48, first)):
        with page.expect_response(lambda answer: "/work?" in answer.url):
            page.get_by_text(thumbnail).first.dblclick()
        ohif.wait()
        assert page.evaluate(size) == columns
        assert ohif.viewer().agree(expected or Places({}))


def test_what_is_served(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        page = http.get("/ohif/")
        assert "/segmed/ohif.js" in page.text and "fonts.googleapis" not in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert http.get("/ohif/viewer?StudyInstanceUIDs=1.2").text == page.text
        assert http.get("/ohif").headers["location"] == "/ohif/"
        for path, kind in {
            "/ohif/assets/favicon-16x16.png": "image/png",
            "/ohif/dicom-microscopy-viewer/dicomMicroscopyViewer.min.js": "text/javascript",
            "/ohif/031089e563a18ada8441.wasm": "application/wasm",
            "/ohif/app-config.js": "text/javascript",
            "/segmed/ohif.js": "text/javascript",
            "/segmed/ohif.css": "text/css",
        }.items():
            answer = http.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].startswith(kind), path
        assert "'/proxy/dicom'" not in http.get("/ohif/app-config.js").text
        for missing in ("/ohif/none.js", "/segmed/none.js", "/segmed/..%2Fmain.py", "/ohif/..%2F..%2Fapp.py"):
            assert http.get(missing).status_code in (400, 404), missing
        assert http.get("/static/ohif/index.html").status_code == 403
        image = http.get("/ohif/assets/favicon-16x16.png")
        again = http.get("/ohif/assets/favicon-16x16.png", headers={"if-none-match": image.headers["etag"]})
        assert again.status_code == 304
