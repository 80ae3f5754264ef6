"""Rough use of the page: a server that dies under the pen, a reload amid a request, very large images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from running import Server, Start
from web_page import at, drag, filled, go_to, known, open_image, ready

SLICES, SIDE = 2_000, 4_096
LOW, HIGH = (1_500, 1_900), (1_700, 2_050)  # of the object in the large picture, x and y


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of 2,000 slices, and a picture of 4096×4096."""
    folder = tmp_path_factory.mktemp("studies")
    voxels = np.random.default_rng(0).normal(0, 10, (32, 28, SLICES)).astype(np.int16)
    voxels[10:22, 8:20, 700:1_900] += 800
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 1.0, 1.0])), folder / "long.nii")
    picture = np.full((SIDE, SIDE, 3), (30, 40, 60), np.uint8)
    picture[LOW[1] : HIGH[1], LOW[0] : HIGH[0]] = (220, 200, 180)
    Image.fromarray(picture).save(folder / "large.png", compress_level=1)
    return folder


def _start(start: Start, studies: Path, port: int = 0) -> Server:
    return start(studies, "--conf", "models", "classical", "--conf", "labels", "liver", port=port)


@pytest.fixture(scope="module")
def running(start: Start, studies: Path) -> list[Server]:
    """The server that runs; a test that kills it puts another one in its place."""
    return [_start(start, studies)]


@pytest.fixture
def opened(page: Page, running: list[Server], request: pytest.FixtureRequest) -> Page:
    """The page of a reader of this test's own."""
    page.add_init_script(f"localStorage.setItem('segmed.client', '{request.node.name[:40]}')")
    page.goto(running[0].url)
    return page


def _box(page: Page, k: int) -> None:
    """Around the object of the long volume, on slice k."""
    go_to(page, (16, 14, k))
    page.keyboard.press("b")
    drag(page, [at(page, (8, 6, k)), at(page, (23, 21, k))])


def test_the_last_of_two_thousand_slices(opened: Page) -> None:
    open_image(opened, "long")
    opened.keyboard.press("End")
    opened.mouse.move(*at(opened, (16, 14, SLICES - 1)))
    expect(opened.locator("#place")).to_contain_text(f"16, 14, {SLICES - 1}")
    _box(opened, 1_890)
    found = filled(opened)
    assert {one[2] for one in found} == {1_890}
    assert 100 <= len(found) <= 200  # of an object of 12×12


def test_a_picture_of_four_thousand_pixels(opened: Page) -> None:
    open_image(opened, "large")
    opened.keyboard.press("b")
    margin = 60
    drag(
        opened,
        [
            at(opened, (LOW[0] - margin, LOW[1] - margin, 0)),
            at(opened, (HIGH[0] + margin, HIGH[1] + margin, 0)),
        ],
    )
    found = np.argwhere(known(opened)[1])[:, :2]  # so many that the page is not asked for each
    assert np.abs(np.r_[found.min(0), found.max(0) + 1] - np.r_[LOW, HIGH]).max() <= 40


def test_a_reload_amid_a_request_shows_what_the_server_has(opened: Page) -> None:
    open_image(opened, "long")
    _box(opened, SLICES // 2)
    with opened.expect_request("**/prompt"):
        opened.keyboard.press("b")
        opened.mouse.move(*at(opened, (7, 5, SLICES // 2)))
        opened.mouse.down()
        opened.mouse.move(*at(opened, (24, 22, SLICES // 2)), steps=3)
        opened.mouse.up()
    opened.reload()
    open_image(opened, "long")
    assert filled(opened)  # the page and the server agree, whichever of both boxes it is
    opened.locator("#clear").click()
    ready(opened)
    assert not filled(opened)


def test_a_server_that_dies_under_the_pen_comes_back_with_the_work(
    opened: Page, running: list[Server], start: Start, studies: Path
) -> None:
    open_image(opened, "long")
    _box(opened, SLICES // 2)
    opened.keyboard.press("Enter")
    ready(opened)
    before = filled(opened)
    opened.keyboard.press("r")
    opened.mouse.move(*at(opened, (4, 4, SLICES // 2)))
    opened.mouse.down()
    opened.mouse.move(*at(opened, (6, 4, SLICES // 2)), steps=3)
    server = running[0]
    server.process.kill()
    server.process.wait()
    opened.mouse.move(*at(opened, (4, 6, SLICES // 2)), steps=3)
    opened.mouse.up()
    expect(opened.locator("#messages")).to_contain_text("The server does not answer")
    ready(opened)
    running[0] = _start(start, studies, int(server.url.rpartition(":")[2]))
    expect(opened.locator("#messages")).to_contain_text("The server answers again", timeout=60_000)
    ready(opened)
    assert filled(opened) == before
