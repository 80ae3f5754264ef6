"""The PACS as OHIF sees it: DICOMweb reads only, nothing else of the PACS can be reached."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from starlette.types import Receive, Scope, Send

from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.http.errors import BadRequest

logger = logging.getLogger(__name__)
router = APIRouter()

_UID = r"[0-9.]{1,64}"
_SEARCHES = (
    rf"(studies|series|instances|studies/{_UID}/(series|instances)|studies/{_UID}/series/{_UID}/instances)"
)
_RETRIEVED = rf"studies/{_UID}(/series/{_UID}(/instances/{_UID}(/frames/[0-9,]+)?)?)?"
_SEARCH = re.compile(_SEARCHES)
_RETRIEVE = re.compile(
    rf"{_RETRIEVED}(/(metadata|rendered|thumbnail|bulkdata(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*))?"
)
_FORWARDED = {"accept": "*/*", "accept-encoding": "identity"}
_PASSED = ("content-type", "content-encoding", "content-length", "etag", "last-modified")
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()


def upstream_path(service: str, path: str) -> str:
    """The path below the DICOMweb root for a request of the viewer.

    OHIF asks for searches at the address for retrieving too, so what is asked decides which of the two it is.

    Args:
        service: `qido`, `wado` or "".
        path: such as `studies/1.2.3/metadata`.

    Raises:
        BadRequest: (403) not a DICOMweb read.
    """
    path = path.rstrip("/")
    search = _SEARCH.fullmatch(path)
    if not (search or _RETRIEVE.fullmatch(path)) or ".." in path:
        raise BadRequest("Only DICOMweb reads of studies, series and instances go through this address.", 403)
    prefix = settings.MONAI_LABEL_QIDO_PREFIX if search else settings.MONAI_LABEL_WADO_PREFIX
    return f"{prefix}/{path}" if prefix and service else path


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
        raise BadRequest(
            "This server's studies are a folder. Start it with a DICOMweb URL as --studies for OHIF.", 404
        )
    url = httpx.URL(f"{root}/{upstream_path(service, path)}", query=request.url.query.encode() or None)
    headers = {key: request.headers.get(key, default) for key, default in _FORWARDED.items()}
    try:
        answer = await _ask(url, headers)
    except httpx.HTTPError as error:
        raise BadRequest(f"The PACS does not answer ({type(error).__name__}). Is it running?", 424) from error
    if answer.status_code in (401, 403) or answer.is_redirect or _is_page(answer):
        await answer.aclose()
        raise BadRequest(_refusal(answer), 424)
    return _Streamed(answer)


async def _ask(url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
    client = _client()
    try:
        return await client.send(client.build_request("GET", url, headers=headers), stream=True)
    except (
        httpx.RemoteProtocolError,
        httpx.ReadError,
    ):  # the PACS closed a connection at the moment of its reuse
        return await client.send(client.build_request("GET", url, headers=headers), stream=True)


def _is_page(answer: httpx.Response) -> bool:
    """Whether a web page came in place of data, such as that of a router: OHIF would draw it as pixels."""
    kind = answer.headers.get("content-type", "")
    return answer.is_success and kind.startswith("text/html") and not answer.url.path.endswith("/rendered")


def _refusal(answer: httpx.Response) -> str:
    if _is_page(answer):
        return "What answers at the address of --studies is no DICOMweb service. Check the address."
    if answer.is_redirect:
        return "The PACS sends this request to another address. Give its final DICOMweb URL as --studies."
    return (
        f"The PACS refuses this server ({answer.status_code}). Check MONAI_LABEL_DICOMWEB_USERNAME and "
        "MONAI_LABEL_DICOMWEB_PASSWORD."
    )


class _Streamed(StreamingResponse):
    """An answer of the PACS, piece by piece; whatever becomes of the viewer, the connection is given back."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        kept = {key: value for key, value in answer.headers.items() if key.lower() in _PASSED}
        super().__init__(self._pieces(), answer.status_code, kept)

    async def _pieces(self) -> AsyncIterator[bytes]:
        async for piece in self.answer.aiter_raw():
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except httpx.HTTPError as error:
            # Returning without the last piece makes the web server cut the connection: the viewer sees that
            # data are missing.
            logger.warning("The PACS broke off an answer (%s).", type(error).__name__)
        finally:
            await self.answer.aclose()


def _client() -> httpx.AsyncClient:
    """The connections of this event loop; they cannot be used by another."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        chosen = DicomwebSettings.from_conf(settings.MONAI_LABEL_APP_CONF)
        trusted = ssl.create_default_context(cafile=chosen.ca)
        if chosen.certificate:
            trusted.load_cert_chain(chosen.certificate)
        _clients[loop] = httpx.AsyncClient(
            auth=httpx.BasicAuth(*chosen.user) if chosen.user else None,
            verify=trusted,
            timeout=httpx.Timeout(settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT),
            follow_redirects=False,
        )
    return _clients[loop]


async def close() -> None:
    """Close the connections of this event loop; the server ends."""
    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.aclose()
