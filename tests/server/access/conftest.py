"""A browser, a server that asks for a login, and one that asks an identity provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Picture, browser, page, picture
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from guarded_server import Guarded, guarded
from identity_provider import IdentityProvider, identity_provider
from oidc_site import ADDRESS, MakeSite, Site
from running import Start, start, start_shared
from segmed.server.access import login_routes, oidc_routes
from segmed.server.access.audit import Audit, Audited
from segmed.server.access.gate import Gate
from segmed.server.access.oidc import Provider
from segmed.server.access.oidc_settings import OidcSettings
from segmed.server.access.users import Users
from segmed.server.http.errors import BadRequest
from segmed.server.http.guard import Guard

__all__ = ["Guarded", "Picture", "Start", "browser", "guarded", "page", "picture", "start", "start_shared"]


@pytest.fixture(scope="session")
def running() -> Iterator[IdentityProvider]:
    with identity_provider() as one:
        yield one


@pytest.fixture
def provider(running: IdentityProvider) -> IdentityProvider:
    running.reset()
    return running


@pytest.fixture
def make_site(provider: IdentityProvider, tmp_path: Path) -> MakeSite:
    def make(**more: Any) -> Site:
        file = tmp_path / "oidc.json"
        file.write_text(json.dumps({**provider.settings(ADDRESS), **more}))
        file.chmod(0o600)
        app = FastAPI()
        app.include_router(login_routes.router)
        app.include_router(oidc_routes.router)

        @app.exception_handler(BadRequest)
        async def refused(request: Request, error: BadRequest) -> JSONResponse:
            return JSONResponse({"detail": str(error)}, error.status)

        audited = Audited(app, Audit(tmp_path / "audit.jsonl"))
        gate = Gate(audited, Users(tmp_path / "users.json"), Provider(OidcSettings.read(file)))
        guard = Guard(gate)
        site = Site(provider, gate, guard, tmp_path, None)  # type: ignore[arg-type]
        site.browser = site.another_browser()
        return site

    return make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()
