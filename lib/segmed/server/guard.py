"""The gate in front of every endpoint, ours and MONAI Label's: names only, no closed doors, no foreign pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from segmed.server.requests import BadRequest, check_id, check_session, check_tag

MAX_BODY = 4 * 2**30

# method (or any), path, and why it is closed
_CLOSED: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("", re.compile(r"^/reload/?$"), "The app is reloaded by restarting the server."),
    ("", re.compile(r"^/model(/|$)"), "Weights are installed on the server (--conf backbone), not over the network."),
    ("", re.compile(r"^/infer/wsi"), "Whole-slide images are not supported."),
    ("", re.compile(r"^/datastore/updatelabelinfo"), "Use PUT /datastore/label/info."),
    ("", re.compile(r"^/datastore/dataset"), "Copy the studies folder on the server instead."),
    ("POST", re.compile(r"^/proxy/"), "Only reading from the PACS is allowed here."),
    ("", re.compile(r"^/static/ohif"), "OHIF is at /ohif/."),
)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        origins: web origins that may call the server beside its own pages.
        loopback_only: refuse requests that name another host, which is how a foreign page reaches a local server
            through DNS.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str] = (), loopback_only: bool = True) -> None:
        self.app = app
        self.origins = {origin.rstrip("/") for origin in origins}
        self.loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except BadRequest as refused:
                await _refuse(refused, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get("host", "")
        if self.loopback_only and urlsplit(f"//{host}").hostname not in _LOOPBACK:
            raise BadRequest(f"This server answers on 127.0.0.1 only, not as {host[:60]!r}.", 403)
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != host and origin.rstrip("/") not in self.origins:
            raise BadRequest(f"Pages of {origin[:80]} may not use this server.", 403)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY:
            raise BadRequest(f"The upload is larger than {MAX_BODY >> 30} GiB. Send one series at a time.", 413)
        path = unquote(scope["path"]).removeprefix(scope.get("root_path", ""))
        if ".." in path.split("/") or "\\" in path or "\0" in path:
            raise BadRequest("The address holds a step to a parent folder. Use names only.")
        for method, pattern, why in _CLOSED:
            if pattern.match(path) and method in ("", scope["method"]):
                raise BadRequest(f"{scope['method']} {path[:60]} is closed. {why}", 403)
        self._check_names(path, scope["query_string"].decode("latin-1"))

    @staticmethod
    def _check_names(path: str, query: str) -> None:
        # with a session, `image` is a viewer's name of the volume or a flag, and is not looked up
        named_freely = path.startswith("/session/") or "session_id=" in query
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key == "session_id" and value:
                check_session(value)
            elif key == "tag" and value:
                check_tag(value)
            elif key in ("id", "label", "image") and value and not (key == "image" and named_freely):
                check_id(value, "label" if key == "label" else "image")
        if path.startswith("/session/") and len(path) > len("/session/"):
            check_session(path.removeprefix("/session/").rstrip("/"))


async def _refuse(refused: BadRequest, send: Send) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
