"""Serving the page at `/`, and what it is built from."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from segmed.server.http.errors import BadRequest
from segmed.server.pages import web

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "apps" / "segmed" / "web"


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(web, "built", lambda: tmp_path / "dist")
    return tmp_path / "dist"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(web.router)
    return TestClient(app)


def test_a_page_that_was_not_built_tells_how(dist: Path, client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 503
    assert "./scripts/build_web.sh" in answer.text


def test_the_page_comes_fresh_and_its_parts_are_kept(dist: Path, client: TestClient) -> None:
    dist.mkdir()
    (dist / "index.html").write_text("<p>page</p>", encoding="utf-8")
    (dist / "main-AB12CD34.js").write_text("1", encoding="utf-8")
    page, part = client.get("/"), client.get("/web/main-AB12CD34.js")
    assert page.text == "<p>page</p>" and page.headers["cache-control"] == "no-store"
    assert part.text == "1" and "immutable" in part.headers["cache-control"]
    assert "javascript" in part.headers["content-type"]
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "http" not in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "name", ["index.html", ".built", "..%2fsecret-AB12CD34.js", "main-AB12CD35.js", "main.js.map"]
)
def test_only_parts_of_the_page_are_served(dist: Path, client: TestClient, name: str) -> None:
    dist.mkdir()
    (dist.parent / "secret-AB12CD34.js").write_text("secret", encoding="utf-8")
    for other in ("index.html", ".built", "main.js.map"):
        (dist / other).write_text("secret", encoding="utf-8")
    try:
        answer = client.get(f"/web/{name}")
    except BadRequest as refused:
        assert refused.status == 404
    else:
        assert answer.status_code == 404 and "secret" not in answer.text


def test_the_page_is_pinned_and_names_no_registry() -> None:
    package = json.loads((SOURCES / "package.json").read_text(encoding="utf-8"))
    for version in {**package["dependencies"], **package["devDependencies"]}.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name, locked in lock.items():
        assert "resolved" not in locked
        assert not name or locked["integrity"].startswith("sha512-")


_SVG = "http://www.w3.org/2000/svg"  # the name of a namespace, which no browser opens


def test_the_page_asks_nobody_else() -> None:
    sources = [SOURCES / "index.html", *(SOURCES / "style").rglob("*.css"), *(SOURCES / "src").rglob("*.js")]
    assert len(sources) > 20
    for source in sources:
        text = source.read_text(encoding="utf-8").replace(_SVG, "")
        assert not re.findall(r"https?://", text), source.name


def test_what_is_built_is_not_in_the_repository() -> None:
    for path in ("dist/index.html", "node_modules/esbuild/package.json", ".build-abcdef/x"):
        check = subprocess.run(["git", "check-ignore", "-q", str(SOURCES / path)], cwd=ROOT, check=False)
        assert check.returncode in (0, 128)  # 128: no checkout
