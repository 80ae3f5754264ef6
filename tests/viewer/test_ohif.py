"""OHIF on a real PACS, in a real browser: from the study list to the DICOM SEG in the PACS."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import highdicom
import httpx
import numpy as np
import pydicom
import pytest
from browser import Picture
from dicom_phantom import in_plane, phantom_series
from ohif_page import Ohif, Places, uids
from orthanc import Pacs, needs_orthanc
from playwright.sync_api import Error, Page, expect
from running import Server, Start
from segmed.data.phantom import Phantom, make_phantom
from segmed.data.phantom.dicom import write_series

pytestmark = needs_orthanc

VIEWS = {"axial": "mpr-axial", "sagittal": "mpr-sagittal", "coronal": "mpr-coronal", "oblique": "mpr-axial"}
LIVER, SPLEEN, KIDNEY = 1, 2, 3
SINGLE = {
    "US": pydicom.uid.UltrasoundMultiFrameImageStorage,
    "XA": pydicom.uid.XRayAngiographicImageStorage,
    "CR": pydicom.uid.ComputedRadiographyImageStorage,
    "DX": pydicom.uid.DigitalXRayImageStorageForPresentation,
    "MG": pydicom.uid.DigitalMammographyXRayImageStorageForPresentation,
}


@pytest.fixture(scope="module")
def phantoms(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Phantom]]:
    """A study in each plane, in the PACS."""
    made = {}
    for plane in VIEWS:
        folder = tmp_path_factory.mktemp("series") / plane
        fine = {"shape": (128, 112, 36), "spacing": (2.7, 2.7, 5.0)} if plane == "axial" else {}
        made[plane] = folder, phantom_series(folder, plane, **fine)
        pacs.upload(folder)
    # another study, of two series
    folder, second = (tmp_path_factory.mktemp("series") / name for name in ("first", "second"))
    made["two"] = folder, phantom_series(folder, shape=(48, 44, 20), spacing=(7, 7, 9))
    phantom_series(second, shape=(40, 36, 16), spacing=(8, 8, 11), seed=9)
    for number, series in enumerate((folder, second), start=1):
        for path in series.glob("*.dcm"):
            data = pydicom.dcmread(path)
            data.StudyInstanceUID, data.SeriesNumber = uids(folder)[0], number
            data.PatientName, data.PatientID = "Phantom^Two", "phantom-two"
            data.save_as(path)
    pacs.upload(folder)
    pacs.upload(second)
    return made


@pytest.fixture(scope="module")
def server(pacs: Pacs, phantoms: object, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    cache = tmp_path_factory.mktemp("cache")
    return start(
        pacs.url,
        *("--conf", "models", "classical", "--conf", "labels", "liver,spleen"),
        *("--conf", "dicomweb_cache", str(cache), "--conf", "dicomweb_list_seconds", "1"),
    )


@pytest.fixture
def elsewhere(page: Page) -> Iterator[list[str]]:
    """Requests that left the page's own server."""
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    yield asked


def _middle(phantom: Phantom, value: int, ohif: Ohif) -> tuple[int, np.ndarray, np.ndarray]:
    """The stored slice with most of a structure; its corners (2, 3) and a voxel deep inside, as the server
    counts."""
    inside = phantom.labels == value
    k = int(inside.sum((0, 1)).argmax())
    i, j = np.nonzero(inside[:, :, k])
    nearest = np.argmin((i - i.mean()) ** 2 + (j - j.mean()) ** 2)
    stored = np.array(
        [[i.min() - 1, j.min() - 1, k], [i.max() + 1, j.max() + 1, k], [i[nearest], j[nearest], k]]
    )
    *corners, middle = ohif.voxel(stored @ phantom.affine[:3, :3].T + phantom.affine[:3, 3])
    return k, np.array(corners), middle


def _structure(phantom: Phantom, value: int, k: int | None = None) -> Places:
    labels = np.where(phantom.labels == value, value, 0)
    if k is not None:
        labels[:, :, np.arange(labels.shape[2]) != k] = 0
    return Places.of(labels, phantom.affine, phantom.names)


def _overlap(places: Places, truth: Places, name: str) -> float:
    """Dice coefficient of two sets of voxel centres."""
    a, b = (set(map(tuple, one.by_name[name].round(1).tolist())) for one in (places, truth))
    return 2 * len(a & b) / (len(a) + len(b))


def _read_seg(seg: pydicom.Dataset) -> Places:
    """By what the file itself says of each of its frames."""
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in seg.SegmentSequence}
    found: dict[str, list[np.ndarray]] = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        y, x = np.nonzero(frame)
        lps = corner + np.outer(x * across, row) + np.outer(y * down, column)
        of_frame = item if "SegmentIdentificationSequence" in item else shared
        name = names[int(of_frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        found.setdefault(name, []).append(lps * [-1, -1, 1])
    return Places({name: np.concatenate(parts) for name, parts in found.items()})


def _verified(path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        return
    told = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, encoding="utf-8", check=False)
    assert not [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]


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

    k, corners, inside = _middle(phantom, LIVER, ohif)
    ohif.go_to(view, inside)
    before = ohif.pixels(view)
    page.fill("#segmed-label", "liver")
    ohif.press("box")
    ohif.drag(view, corners[0], corners[1], "/prompt")
    box = ohif.both()
    assert set(box.by_name) == {"liver"}
    assert _overlap(box, _structure(phantom, LIVER, k), "liver") > 0.75

    changed = np.abs(ohif.pixels(view) - before).max(-1) > 12
    shown = ohif.mask_on_screen(view, box)
    assert shown.sum() > 500
    assert (changed & shown).sum() / (changed | shown).sum() > 0.9

    ohif.press("auto")  # through the volume, from the box
    volume = ohif.both()
    assert len(np.unique(ohif.voxel(volume.by_name["liver"])[:, 2])) > 3
    assert _overlap(volume, _structure(phantom, LIVER), "liver") > 0.5

    ohif.press("fresh")
    page.fill("#segmed-label", "spleen")
    _, _, spleen = _middle(phantom, SPLEEN, ohif)
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
    _verified(tmp_path / "seg.dcm")
    assert _read_seg(highdicom.seg.segread(tmp_path / "seg.dcm")).agree(erased)
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

    _, _, kidney = _middle(phantom, KIDNEY, ohif)  # which nobody has labelled before
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
    _, _, inside = _middle(phantom, LIVER, ohif)
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


def test_a_box_in_another_plane_is_explained(
    phantoms: dict[str, tuple[Path, Phantom]], server: Server, page: Page
) -> None:
    folder, phantom = phantoms["coronal"]
    study, series = uids(folder)
    ohif = Ohif(page, server.url, series)
    ohif.open(study)
    before = ohif.both()
    ohif.press("box")
    i, j, k = (n // 2 for n in phantom.labels.shape)
    ohif.drag("mpr-axial", np.array([i - 6, j, k - 6]), np.array([i + 6, j, k + 6]))
    page.get_by_text("Draw the box in the coronal view").first.wait_for()
    assert ohif.both().agree(before)


@pytest.mark.parametrize("failure", ["stops", "freezes"])
def test_a_pacs_that_fails_amid_the_work_is_told(
    failure: str, pacs: Pacs, phantoms: dict[str, tuple[Path, Phantom]], server: Server, page: Page
) -> None:
    """Nothing is lost, and saving works again once the PACS does."""
    folder, _ = phantoms["sagittal"]
    study, series = uids(folder)
    ohif = Ohif(page, server.url, series)
    ohif.open(study)
    saved = len(pacs.series("SEG", study))
    ohif.press("brush")
    inside = np.array(ohif.shape) // 2 + [0, 0 if failure == "stops" else 6, 0]
    ohif.go_to("mpr-sagittal", inside)
    ohif.drag("mpr-sagittal", inside, inside + np.array([4, 0, 0]), "/labelmap")
    work = ohif.both()
    (pacs.stop if failure == "stops" else pacs.freeze)()
    try:
        assert "PACS" in ohif.save()
        assert ohif.viewer().agree(work)
    finally:
        (pacs.start if failure == "stops" else pacs.thaw)()
    said = ohif.save()
    for _ in range(3):  # a connection that was kept may fail once more
        said = said if "in the PACS as DICOM SEG" in said else ohif.save()
    assert f"in the PACS as DICOM SEG, version {saved + 1}." in said
    # also where the PACS, when it came back, found the first request
    assert len(pacs.series("SEG", study)) == saved + 1
    assert f"DICOM SEG, version {saved + 2}." in ohif.save()
    stored = [pydicom.dcmread(io.BytesIO(seg)) for seg in pacs.series("SEG", study)]
    assert sorted(str(seg.SeriesDescription) for seg in stored)[-2:] == [
        f"Segmentation version {n} by SegMed" for n in (saved + 1, saved + 2)
    ]


def test_lassos_and_scribbles_stay_with_their_object(
    phantoms: dict[str, tuple[Path, Phantom]], server: Server, page: Page, picture: Picture
) -> None:
    folder, phantom = phantoms["two"]
    study, series = uids(folder)
    ohif = Ohif(page, server.url, series)
    ohif.open(study)
    k, (low, high), inside = _middle(phantom, LIVER, ohif)
    before = ohif.both()
    ohif.go_to("mpr-axial", inside)
    page.fill("#segmed-label", "by hand")
    ohif.press("lasso")
    turn = np.linspace(0, 2 * np.pi, 13)[:-1]
    middle, radius = (low + high) / 2, (high - low) / 2
    around = middle + np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1) * radius
    ohif.draw("mpr-axial", around, "/prompt")
    lassoed = ohif.both()
    assert ohif.marks("SegMedLasso") == 1
    drawn = Places({"liver": lassoed.by_name["by hand"]})
    assert _overlap(drawn, _structure(phantom, LIVER, k), "liver") > 0.6

    ohif.press("beside")
    away = inside + np.array([[-3, 0, 0], [-1, 2, 0], [1, -2, 0], [3, 0, 0], [1, 2, 0], [-1, -2, 0]])
    ohif.draw("mpr-axial", away, "/prompt")  # a line that crosses itself
    assert (ohif.marks("SegMedLasso"), ohif.marks("SegMedScribble")) == (1, 1)
    cut = ohif.both()
    assert cut.count("by hand") < lassoed.count("by hand")
    picture(page, "ohif-scribble")
    page.reload()
    ohif.wait()
    assert (ohif.marks("SegMedLasso"), ohif.marks("SegMedScribble")) == (1, 1)
    assert page.input_value("#segmed-label") == "by hand"
    ohif.go_to("mpr-axial", inside)
    picture(page, "ohif-scribble-again")
    ohif.press("undo")
    assert (ohif.marks("SegMedLasso"), ohif.marks("SegMedScribble")) == (1, 0)
    assert ohif.both().agree(lassoed)
    ohif.press("undo")
    assert (ohif.marks("SegMedLasso"), ohif.marks("SegMedScribble")) == (0, 0)
    assert ohif.both().agree(before)
    ohif.press("redo")
    assert (ohif.marks("SegMedLasso"), ohif.marks("SegMedScribble")) == (1, 0)
    ohif.press("undo")

    ohif.press("into")
    ohif.go_to("mpr-coronal", inside)
    line = inside + np.array([[-4, 0, 0], [-2, 0, 0], [0, 0, 0], [2, 0, 0], [4, 0, 0]])
    ohif.draw("mpr-coronal", line, "/prompt")  # in another plane
    painted = ohif.voxel(ohif.both().by_name["by hand"])
    assert inside.tolist() in painted.tolist() and len(np.unique(painted[:, 1])) == 1
    ohif.press("fresh")
    assert ohif.marks("SegMedScribble") == 0


def test_a_tilted_gantry(pacs: Pacs, server: Server, page: Page, tmp_path: Path, picture: Picture) -> None:
    """OHIF shows its slices upright; the segmentation in the PACS lies where the voxels are."""
    phantom = in_plane(make_phantom("CT", (64, 56, 24), (5.4, 5.4, 8.0), 12), "axial")
    tilted = phantom.affine.copy()
    tilted[1, 2] = np.tan(np.deg2rad(20)) * tilted[2, 2]
    write_series(tmp_path / "tilted", phantom.image, tilted, patient="Phantom^Tilted")
    pacs.upload(tmp_path / "tilted")
    study, series = uids(tmp_path / "tilted")
    ohif = Ohif(page, server.url, series)
    true = ohif.affine
    assert abs(np.dot(true[:3, 1], true[:3, 2])) > 1
    ohif.open(study)
    ohif.affine = ohif.upright()
    inside = np.array(ohif.shape) // 2
    page.fill("#segmed-label", "spleen")
    ohif.go_to("mpr-axial", inside)
    ohif.press("brush")
    ohif.drag("mpr-axial", inside, inside + np.array([5, 0, 0]), "/labelmap")
    painted = ohif.both()
    voxels = ohif.voxel(painted.by_name["spleen"])
    assert np.unique(voxels[:, 2]).tolist() == [inside[2]] and inside.tolist() in voxels.tolist()
    picture(page, "ohif-tilted")
    assert "in the PACS as DICOM SEG" in ohif.save()
    (stored,) = pacs.series("SEG", study)
    expected = Places({"spleen": voxels @ true[:3, :3].T + true[:3, 3]})
    assert _read_seg(pydicom.dcmread(io.BytesIO(stored))).agree(expected)


@pytest.mark.parametrize(("modality", "frames"), [("US", 12), ("XA", 12), ("CR", 1), ("DX", 1), ("MG", 1)])
def test_single_images_and_films_are_shown(
    modality: str, frames: int, pacs: Pacs, server: Server, page: Page, tmp_path: Path
) -> None:
    """OHIF labels volumes; for others the bar leads to the page."""
    phantom = make_phantom("CT", (64, 56, 12), (5.4, 5.4, 8.0), 4)
    (path, *_) = write_series(
        tmp_path, phantom.image, phantom.affine, modality=modality, patient=f"P^{modality}"
    )
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SINGLE[modality]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "FrameOfReferenceUID"):
        delattr(data, name)
    data.NumberOfFrames, data.FrameTime = frames, 40
    data.PixelData = np.ascontiguousarray(phantom.image[:, :, :frames].T, "<i2").tobytes()
    for other in tmp_path.glob("*.dcm"):
        other.unlink()
    data.save_as(path)
    pacs.upload(tmp_path)
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={data.StudyInstanceUID}")
    link = page.locator("#segmed-elsewhere")
    expect(link).to_be_visible(timeout=60_000)
    assert link.get_attribute("href") == f"{server.url}/"
    count = """() => { const { viewports, activeViewportId: id } = services.viewportGridService.getState();
      const view = services.cornerstoneViewportService.getCornerstoneViewport(id);
      return view && viewports.size === 1 && view.type === 'stack' && view.getImageIds().length }"""
    page.wait_for_function(f"({count})() === {frames}")
    expect(page.locator("#segmed-save")).to_be_disabled()


def test_voxels_of_any_order_are_matched(server: Server, page: Page) -> None:
    """All 48 ways to swap and mirror axes, against coordinates in the patient."""
    page.goto(f"{server.url}/segmed/ohif.css")
    rng = np.random.default_rng(4)
    shape = np.array([5, 4, 3])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 0.9, 2.5]
    affine[:3, 3] = [12, -30, 55]
    lps = np.diag([-1, -1, 1, 1]) @ affine
    voxels = np.argwhere(np.ones(shape))
    for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        for signs in np.ndindex(2, 2, 2):
            columns = lps[:3, :3][:, order] * (1 - 2 * np.array(signs))
            first = np.where(signs, shape[list(order)] - 1, 0)
            origin = lps[:3, 3] + lps[:3, :3][:, order] @ first
            spacing = np.linalg.norm(columns, axis=0)
            viewer = {
                "dimensions": shape[list(order)].tolist(),
                "origin": origin.tolist(),
                "spacing": spacing.tolist(),
                "direction": (columns / spacing).T.ravel().tolist(),
            }
            world = voxels @ lps[:3, :3].T + lps[:3, 3]
            found, back, ordered = page.evaluate(
                """async ([image, viewer, voxels, world]) => {
                  const { GridMap } = await import('/segmed/grid.js');
                  const map = new GridMap(image, viewer);
                  const there = voxels.map(voxel => map.index(...voxel));
                  const values = new Uint8Array(voxels.length);
                  there.forEach((to, n) => (values[to] = n));
                  return [there, world.map(place => map.voxel(place)), [...map.inServerOrder(values)]];
                }""",
                [
                    {"shape": shape.tolist(), "affine": affine.tolist()},
                    viewer,
                    voxels.tolist(),
                    world.tolist(),
                ],
            )
            at = np.stack(np.unravel_index(found, viewer["dimensions"], order="F"), -1)
            np.testing.assert_allclose(at @ columns.T + origin, world, atol=1e-6)
            np.testing.assert_allclose(back, voxels, atol=1e-6)
            assert ordered == np.arange(len(voxels)).reshape(shape).ravel(order="F").tolist()


def test_slices_of_a_tilted_gantry_and_of_another_image(server: Server, page: Page) -> None:
    """OHIF shows the former upright; voxels stay themselves, and where they lie is what the files say."""
    page.goto(f"{server.url}/segmed/ohif.css")
    affine = np.array([[-0.7, 0, 0, 12], [0, -0.7, 2.2, -30], [0, 0, 5, 55], [0, 0, 0, 1]])
    viewer = {
        "dimensions": [5, 4, 3],
        "origin": [-12, 30, 55],
        "spacing": [0.7, 0.7, 5],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    script = """async ([image, viewer]) => {
      const { GridMap } = await import('/segmed/grid.js');
      const map = new GridMap(image, viewer);
      return [map.index(3, 2, 1), map.voxel([-12 + 0.7 * 3, 30 + 0.7 * 2, 60]), map.place()];
    }"""
    index, voxel, place = page.evaluate(script, [{"shape": [5, 4, 3], "affine": affine.tolist()}, viewer])
    assert index == 3 + 5 * 2 + 20
    np.testing.assert_allclose(voxel, [3, 2, 1], atol=1e-6)
    told = np.array(place["direction"]).reshape(3, 3) * place["spacing"]
    np.testing.assert_allclose(told, np.diag([-1, -1, 1]) @ affine[:3, :3], atol=1e-6)
    np.testing.assert_allclose(place["origin"], [-12, 30, 55])
    assert place["size"] == [5, 4, 3]
    for image, complaint in (
        ({"shape": [5, 4, 2], "affine": np.diag([-0.7, -0.7, 5, 1]).tolist()}, "the server has 5 × 4 × 2"),
        (
            {"shape": [5, 4, 3], "affine": np.diag([-0.7, -0.7, 5, 1]).tolist()},
            "place this series differently",
        ),
    ):
        with pytest.raises(Error, match=complaint):
            page.evaluate(script, [image, viewer])


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
