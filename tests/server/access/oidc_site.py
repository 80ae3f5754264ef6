"""A server that lets people in by an identity provider, without a process around it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from fastapi.testclient import TestClient
from identity_provider import IdentityProvider
from segmed.server.access.gate import Gate
from segmed.server.http.guard import Guard

ADDRESS = "http://127.0.0.1:8000"
PASSWORD = "correct horse battery"


@dataclass
class Site:
    """A server with a login, without anything behind it, and a browser."""

    provider: IdentityProvider
    gate: Gate
    app: Guard
    folder: Path
    browser: TestClient

    def another_browser(self) -> TestClient:
        return TestClient(self.app, ADDRESS, client=("127.0.0.1", 1), follow_redirects=False)

    def to_provider(self, path: str = "/login/oidc", browser: TestClient | None = None) -> str:
        """Press the button; where the provider sends the browser back to."""
        begun = (browser or self.browser).get(path)
        assert begun.status_code == 303, begun.text
        assert begun.headers["location"].startswith(f"{self.provider.issuer}/authorize?")
        back = httpx2.get(begun.headers["location"], follow_redirects=False).headers["location"]
        assert back.startswith(f"{ADDRESS}/login/oidc/callback?")
        return str(back).removeprefix(ADDRESS)

    def log_in(self) -> Any:
        return self.browser.get(self.to_provider())

    def who(self) -> Any:
        told = self.browser.get("/auth/token/valid")
        return told.json() if told.status_code == 200 else told.status_code


MakeSite = Callable[..., Site]


def message_of(answer: Any) -> str:
    found = re.search(r"<p>(.*?)</p>", answer.text)
    return html.unescape(found[1]) if found else ""
