"""OHIF where people log in: by the page of the login, as somebody who may only look and as somebody who may
save."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from dicom_phantom import phantom_series
from guarded_server import PASSWORD
from ohif_page import Ohif, uids
from orthanc import Pacs, needs_orthanc
from playwright.sync_api import Page, expect
from running import Server, Start
from segmed.data.phantom import Phantom
from segmed.server.access.users import Users

pytestmark = needs_orthanc
LIVER = 1


@pytest.fixture(scope="module")
def study(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Phantom]:
    folder = tmp_path_factory.mktemp("login") / "axial"
    phantom = phantom_series(folder, shape=(64, 56, 20), spacing=(5.4, 5.4, 9.0), seed=21)
    pacs.upload(folder)
    return folder, phantom


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    file = Users(tmp_path_factory.mktemp("home") / "users.json")
    for role in ("reader", "annotator"):
        file.add(role, role, PASSWORD)
    return file


@pytest.fixture(scope="module")
def server(
    pacs: Pacs, study: object, users: Users, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    cache = ("--conf", "dicomweb_cache", str(tmp_path_factory.mktemp("cache")))
    models = ("--conf", "models", "classical", "--conf", "labels", "liver,spleen")
    return start(pacs.url, "--users", str(users.path), *models, *cache)


def _log_in(page: Page, name: str) -> None:
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.locator("[name=username]").fill(name)
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("button").click()


def test_a_reader_looks_and_an_annotator_saves(
    pacs: Pacs, study: tuple[Path, Phantom], users: Users, server: Server, page: Page
) -> None:
    folder, phantom = study
    uid, series = uids(folder)
    inside = phantom.labels == LIVER
    k = int(inside.sum((0, 1)).argmax())
    i, j = np.nonzero(inside[:, :, k])
    stored = np.array([[i.min() - 1, j.min() - 1, k], [i.max() + 1, j.max() + 1, k]])
    address = f"{server.url}/ohif/monai-label?StudyInstanceUIDs={uid}"

    for role in ("reader", "annotator"):
        ohif = Ohif(page, server.url, series, users.make_token(role))
        page.goto(address)
        _log_in(page, role)
        expect(page).to_have_url(address)
        ohif.wait()
        page.wait_for_function("!document.querySelector('[data-sonner-toast]')")
        expect(page.locator("#segmed-user")).to_have_text(f"{role} ({role})")
        start, end = ohif.voxel(stored @ phantom.affine[:3, :3].T + phantom.affine[:3, 3])
        ohif.go_to("mpr-axial", start)
        ohif.press("box")
        ohif.drag("mpr-axial", start, end, "/prompt")
        assert ohif.both().count("liver") > 50
        said = ohif.save()
        if role == "reader":
            assert "This needs the role annotator, and yours is reader" in said
            assert pacs.series("SEG", uid) == []
        else:
            assert "in the PACS as DICOM SEG" in said
            assert len(pacs.series("SEG", uid)) == 1
        page.locator("#segmed-logout").click()
        expect(page).to_have_url(re.compile(r"/login\?next=%2Fohif%2F$"))


def test_a_session_that_has_ended_leads_to_the_login(
    study: tuple[Path, Phantom], users: Users, server: Server, page: Page
) -> None:
    uid, series = uids(study[0])
    users.add("guest", "reader", PASSWORD)
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={uid}")
    _log_in(page, "guest")
    ohif = Ohif(page, server.url, series, users.make_token("guest"))
    ohif.wait()
    users.remove("guest")
    page.click("#segmed-undo:enabled, #segmed-fresh:enabled")
    expect(page).to_have_url(re.compile(rf"/login\?next=%2Fohif%2Fmonai-label%3FStudyInstanceUIDs%3D{uid}"))
