"""A minute on the page, as the animated picture on the first screen of the README."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, expect
from running import ROOT, Start
from segmed.imaging.grid import read_grid, read_label_segments
from web_page import Voxel, at, filled, go_to, ready

_SIZE = 960, 600
_COLOURS = 96
_CASE = ROOT.parent / "shared" / "cases" / "ct_totalseg_dicom"
_LIVER, _SPLEEN = 5, 1  # values of the case
pytestmark = [
    pytest.mark.skipif(
        "SEGMED_PICTURES" not in os.environ, reason="SEGMED_PICTURES names the folder for the picture"
    ),
    pytest.mark.skipif(not _CASE.is_dir(), reason="no folder ../shared/cases beside the checkout"),
]


class Film:
    """Pictures of the page with a sentence each."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.seconds: list[float] = []
        self.words = ""

    def take(self, seconds: float, words: str = "") -> None:
        """Show the page as it is for some seconds, with these words from then on."""
        self.words = words or self.words
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB").resize(_SIZE, Image.LANCZOS)
        pen = ImageDraw.Draw(shot)
        font = ImageFont.load_default(20)
        width = pen.textlength(self.words, font)
        left, top = (_SIZE[0] - width) / 2, _SIZE[1] - 62
        pen.rounded_rectangle((left - 14, top - 8, left + width + 14, top + 30), 8, fill=(13, 17, 22))
        pen.text((left, top), self.words, (255, 255, 255), font)
        self.frames.append(shot.quantize(_COLOURS, dither=Image.Dither.NONE))
        self.seconds.append(seconds)

    def drag(self, first: list[float], last: list[float], steps: int = 4) -> None:
        """Drag with the left button, one picture for each step."""
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for step in np.linspace(0, 1, steps + 1)[1:]:
            self.page.mouse.move(*(np.array(first) + step * (np.array(last) - first)))
            self.take(0.4)
        self.page.mouse.up()
        ready(self.page)

    def save(self, path: Path) -> None:
        times = [int(1000 * seconds) for seconds in self.seconds]
        self.frames[0].save(path, save_all=True, append_images=self.frames[1:], duration=times, loop=0)


def _corners(mask: np.ndarray, k: int) -> tuple[Voxel, Voxel]:
    """Of a box around a structure on a slice."""
    i, j = np.nonzero(mask[:, :, k])
    return (int(i.min()) - 2, int(j.min()) - 2, k), (int(i.max()) + 2, int(j.max()) + 2, k)


def _completed(series: Path) -> None:
    """Give the files the study that they lack, so that a DICOM SEG can refer to it."""
    study = pydicom.uid.generate_uid(entropy_srcs=["walkthrough"])
    for path in (p for p in series.rglob("*") if p.is_file()):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = study
        dataset.save_as(path)


def test_a_minute_on_the_page(page: Page, start: Start, tmp_path: Path) -> None:
    series = tmp_path / "studies"
    shutil.copytree(_CASE / "image.dicom", series)
    _completed(series)
    server = start(series, "--conf", "models", "segmed", "--conf", "labels", "liver,spleen,kidney")
    (labels,) = read_label_segments(_CASE / "label.nii.gz", read_grid(_CASE / "image.dicom")).layers
    liver, spleen = (labels == value for value in (_LIVER, _SPLEEN))
    k = int((liver.any((0, 1)) * spleen.sum((0, 1))).argmax())
    film = Film(page)

    page.add_init_script("localStorage.setItem('segmed.client', 'reader')")
    page.goto(server.url)
    expect(page.locator("#images button")).to_have_count(1)
    film.take(2.5, "Open the address of the server and choose an image.")
    page.locator("#images button").click()
    expect(page.locator("#title")).not_to_be_empty(timeout=120_000)
    ready(page)
    film.take(2.5)
    go_to(page, (0, 0, k))
    film.take(2, "Scroll to the object, and draw a box around it.")
    for mask, label, how in (
        (liver, "liver", "The mask is there at once."),
        (spleen, "spleen", "Each label has its colour, pattern and volume."),
    ):
        page.locator("#label").fill(label)
        page.keyboard.press("Enter")
        page.keyboard.press("b")
        film.drag(*(at(page, corner) for corner in _corners(mask, k)))
        film.take(4, how)
        page.keyboard.press("Enter")
        ready(page)
    page.locator('[data-label="spleen"][data-act="menu"]').click()
    film.take(3.5, "Rename, recolour, merge or delete labels; hide and lock them.")
    page.locator("#new-name").fill("Milz")
    film.take(1.5)
    page.keyboard.press("Enter")
    ready(page)
    film.take(2)
    page.locator("#label").fill("liver")
    page.keyboard.press("Enter")
    page.locator("#model").select_option("segmed_3d")
    page.keyboard.press("b")
    first, last = _corners(liver, k)
    film.take(2, "A model with _3d follows the object through the volume.")
    film.drag(at(page, first), at(page, last), 2)
    film.take(2)
    page.keyboard.press("4")
    film.take(4, "All three planes, in the radiological convention.")
    page.keyboard.press("1")
    go_to(page, (0, 0, k))
    page.keyboard.press("m")
    middle = (first[1] + last[1]) // 2
    film.drag(at(page, (first[0], middle, k)), at(page, (last[0], middle, k)))
    film.take(3, "Measure distances; windows by width and level, or by a preset.")
    page.locator("#window").select_option("Liver")
    film.take(2.5)
    page.keyboard.press("i")
    film.take(2)
    page.keyboard.press("w")
    page.keyboard.press("Delete")
    film.take(2, "Undo and redo cover everything.")
    for key in ("Control+z", "Control+Shift+z"):
        page.keyboard.press(key)
        ready(page)
        film.take(1.5)
    page.locator("#save").click()
    ready(page)
    film.take(4, "Save: to the studies, or to the PACS as DICOM SEG.")
    assert {one[3] for one in filled(page)} == {1, 2}
    path = Path(os.environ["SEGMED_PICTURES"]) / "walkthrough.gif"
    film.save(path)
    assert 45 < sum(film.seconds) < 75 and path.stat().st_size < 4e6
