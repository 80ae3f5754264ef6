"""The page at `/`, used with mouse and keyboard in a real browser on a real server."""

from __future__ import annotations

import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from browser import Picture
from dicom_phantom import phantom_series
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image
from playwright.sync_api import Page, Route, expect
from running import Server, Start
from segmed.data.phantom import Phantom, make_phantom
from segmed.imaging.reading import read_volume
from web_page import Voxel, at, drag, filled, go_to, open_image, ready, view, window

# how the same object is stored, the plane of its slices, and where it lies on the screen: right (+) or left
# (-) of the middle, above (+) or below (-)
STORED = {
    "RAS": ("axial", (-1, -1)),
    "LPS": ("axial", (-1, -1)),
    "ARI": ("axial", (-1, -1)),
    "PSR": ("sagittal", (1, 1)),
    "SAL": ("sagittal", (1, 1)),
    "IRP": ("coronal", (-1, 1)),
    "oblique": ("axial", (-1, -1)),
}
_readers = itertools.count(1)
_COLOURED = 25  # by how much red is above blue where the mask is


def beacon() -> nib.Nifti1Image:
    """A bright ellipsoid in a dark volume, off the middle of every axis, but cut by all three middle
    planes."""
    grid = np.indices((60, 50, 20), float)
    inside = (
        sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, (38, 19, 12), (13, 9, 5), strict=True)) <= 1
    )
    array = np.where(inside, 900, np.random.default_rng(3).normal(0, 15, inside.shape)).astype(np.int16)
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = (-20, 35, 110)
    return nib.Nifti1Image(array, affine)


def stored_as(code: str) -> nib.Nifti1Image:
    image = beacon()
    if code == "oblique":
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
        return nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)
    turned: nib.Nifti1Image = image.as_reoriented(
        ornt_transform(nib.io_orientation(image.affine), axcodes2ornt(tuple(code)))
    )
    return turned


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom("CT", shape=(160, 128, 40), spacing=(2.2, 2.2, 4.0), seed=5)


@pytest.fixture(scope="module")
def server(start: Start, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "abdomen.nii.gz")
    for code in STORED:
        nib.save(stored_as(code), studies / f"{code}.nii.gz")
    photo = np.full((150, 220, 3), (40, 60, 90), np.uint8)
    photo[30:70, 150:200] = (230, 220, 210)
    Image.fromarray(photo).save(studies / "photo.png")
    return start(studies, "--conf", "models", "segmed,classical", "--conf", "labels", "liver,spleen,kidney")


@pytest.fixture
def client(page: Page, server: Server) -> str:
    """Who works: another one in each test. The page is open."""
    name = f"reader {next(_readers)}"
    page.add_init_script(f"localStorage.setItem('segmed.client', '{name}')")
    page.goto(server.url)
    expect(page.locator("#images button")).to_have_count(len(STORED) + 2)
    return name


def box(page: Page, low: Voxel, high: Voxel) -> None:
    page.keyboard.press("b")
    drag(page, [at(page, low), at(page, high)])


def pixels(page: Page) -> np.ndarray:
    """The image on the screen, without captions and borders: (rows, columns, 3)."""
    page.mouse.move(5, 5)
    shot = Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    return np.asarray(shot).astype(int)


def extent(mask: np.ndarray) -> np.ndarray:
    """[left, top, right, bottom] of what is set."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


def downloaded(page: Page, tmp_path: Path) -> nib.Nifti1Image:
    with page.expect_download() as event:
        page.locator("#nifti").click()
    path = tmp_path / event.value.suggested_filename
    event.value.save_as(path)
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


@pytest.mark.parametrize("code", STORED)
def test_box_and_mask_lie_on_the_object_however_it_is_stored(
    page: Page, client: str, tmp_path: Path, code: str
) -> None:
    plane, side = STORED[code]
    open_image(page, code)
    page.locator("#model").select_option("classical")
    assert view(page) == plane

    # where the object is seen, by the picture alone
    bright = pixels(page).min(axis=2) > 200
    seen = extent(bright)
    middle = np.array(bright.shape[::-1]) / 2
    towards = np.sign((seen[:2] + seen[2:]) / 2 - middle) * (1, -1)
    assert tuple(towards) == side, "the world is mirrored on the screen"

    stage = page.locator("#stage").bounding_box()
    assert stage
    corner = np.array([stage["x"], stage["y"]])
    page.keyboard.press("b")
    drag(page, [corner + seen[:2] - 8, corner + seen[2:] + 8])

    # where the mask is seen, by the picture alone
    page.keyboard.press("p")
    shown = pixels(page)
    coloured = (shown[..., 0] - shown[..., 2] > _COLOURED) & bright
    assert np.abs(extent(coloured) - seen).max() <= 3
    assert coloured[bright].mean() > 0.9

    # where the server has it, in the patient
    image = stored_as(code)
    truth = np.asarray(image.dataobj) > 500
    mask = downloaded(page, tmp_path)
    assert np.allclose(mask.affine, image.affine, atol=1e-4)
    voxels = np.asarray(mask.dataobj)
    (k,) = np.unique(np.nonzero(voxels)[2])
    assert k == image.shape[2] // 2 or k == (image.shape[2] - 1) // 2
    found, wanted = voxels[:, :, k] > 0, truth[:, :, k]
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.95
    assert {one[:3] for one in filled(page)} == {tuple(v) for v in np.argwhere(voxels)}


def test_clicks_boxes_and_strokes_are_sent_in_stored_voxels(page: Page, client: str) -> None:
    """For every plane of a permuted and flipped image, the voxel under the mouse is the one that is told."""
    sent: list[dict[str, Any]] = []
    page.on(
        "request",
        lambda r: sent.append(json.loads(r.post_data or "{}")) if r.url.endswith("/prompt") else None,
    )
    open_image(page, "PSR")
    values = np.asarray(stored_as("PSR").dataobj)
    for key, voxel in (("1", (20, 14, 33)), ("2", (31, 9, 40)), ("3", (12, 5, 51))):
        page.keyboard.press(key)
        go_to(page, voxel)
        page.mouse.move(*at(page, voxel))
        told = page.locator("#place").inner_text()
        assert told.startswith(f"{voxel[0]}, {voxel[1]}, {voxel[2]}   {values[voxel]}")
        page.keyboard.press("p")
        page.mouse.click(*at(page, voxel))
        ready(page)
        assert sent[-1]["foreground"] == [list(voxel)]
    go_to(page, (20, 10, 33))
    page.keyboard.press("l")
    drag(page, [at(page, v) for v in ((10, 6, 33), (30, 6, 33), (30, 15, 33), (10, 15, 33))])
    assert sent[-1]["lasso"]["k"] == 33
    corners = np.array(sent[-1]["lasso"]["points"])
    assert corners.min(0).tolist() == [10, 6] and corners.max(0).tolist() == [30, 15]

    page.keyboard.press("1")
    go_to(page, (20, 10, 33))
    box(page, (12, 10, 30), (28, 10, 44))
    assert (sent[-1]["box"], sent[-1]["plane"]) == ([12, 28, 10, 10, 30, 44], "axial")


def test_the_first_five_minutes(
    page: Page, client: str, server: Server, phantom: Phantom, tmp_path: Path, picture: Picture
) -> None:
    picture(page, "page-list")
    page.locator("#search").fill("abd")
    expect(page.locator("#images button")).to_have_count(1)
    open_image(page, "abdomen")
    liver = phantom.labels == 1
    k = 20
    low, high = np.argwhere(liver[:, :, k]).min(0), np.argwhere(liver[:, :, k]).max(0)
    go_to(page, (int(low[0]), int(low[1]), k))
    box(page, (int(low[0]) - 2, int(low[1]) - 2, k), (int(high[0]) + 2, int(high[1]) + 2, k))
    boxed = filled(page)
    assert {one[2:] for one in boxed} == {(k, 1)}
    mask = np.zeros(liver.shape, bool)
    mask[tuple(np.array([one[:3] for one in boxed]).T)] = True
    assert 2 * (mask & liver)[:, :, k].sum() / (mask.sum() + liver[:, :, k].sum()) > 0.8
    picture(page, "page-box")

    # a click beside the object corrects, undo and redo go back and forth
    centre = np.argwhere(liver[:, :, k]).mean(0).round().astype(int)
    page.keyboard.press("n")
    page.mouse.click(*at(page, (int(high[0]) - 3, int(centre[1]), k)))
    ready(page)
    corrected = filled(page)
    assert corrected != boxed
    picture(page, "page-click")
    page.keyboard.press("Control+z")
    ready(page)
    assert filled(page) == boxed
    page.keyboard.press("Control+Shift+z")
    ready(page)
    assert filled(page) == corrected
    page.locator("#undo").click()
    ready(page)
    assert filled(page) == boxed

    # a scribble
    page.keyboard.press("s")
    drag(page, [at(page, (int(centre[0]) + d, int(centre[1]) + d // 2, k)) for d in (-8, 0, 8)])
    scribbled = filled(page)
    line = {(int(centre[0]) + d, int(centre[1]) + d // 2, k, 1) for d in (-8, 0, 8)}
    assert line <= scribbled
    picture(page, "page-scribble")

    # accept: the next prompt leaves this object alone; a label of a new name
    page.keyboard.press("Enter")
    ready(page)
    spine = tuple(int(v) for v in np.argwhere(phantom.image[:, :, k] > 300).mean(0).round())
    page.locator("#label").fill("Wirbelsäule")
    page.keyboard.press("Tab")
    box(page, (spine[0] - 11, spine[1] - 10, k), (spine[0] + 11, spine[1] + 10, k))
    both = filled(page)
    value = next(one[3] for one in both if one[:3] == (*spine, k))
    assert value == 4  # after liver, spleen and kidney
    assert {one for one in both if one[3] == 1} == scribbled
    expect(page.locator("#used [aria-pressed=true]")).to_contain_text("Wirbelsäule")

    # brush and eraser
    spot = (int(low[0]) // 2, 20, k)
    page.keyboard.press("r")
    page.mouse.click(*at(page, spot))
    ready(page)
    painted = filled(page) - both
    assert (*spot, 4) in painted
    assert all(np.hypot(i - spot[0], j - spot[1]) <= 4 for i, j, _, _ in painted)
    assert len(painted) == pytest.approx(np.pi * 4**2, abs=8)
    page.keyboard.press("e")
    page.mouse.click(*at(page, spot))
    ready(page)
    assert filled(page) == both
    page.locator('[data-view="multi"]').click()
    picture(page, "page-planes")

    # save and download
    page.locator("#save").click()
    ready(page)
    expect(page.locator('#images button[data-id="abdomen"] .done')).to_be_visible()
    picture(page, "page-saved")
    mask_file = downloaded(page, tmp_path)
    voxels = np.asarray(mask_file.dataobj)
    assert np.allclose(mask_file.affine, phantom.affine, atol=1e-4)
    expected = np.zeros(voxels.shape, int)
    for i, j, kk, label in both:
        expected[i, j, kk] = label  # values are kept
    assert np.array_equal(voxels, expected)
    saved = nib.load(server.studies / "labels" / "final" / "abdomen.nii.gz")
    assert isinstance(saved, nib.Nifti1Image)
    assert np.array_equal(np.asarray(saved.dataobj), expected)

    # a folder of NIfTI has no DICOM series
    expect(page.locator("#seg")).to_be_disabled()

    # all of it is still there after the page was loaded anew
    page.reload()
    open_image(page, "abdomen")
    assert len(filled(page)) == len(both)
    assert not [line for line in page.said if "error" in line.lower()]  # type: ignore[attr-defined]


def test_models_are_compared_without_touching_the_work(page: Page, client: str, picture: Picture) -> None:
    open_image(page, "abdomen")
    page.locator("#model").select_option("classical")
    page.locator("#compare").click()
    page.locator("#try").click()
    expect(page.locator("#messages")).to_contain_text("Draw a box or click first")
    page.locator("#choice [data-close]").click()
    go_to(page, (110, 60, 20))
    others = filled(page)  # another test may have saved some
    box(page, (90, 30, 20), (140, 90, 20))
    before = filled(page)
    page.locator("#compare").click()
    page.locator("#try").click()
    expect(page.locator("#results li")).to_have_count(2)
    ready(page)
    assert filled(page) == before
    counts = {
        row.locator("label").inner_text().split()[0]: int(re.findall(r"(\d+) voxels", row.inner_text())[0])
        for row in page.locator("#results li").all()
    }
    assert counts["classical"] == len(before - others)
    picture(page, "page-compare")
    page.locator("#results li", has_text="segmed").get_by_role("button").click()
    ready(page)
    assert len(filled(page) - others) == counts["segmed"] != counts["classical"]
    expect(page.locator("#model")).to_have_value("segmed")


def test_photo(page: Page, client: str, server: Server, picture: Picture) -> None:
    open_image(page, "photo")
    expect(page.locator("#views")).to_be_hidden()
    assert "segmed_3d" not in page.locator("#model").inner_text()
    bright = pixels(page).min(axis=2) > 180
    seen, size = extent(bright), np.array(bright.shape[::-1])
    assert (seen[0] + seen[2]) / 2 > size[0] / 2 and (seen[1] + seen[3]) / 2 < size[
        1
    ] / 2  # right above, as in the file
    page.locator("#model").select_option("classical")
    box(page, (143, 23, 0), (206, 77, 0))
    found, wanted = (
        {one[:2] for one in filled(page)},
        {(i, j) for i in range(150, 200) for j in range(30, 70)},
    )
    assert 2 * len(found & wanted) / (len(found) + len(wanted)) > 0.9
    shown = pixels(page)
    coloured = (shown[..., 0] - shown[..., 2] > _COLOURED + 20) & bright
    assert np.abs(extent(coloured) - seen).max() <= 3
    picture(page, "page-photo")


def test_window_and_slices(page: Page, client: str) -> None:
    open_image(page, "RAS")
    caption = page.locator("#place")
    page.mouse.move(*at(page, (10, 10, 10)))
    assert caption.inner_text().startswith("10, 10, 10")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("]")
    page.mouse.wheel(0, 100)
    page.mouse.move(*at(page, (11, 10, 10)))
    assert caption.inner_text().startswith("11, 10, 11")
    low, high = window(page)
    dark = pixels(page).mean()
    x, y = at(page, (30, 25, 11))
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x, y - 150, steps=4)
    page.mouse.up(button="right")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    after = window(page)
    assert after[1] - after[0] == pytest.approx(high - low) and after[0] < low
    assert pixels(page).mean() > dark


def test_the_keys_are_shown(page: Page, client: str, picture: Picture) -> None:
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    picture(page, "page-keys")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()


def test_next_case_opens_an_unlabelled_image(page: Page, client: str) -> None:
    page.locator("#next").click()
    expect(page.locator("#title")).not_to_be_empty()
    ready(page)
    assert page.locator("#title").inner_text() in {*STORED, "photo", "abdomen"}


def test_studies_that_cannot_be_reached_are_told_and_come_back(
    page: Page, server: Server, picture: Picture
) -> None:
    sentence = "The PACS does not answer. Is it running?"

    def down(route: Route) -> None:
        state = {"kind": "pacs", "state": "down", "message": sentence}
        told = {"version": "1", "models": [], "labels": [], "warning": "", "studies": state}
        route.fulfill(status=200, json=told) if "state" in route.request.url else route.fulfill(
            status=424, json={"detail": sentence}
        )

    page.route("**/api/state", down)
    page.route("**/api/images", down)
    page.goto(server.url)
    expect(page.locator("#state")).to_contain_text(sentence)
    expect(page.locator("#images button")).to_have_count(0)
    picture(page, "page-pacs-down")
    page.unroute("**/api/state")
    page.unroute("**/api/images")
    expect(page.locator("#images button")).to_have_count(len(STORED) + 2, timeout=15_000)
    expect(page.locator("#state")).to_contain_text("images")
    expect(page.locator("#model option")).to_have_count(4)


@pytest.mark.parametrize("plane", ["sagittal", "oblique"])
def test_dicom_comes_out_where_it_was_drawn(
    page: Page, start: Start, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, plane: str
) -> None:
    studies = tmp_path_factory.mktemp("dicom")
    phantom = phantom_series(studies / "series", plane)
    server = start(studies, "--conf", "models", "classical", "--conf", "labels", "liver,spleen")
    page.goto(server.url)
    page.locator("#images button").click()
    expect(page.locator("#title")).not_to_be_empty()
    ready(page)
    volume = read_volume(studies / "series")  # slices count along the normal, so maybe from the other end
    if not np.array_equal(volume.array, phantom.image):
        assert np.array_equal(volume.array[:, :, ::-1], phantom.image)
        phantom = replace(phantom, labels=phantom.labels[:, :, ::-1])
    k = int((phantom.labels == 1).sum((0, 1)).argmax())
    liver = phantom.labels[:, :, k] == 1
    (i0, j0), (i1, j1) = np.argwhere(liver).min(0) - 1, np.argwhere(liver).max(0) + 1
    go_to(page, (int(i0), int(j0), k))
    box(page, (int(i0), int(j0), k), (int(i1), int(j1), k))
    mask = np.zeros(liver.shape, np.uint8)
    for i, j, on, value in filled(page):
        assert (on, value) == (k, 1)
        mask[i, j] = 1
    assert 2 * (mask & liver).sum() / (mask.sum() + liver.sum()) > 0.7

    files = {}
    for button in ("seg", "rtstruct"):
        with page.expect_download() as event:
            page.locator(f"#{button}").click()
        event.value.save_as(tmp_path / event.value.suggested_filename)
        files[button] = pydicom.dcmread(tmp_path / event.value.suggested_filename)
    seg, structures = files["seg"], files["rtstruct"]
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["liver"]
    assert seg.NumberOfFrames == 1
    frame = seg.PerFrameFunctionalGroupsSequence[0]
    corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
    assert np.allclose(corner, (volume.affine @ [0, 0, k, 1])[:3] * (-1, -1, 1), atol=1e-3)
    assert np.array_equal(seg.pixel_array.squeeze(), mask.T)
    assert [one.ROIName for one in structures.StructureSetROISequence] == ["liver"]
    page.locator("#save").click()
    expect(page.locator("#messages")).to_contain_text("DICOM SEG")
    expect(page.locator("#images .done")).to_be_visible()


def test_two_tabs_show_the_same_work(page: Page, client: str, server: Server) -> None:
    second = page.context.new_page()
    second.add_init_script(f"localStorage.setItem('segmed.client', '{client}')")
    second.route("**/revision?*", lambda route: route.abort())  # it looks at nothing by itself for now
    second.goto(server.url)
    open_image(second, "RAS")
    page.bring_to_front()
    open_image(page, "RAS")
    box(page, (24, 9, 12), (52, 29, 12))
    drawn = filled(page)
    assert drawn
    expect(page.locator('#images button[data-id="RAS"] .unsaved')).to_be_visible()

    # what the other tab asks of the state before is not done, and it is told
    second.locator("#clear").click()
    ready(second)
    expect(second.locator("#messages")).to_contain_text("has changed")
    assert filled(second) == drawn
    second.locator("#undo").click()
    ready(second)
    assert filled(second) == set()
    expect(page.locator("#messages")).to_contain_text("changed elsewhere")  # this one looks by itself
    ready(page)
    assert filled(page) == set()

    page.locator("#redo").click()
    ready(page)
    assert filled(page) == drawn
    page.locator("#save").click()
    ready(page)
    expect(page.locator("#messages")).to_contain_text(f"Voxels: liver {len(drawn)}.")
    expect(page.locator("#messages")).not_to_contain_text("differs")
    expect(page.locator('#images button[data-id="RAS"] .unsaved')).to_have_count(0)

    # labels that are there are left alone unless the switch is on
    page.locator("#accept").click()
    page.locator("#label").fill("spleen")
    page.keyboard.press("Tab")
    page.evaluate("document.querySelector('#messages').replaceChildren()")  # they cover a part of the image
    box(page, (24, 9, 12), (52, 29, 12))
    expect(page.locator("#messages")).to_contain_text("of liver, which stay")
    assert {one for one in filled(page) if one[3] == 1} == drawn
    page.locator("#overwrite").check()
    page.evaluate("document.querySelector('#messages').replaceChildren()")
    box(page, (24, 9, 12), (52, 29, 12))
    assert {one for one in filled(page) if one[3] == 1} < drawn
    expect(page.locator("#messages")).to_contain_text("has replaced")


def test_a_former_label_comes_back(page: Page, client: str, tmp_path: Path, picture: Picture) -> None:
    open_image(page, "LPS")
    for corner in (10, 20):
        page.keyboard.press("r")
        page.mouse.click(*at(page, (corner, corner, 12)))
        ready(page)
        page.locator("#save").click()
        ready(page)
        if corner == 10:
            first = filled(page)
    both = filled(page)
    assert first < both
    page.locator("#former").click()
    rows = page.locator("#former-labels tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("liver")
    picture(page, "page-former")
    rows.first.locator("button").click()
    expect(page.locator("#messages")).to_contain_text("The former label is the final one again.")
    ready(page)
    assert filled(page) == first
    page.locator("#former").click()
    expect(rows).to_have_count(2)
    with page.expect_response(lambda answer: "/work?" in answer.url):
        rows.first.locator("button").click()  # what was replaced by it
    ready(page)
    assert filled(page) == both
    with page.expect_download() as started:
        page.locator("#names-table").click()
    started.value.save_as(tmp_path / "names.tsv")
    assert "liver" in (tmp_path / "names.tsv").read_text()
    open_image(page, "RAS")
    page.locator("#former").click()
    expect(page.locator("#former-none")).to_be_visible()
    assert not [line for line in page.said if "error" in line.lower()]  # type: ignore[attr-defined]
