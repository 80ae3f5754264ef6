"""The server's interface: as OpenAPI at `/openapi.json`, and for people at `/docs`, by Swagger UI from this
server."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, Response

import segmed
from segmed.client.version import API_VERSION, HEADER
from segmed.server.http.guard import is_closed
from segmed.server.http.routes import USER
from segmed.server.pages import web
from segmed.server.pages.api_examples import with_examples

router = APIRouter(dependencies=USER, include_in_schema=False)

_ABOUT = (
    "Segment medical images with the SAM family. 3D Slicer and OHIF use MONAI Label's part, the web "
    f"page, napari and scripts /api, whose version is {API_VERSION} (header {HEADER}, field `api` of "
    "/api/state)."
)
_HEADERS = {
    # Swagger UI sets styles by script, and has its pictures in data: addresses
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>SegMed</title>
<p>The page of the interface has not been built yet: run <code>./scripts/build_web.sh</code> in the checkout
while it can reach the network, then reload.
<a href="openapi.json">The interface as OpenAPI</a> is there.</p></html>
"""


@router.api_route("/docs", methods=["GET", "HEAD"])
def page() -> Response:
    """Swagger UI, or how to build it."""
    path = web.built() / "docs.html"
    if not path.is_file():
        return HTMLResponse(_NOT_BUILT, status_code=503, headers=_HEADERS)
    return FileResponse(path, media_type="text/html", headers=_HEADERS)


@router.api_route("/openapi.json", methods=["GET", "HEAD"])
def interface(http: Request) -> dict[str, Any]:
    """What can be asked of this server, and how."""
    root = http.scope.get("root_path", "")
    return {**_described(http.app), **({"servers": [{"url": root}]} if root else {})}


@lru_cache(1)
def _described(app: FastAPI) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI Label's endpoints have the same names as ours
        # of two endpoints with the same path, the one that is read last is described; the first one answers
        told = get_openapi(
            title="SegMed", version=segmed.__version__, description=_ABOUT, routes=app.routes[::-1]
        )
    paths = {
        path: {
            method: what for method, what in methods.items() if not is_closed(method.upper(), _example(path))
        }
        for path, methods in sorted(told["paths"].items())
    }
    return with_examples({**told, "paths": {path: methods for path, methods in paths.items() if methods}})


def _example(path: str) -> str:
    return re.sub(r"\{\w+\}", "x", path)
