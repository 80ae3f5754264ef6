"""OHIF's files without a PACS, and below another address."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from segmed.places import APP
from segmed.server.http.errors import BadRequest
from segmed.server.http.guard import Guard
from segmed.server.pages import ohif


@pytest.fixture(autouse=True)
def of_a_pacs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "http://127.0.0.1:9/dicom-web")


def _client(root: str = "") -> TestClient:
    app = FastAPI()
    app.include_router(ohif.router)
    return TestClient(
        Guard(app, loopback_only=False), "http://10.0.0.1", root_path=root, follow_redirects=False
    )


@pytest.mark.parametrize("root", ["", "/segmed"])
def test_every_address_of_the_page_is_there(root: str) -> None:
    """Also where a reverse proxy puts the server below a path: OHIF was built for /ohif/ alone."""
    client = _client(root)
    page = client.get(f"{root}/ohif/viewer").text
    named = {part.split('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]}
    assert any(name.endswith("/segmed/ohif.js") for name in named)
    assert all(name.startswith(f"{root}/") for name in named)
    for name in sorted(named):
        assert client.get(name).status_code == 200, name
    assert f"window.PUBLIC_URL = '{root}/ohif/'" in page
    bundle = next(name for name in named if "app.bundle" in name and name.endswith(".js"))
    assert f'__webpack_require__.p = "{root}/ohif/"' in client.get(bundle).text
    assert client.get(f"{root}/ohif").headers["location"] == f"{root}/ohif/"


def test_studies_in_a_folder_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "/studies")
    with pytest.raises(BadRequest, match="reads from a PACS") as refused:
        _client().get("/ohif/")
    assert refused.value.status == 404
    assert _client().get("/ohif/app.bundle.css").status_code == 200


@pytest.mark.parametrize("root", ["", "/segmed"])
def test_the_copy_that_asks_for_no_name_is_closed(root: str) -> None:
    answer = _client(root).get(f"{root}/static/ohif/index.html")
    assert answer.status_code == 403
    assert "OHIF is at /ohif/" in answer.text


def test_modules_of_the_tool_bar_name_files_that_are_there() -> None:
    for script in (APP / "ohif").glob("*.js"):
        for line in script.read_text(encoding="utf-8").splitlines():
            if " from './" in line:
                assert (APP / "ohif" / line.split("'./")[1].rstrip("';")).is_file(), line
