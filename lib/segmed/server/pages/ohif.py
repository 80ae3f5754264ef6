"""OHIF as MONAI Label brings it, with nested files, our settings and our tool bar; nothing is rebuilt."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import monailabel
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

from segmed.places import APP
from segmed.server.http.errors import BadRequest

router = APIRouter(
    dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    include_in_schema=False,
)

_BUILT = Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"
_BUILT_FOR = "/ohif/"  # the address that is compiled into OHIF
_FONTS = re.compile(r'<link[^>]*href="https://fonts\.[^>]*>')
_READ = ["GET", "HEAD"]
_REVALIDATED = {"Cache-Control": "no-cache"}
# its style sheets ask for fonts elsewhere, and nobody else is to learn that somebody reads an image
_THIS_SERVER_ONLY = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"
}
_viewer = StaticFiles(directory=_BUILT)


@router.api_route("/ohif", methods=_READ)
def enter(request: Request) -> RedirectResponse:
    """OHIF's addresses are relative to a folder."""
    return RedirectResponse(f"{_root(request)}{_BUILT_FOR}")


@router.api_route("/ohif/{path:path}", methods=_READ)
async def viewer(request: Request, path: str) -> Response:
    """A file of OHIF, or for its own pages, whose names have no dot, the page that holds it.

    Raises:
        BadRequest: (404) the studies are a folder, which OHIF cannot read.
        HTTPException: (404) no such file.
    """
    root = _root(request)
    if path == "app-config.js":
        return await _file(_tools(), path, request)
    if path == "index.html" or "." not in path.rpartition("/")[2]:
        if not settings.MONAI_LABEL_STUDIES.startswith(("http://", "https://")):
            raise BadRequest(
                f"OHIF reads from a PACS, but this server's studies are a folder. Open {root}/ for the web "
                "page, or start the server with the DICOMweb URL of a PACS as --studies.",
                404,
            )
        return HTMLResponse(_page(root), headers=_REVALIDATED | _THIS_SERVER_ONLY)
    if root and re.fullmatch(r"app\.bundle\.\w+\.js", path):
        return Response(_bundle(path, root), media_type="text/javascript")
    return await _file(_viewer, path, request)


@router.api_route("/segmed/{path:path}", methods=_READ)
async def tools(request: Request, path: str) -> Response:
    """A file of our tool bar in OHIF. Raises HTTPException (404) if there is none."""
    return await _file(_tools(), path, request)


def _tools() -> StaticFiles:
    return StaticFiles(directory=APP / "ohif", check_dir=False)


async def _file(folder: StaticFiles, path: str, request: Request) -> Response:
    answer = await folder.get_response(path, request.scope)
    answer.headers.update(_REVALIDATED)  # another version of the server has other files under the same names
    return answer


def _root(request: Request) -> str:
    """Where the server lies below its host, such as `/segmed`; mostly ""."""
    return str(request.scope.get("root_path", "")).rstrip("/")


@lru_cache(1)
def _page(root: str) -> str:
    """OHIF's page without requests to other hosts, and with our tool bar."""
    page = _FONTS.sub("", (_BUILT / "index.html").read_text(encoding="utf-8"))
    ours = (
        f'<link href="{root}/segmed/ohif.css" rel="stylesheet"/>'
        f'<script type="module" src="{root}/segmed/ohif.js"></script>'
    )
    return page.replace(_BUILT_FOR, root + _BUILT_FOR).replace("</head>", f"{ours}</head>")


@lru_cache(1)
def _bundle(name: str, root: str) -> bytes:
    """OHIF's main file, which names the folder of the others."""
    file = _BUILT / name
    if not file.is_file():
        raise BadRequest(f"OHIF has no file {name}.", 404)
    return file.read_bytes().replace(f'"{_BUILT_FOR}"'.encode(), f'"{root}{_BUILT_FOR}"'.encode())
