"""Studies in a PACS, a server on it and a browser, each one for all modules of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from browser import launched
from dicom_phantom import phantom_series
from ohif_page import uids
from orthanc import Pacs
from playwright.sync_api import Browser
from running import Server, Start, starting
from segmed.data.phantom import Phantom

from ohif.structures import VIEWS


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    yield from launched()


@pytest.fixture(scope="package")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    yield from starting(tmp_path_factory)


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def server(pacs: Pacs, phantoms: object, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    cache = tmp_path_factory.mktemp("cache")
    return start(
        pacs.url,
        *("--conf", "models", "classical", "--conf", "labels", "liver,spleen"),
        *("--conf", "dicomweb_cache", str(cache), "--conf", "dicomweb_list_seconds", "1"),
    )
