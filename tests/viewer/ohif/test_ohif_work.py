"""Work in OHIF: a box in the wrong plane, a PACS that fails amid it, lassos and scribbles."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from browser import Picture
from ohif_page import Ohif, Places, uids
from orthanc import Pacs
from playwright.sync_api import Page
from running import Server
from segmed.data.phantom import Phantom

from ohif.structures import LIVER, middle_of, overlap, structure_of


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
    k, (low, high), inside = middle_of(phantom, LIVER, ohif)
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
    assert overlap(drawn, structure_of(phantom, LIVER, k), "liver") > 0.6

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
