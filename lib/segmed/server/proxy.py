"""The PACS as OHIF sees it: DICOMweb reads only, nothing else of the PACS can be reached."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from starlette.background import BackgroundTask

from segmed.server.requests import BadRequest

router = APIRouter()

_UID = r"[0-9.]{1,64}"
_ALLOWED = re.compile(
    rf"^(studies|series|instances|studies/{_UID}(/series(/{_UID}(/instances(/{_UID}(/frames/[0-9,]+)?)?)?)?)?|"
    rf"studies/{_UID}/instances)"
    r"(/(metadata|rendered|thumbnail|bulkdata(/[A-Za-z0-9]+)*))?$"
)
_FORWARDED = {"accept": "*/*", "accept-encoding": "identity"}
_PASSED = ("content-type", "content-encoding", "content-length", "etag", "last-modified")
_client: httpx.AsyncClient | None = None


def upstream_path(service: str, path: str) -> str:
    """The path below the DICOMweb root for a request of the viewer.

    Args:
        service: `qido`, `wado` or "".
        path: such as `studies/1.2.3/metadata`.

    Raises:
        BadRequest: (403) not a DICOMweb read.
    """
    path = path.rstrip("/")
    if not _ALLOWED.match(path) or ".." in path:
        raise BadRequest("Only DICOMweb reads of studies, series and instances go through this address.", 403)
    wado = service == "wado" or path.endswith("metadata")
    prefix = settings.MONAI_LABEL_WADO_PREFIX if wado else settings.MONAI_LABEL_QIDO_PREFIX if service else None
    return f"{prefix}/{path}" if prefix else path


@router.get(
    "/proxy/dicom/{service}/{path:path}",
    dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    include_in_schema=False,
)
async def read_dicomweb(request: Request, service: str, path: str) -> StreamingResponse:
    """Forward one read with its query, and stream the answer."""
    if service not in ("qido", "wado"):
        service, path = "", f"{service}/{path}"
    root = settings.MONAI_LABEL_STUDIES.rstrip("/")
    if not root.startswith(("http://", "https://")):
        raise BadRequest("This server's studies are a folder. Start it with a DICOMweb URL as --studies for OHIF.", 404)
    global _client
    if _client is None:
        user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        _client = httpx.AsyncClient(
            auth=httpx.BasicAuth(user, password) if user and password else None,
            timeout=httpx.Timeout(settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT),
            follow_redirects=False,
        )
    url = httpx.URL(f"{root}/{upstream_path(service, path)}", query=request.url.query.encode())
    headers = {key: request.headers.get(key, default) for key, default in _FORWARDED.items()}
    try:
        answer = await _client.send(_client.build_request("GET", url, headers=headers), stream=True)
    except httpx.HTTPError as error:
        raise BadRequest(f"The PACS does not answer ({type(error).__name__}). Is it running?", 424) from error

    async def body() -> AsyncIterator[bytes]:
        async for chunk in answer.aiter_raw():
            yield chunk

    kept = {key: value for key, value in answer.headers.items() if key.lower() in _PASSED}
    return StreamingResponse(body(), answer.status_code, kept, background=BackgroundTask(answer.aclose))
