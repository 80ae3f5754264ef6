"""`/docs` and `/logs/`: what they refer to comes from this server, and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
import requests
from guarded_server import Guarded
from playwright.sync_api import Page, expect
from running import ROOT
from segmed.server.access.users import ROLES

BUILT = (ROOT / "apps/segmed/web/dist/docs.html").is_file()
needs_page = pytest.mark.skipif(not BUILT, reason="The page is not built: ./scripts/build_web.sh")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]


def _referred(html: str) -> list[str]:
    links = _Links()
    links.feed(html)
    return [one for one in links.found if not one.startswith("data:")]


@needs_page
def test_the_interface_refers_to_this_server_only(guarded: Guarded) -> None:
    page = guarded.ask("reader", "GET", "/docs")
    assert page.status_code == 200
    assert "//" not in page.text.replace("<!doctype", "")
    referred = _referred(page.text)
    assert len(referred) == 2
    for one in referred:
        path = urljoin("/docs", one)
        part = guarded.ask("reader", "GET", path)
        assert part.status_code == 200 and len(part.content) > 50_000, path
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", part.text), path
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "http" not in policy


@needs_page
def test_the_interface_is_shown_in_a_browser(page: Page, guarded: Guarded) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_extra_http_headers({"Authorization": f"Bearer {guarded.tokens['reader']}"})
    page.goto(f"{guarded.server.url}/docs")
    expect(page.locator("h1, h2").first).to_contain_text("SegMed")
    expect(page.locator(".opblock").first).to_be_visible()
    assert page.locator('[data-path="/api/images/{image}/prompt"]').count() == 1
    assert [url for url in asked if not url.startswith((guarded.server.url, "data:", "blob:"))] == []
    assert [said for said in page.said if "error" in said] == []  # type: ignore[attr-defined]


def test_our_own_interface_is_described(guarded: Guarded) -> None:
    told = guarded.ask("reader", "GET", "/openapi.json").json()
    assert told["info"]["title"] == "SegMed"
    paths = told["paths"]
    assert len(paths) > 40 and "/api/images/{image}/prompt" in paths
    # ours, which stands in front of MONAI Label's of the same path
    assert "image of the studies" in paths["/infer/{model}"]["post"]["description"]
    assert "put" not in paths.get("/model/{model}", {}) and "/datastore/dataset" not in paths  # closed
    assert "/login" not in paths


def test_the_log_is_a_page_without_scripts(guarded: Guarded) -> None:
    answer = guarded.ask("admin", "GET", "/logs/?refresh=3")
    assert answer.status_code in (200, 404), answer.text
    if answer.status_code == 200:
        assert (
            _referred(answer.text) == []
            and "<script" not in answer.text
            and "//" not in answer.text.split("<pre>")[0]
        )
        assert 'http-equiv="refresh" content="3"' in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        text = guarded.ask("admin", "GET", "/logs/?text=true&lines=1")
        assert text.headers["content-type"].startswith("text/plain") and text.text.count("\n") <= 1
    for role in ROLES[:-1]:
        assert guarded.ask(role, "GET", "/logs/").status_code == 403
    assert requests.get(f"{guarded.server.url}/logs/", timeout=30).status_code == 401
