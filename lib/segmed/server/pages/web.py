"""The page for the first five minutes, at `/`: files built from `apps/segmed/web` by
`scripts/build_web.sh`."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from segmed.places import APP
from segmed.server.http.errors import BadRequest

router = APIRouter(include_in_schema=False)

_ASSET = re.compile(r"^[A-Za-z0-9_]+-[A-Z0-9]{8}\.(js|css)$")
_HEADERS = {
    # NiiVue keeps its fonts and pictures in data: addresses; nothing comes from elsewhere
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
    "data: blob:; connect-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>SegMed</title>
<h1>SegMed is running</h1>
<p>3D Slicer and OHIF can use it. This page has not been built yet: run <code>./scripts/build_web.sh</code> in
the checkout while it can reach the network, then reload.</p>
<p><a href="docs">The server's interface</a></p></html>
"""


def built() -> Path:
    """The folder of the built pages."""
    return APP / "web" / "dist"


@router.api_route("/", methods=["GET", "HEAD"])
def page() -> Response:
    """The page, or how to build it."""
    index = built() / "index.html"
    headers = {**_HEADERS, "Cache-Control": "no-store"}
    if not index.is_file():
        return HTMLResponse(_NOT_BUILT, status_code=503, headers=headers)
    return FileResponse(index, media_type="text/html", headers=headers)


@router.api_route("/web/{name}", methods=["GET", "HEAD"])
def asset(name: str) -> Response:
    """A script or style sheet; its name changes with its content, so that browsers may keep it.

    Raises:
        BadRequest: (404) there is none of that name.
    """
    path = built() / name
    if not _ASSET.match(name) or not path.is_file():
        raise BadRequest("The page has no such part. Reload the page.", 404)
    return FileResponse(path, headers={**_HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
