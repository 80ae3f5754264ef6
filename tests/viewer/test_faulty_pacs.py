"""A PACS that answers late or wrongly: page and OHIF say what is wrong, and go on when it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dicom_phantom import phantom_series
from faulty_pacs import FaultyPacs
from ohif_page import Ohif, uids
from orthanc import Pacs, needs_orthanc
from playwright.sync_api import Page, expect
from running import Server, Start
from web_page import ready

pytestmark = needs_orthanc

FAULTS = {
    "html": "no DICOMweb service",
    "error": "HTTP 500",
    "cut": "broke off",
}
SOON, LONG = 20_000, 120_000  # ms


@pytest.fixture(scope="module")
def folder(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in the PACS."""
    folder = tmp_path_factory.mktemp("faulty") / "series"
    phantom_series(folder, shape=(48, 44, 20), spacing=(7, 7, 9), seed=5)
    pacs.upload(folder)
    return folder


@pytest.fixture(scope="module")
def faulty(pacs: Pacs) -> Iterator[FaultyPacs]:
    one = FaultyPacs(pacs)
    yield one
    one.close()


@pytest.fixture(scope="module")
def server(
    faulty: FaultyPacs, folder: Path, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    conf = {
        "models": "classical",
        "labels": "liver",
        "dicomweb_cache": str(tmp_path_factory.mktemp("cache")),
        "dicomweb_list_seconds": "1",
    }
    return start(faulty.url, *(word for pair in conf.items() for word in ("--conf", *pair)))


@pytest.fixture(autouse=True)
def mended(faulty: FaultyPacs) -> Iterator[None]:
    yield
    faulty.fault = faulty.where = ""


@pytest.mark.parametrize("fault", FAULTS)
def test_the_list_says_what_is_wrong_and_comes_back(
    fault: str, faulty: FaultyPacs, server: Server, folder: Path, page: Page
) -> None:
    faulty.fault = fault
    page.goto(server.url)
    expect(page.locator("#state")).to_contain_text(FAULTS[fault], timeout=SOON)
    expect(page.locator("#images button")).to_have_count(0)
    faulty.fault = ""
    expect(page.locator(f'#images button[data-id="{uids(folder)[1]}"]')).to_be_visible(timeout=SOON)


def test_an_image_that_cannot_be_fetched_is_told_and_opens_later(
    faulty: FaultyPacs, server: Server, folder: Path, page: Page
) -> None:
    """With each fault, then slowly."""
    _, series = uids(folder)
    page.goto(server.url)
    entry = page.locator(f'#images button[data-id="{series}"]')
    faulty.where = f"/series/{series}"
    for fault, sentence in FAULTS.items():
        faulty.fault = fault
        entry.click()
        told = page.locator("#messages .error").filter(has_text=sentence)
        expect(told).to_be_visible(timeout=SOON)
        ready(page)
        expect(page.locator("#title")).to_be_empty()
        told.get_by_role("button").click()
    faulty.fault, faulty.spoiled = "slow", 0
    entry.click()
    expect(page.locator("#title")).not_to_be_empty(timeout=SOON)
    ready(page)
    assert faulty.spoiled


@pytest.mark.parametrize("fault", FAULTS)
def test_ohif_says_that_slices_are_missing(
    fault: str, faulty: FaultyPacs, server: Server, folder: Path, page: Page
) -> None:
    faulty.fault, faulty.where = fault, "/frames/"
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={uids(folder)[0]}")
    expect(page.locator("#segmed-status")).to_contain_text("did not send are black", timeout=LONG)


@pytest.mark.parametrize("fault", ["html", "error"])
def test_ohif_says_what_is_wrong_with_the_pacs(
    fault: str, faulty: FaultyPacs, server: Server, folder: Path, page: Page
) -> None:
    faulty.fault = fault
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={uids(folder)[0]}")
    expect(page.locator("#segmed-status")).to_contain_text(FAULTS[fault], timeout=LONG)


def test_an_answer_that_the_pacs_breaks_off_is_broken_off_for_the_viewer_too(
    faulty: FaultyPacs, server: Server, folder: Path
) -> None:
    """The log has a sentence about it, and no traceback."""
    logged = len(server.log.read_text(encoding="utf-8"))
    faulty.fault = "cut"
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/proxy/dicom/wado/studies/{uids(folder)[0]}/metadata", timeout=60)
    told = server.log.read_text(encoding="utf-8")[logged:]
    assert "The PACS broke off an answer (RemoteProtocolError)." in told
    assert "Traceback" not in told


def test_a_slow_pacs_is_waited_for_in_ohif(
    faulty: FaultyPacs, server: Server, folder: Path, page: Page
) -> None:
    study, series = uids(folder)
    ohif = Ohif(page, server.url, series)
    faulty.fault = "slow"
    ohif.open(study)
    assert "black" not in page.inner_text("#segmed-status")
    assert ohif.shown() == series
