"""Every route of the application needs a role, or stands here with the reason why not."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import requests
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.staticfiles import StaticFiles
from guarded_server import Guarded
from monailabel.endpoints.user.auth import RBAC
from segmed.server.access import login_routes, oidc_routes
from segmed.server.access.gate import OPEN
from segmed.server.http.guard import is_closed

WITHOUT_ROLE = {
    "/login": "asks who somebody is",
    "/login/oidc": "leads to the identity provider",
    "/login/oidc/callback": "comes back from there",
    "/auth/": "tells 3D Slicer that there is a login",
    "/auth/token": "asks who somebody is",
    "/favicon.ico": "a picture",
    # the gate asks for a login, and each role may
    "/logout": "ends the own session",
    "/auth/token/valid": "tells the own name",
    "/": "the page, which asks for all that it shows",
    "/web/{name}": "scripts of the page",
    "/static": "files of MONAI Label's package",
    "/reload": "closed for everybody",
}


def _answering(routes: Sequence[Any]) -> list[tuple[str, str, Any]]:
    """Method, path and route, those of included routers too, without those that stand behind one of the same
    path."""
    found: dict[tuple[str, str], Any] = {}
    for route in iter_route_contexts(routes):
        for method in route.methods or ("any",):
            found.setdefault((method, str(route.path)), route)
    return [(method, path, route) for (method, path), route in found.items()]


def _needs_role(route: Any) -> bool:
    """Whether a role stands at the endpoint, or at the router that it came with."""

    def calls(dependant: Any) -> Any:
        yield dependant.call
        for inner in dependant.dependencies:
            yield from calls(inner)

    is_endpoint = isinstance(route.original_route, APIRoute)
    return is_endpoint and any(isinstance(call, RBAC) for call in calls(route.dependant))


def _unlisted(routes: Sequence[Any]) -> list[str]:
    answering = _answering(routes)
    return sorted({path for _, path, route in answering if not _needs_role(route)} - set(WITHOUT_ROLE))


@pytest.fixture(scope="module")
def routes() -> list[Any]:
    from segmed.server.asgi import app

    inner = app
    while not isinstance(inner, FastAPI):
        inner = inner.app  # type: ignore[attr-defined]
    return [*login_routes.router.routes, *oidc_routes.router.routes, *inner.router.routes]


def test_every_route_needs_a_role(routes: list[Any]) -> None:
    assert len(_answering(routes)) > 80
    assert _unlisted(routes) == []


def test_nothing_is_listed_that_is_not_there(routes: list[Any]) -> None:
    there = {path for _, path, route in _answering(routes) if not _needs_role(route)}
    assert set(WITHOUT_ROLE) - there == set()
    assert OPEN - {"/auth"} <= set(WITHOUT_ROLE)


def test_a_new_route_without_a_role_is_noticed() -> None:
    app, part = FastAPI(openapi_url=None), APIRouter()
    with_role = APIRouter(dependencies=[Depends(RBAC("x"))])

    @part.get("/new")
    @with_role.get("/new-with-role")
    def new() -> None: ...

    @part.websocket("/socket")
    async def socket() -> None: ...

    app.include_router(part, prefix="/part")
    app.include_router(with_role)
    app.mount("/files", StaticFiles(directory="."))
    app.add_route("/plain", new)
    assert _unlisted(app.router.routes) == ["/files", "/part/new", "/part/socket", "/plain"]


def test_no_route_answers_without_a_login(guarded: Guarded, routes: list[Any]) -> None:
    asked = 0
    for method, pattern, _ in _answering(routes):
        path = re.sub(r"\{\w+(:path)?\}", "x", pattern.replace("{session_id}", str(uuid.uuid4())))
        method = "GET" if method == "any" else method
        if pattern in OPEN or is_closed(method, path):
            continue
        answer = requests.request(method, guarded.server.url + path, timeout=30, allow_redirects=False)
        assert answer.status_code == 401, (method, path, answer.text[:100])
        asked += 1
    assert asked > 60
