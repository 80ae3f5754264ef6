"""The page on DICOM: what is drawn comes out as DICOM SEG and RTSTRUCT where it was drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_phantom import phantom_series
from playwright.sync_api import Page, expect
from running import Start
from segmed.imaging.reading import read_volume
from web_page import box, filled, go_to, ready


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
