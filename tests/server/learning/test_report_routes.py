"""The report of the real server: for administrators, whole, and nothing is left behind."""

from __future__ import annotations

import re

import requests
from running import Server  # type: ignore[import-not-found]
from segmed.server.http.routes import ADMIN
from segmed.server.learning.report_routes import router


def test_the_report_is_made_when_it_is_asked_for(server: Server) -> None:
    before = requests.get(f"{server.url}/report", timeout=120)
    assert before.status_code == 200, before.text
    assert before.headers["content-type"].startswith("text/html")
    assert before.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in before.headers["content-security-policy"]
    for section in ("versions", "labels", "work", "agreement", "worst", "drift", "quarantine"):
        assert f'<section id="{section}">' in before.text
    assert not re.search(r"https?:", re.sub(r"base64,[A-Za-z0-9+/=]+", "", before.text))
    assert f": {server.studies.name}</h1>" in before.text
    hidden = requests.get(f"{server.url}/report", {"anonymous": "true"}, timeout=120)
    assert hidden.status_code == 200 and server.studies.name not in hidden.text
    assert requests.get(f"{server.url}/report", {"anonymous": "perhaps"}, timeout=120).status_code == 422
    assert server.left_behind() == []


def test_it_is_for_administrators() -> None:
    assert [route.path for route in router.routes if route.dependencies == ADMIN] == ["/report"]  # type: ignore[attr-defined]
