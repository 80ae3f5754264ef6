"""DICOM series in the list of the page, by patient and date."""

from __future__ import annotations

import pytest
from browser import Picture
from playwright.sync_api import Page, expect
from running import Start
from segmed.data.phantom import make_phantom
from segmed.data.phantom.dicom import write_series
from web_page import go_to, paint, ready


def test_series_are_told_apart(
    page: Page, start: Start, tmp_path_factory: pytest.TempPathFactory, picture: Picture
) -> None:
    phantom = make_phantom("CT", shape=(80, 64, 40), spacing=(4.4, 4.4, 4.0), seed=5)
    studies = tmp_path_factory.mktemp("dicom")
    for patient in ("Doe^Jane", "Roe^Richard"):
        write_series(studies / patient, phantom.image, phantom.affine, patient=patient)
    server = start(studies, "--conf", "models", "classical", "--conf", "labels", "liver")
    page.goto(server.url)
    expect(page.locator("#images button")).to_have_count(2)
    patients = page.locator("#images .patient").all_inner_texts()
    assert sorted(patients) == ["Doe, Jane · doe-jane", "Roe, Richard · roe-richard"]
    page.locator("#search").fill("roe")
    page.locator("#images button").click()
    ready(page)
    expect(page.locator("#images .about")).to_contain_text("CT · 2026-01-01 · ")
    go_to(page, (20, 20, 9))
    paint(page, "liver", (20, 20, 9))
    page.locator("#save").click()
    expect(page.locator("#images .about")).to_contain_text("labelled by ")
    picture(page, "page-series")
    with page.expect_download() as download:
        page.locator("#seg").click()
    assert download.value.suggested_filename.startswith("roe-richard-2026-01-01-")
