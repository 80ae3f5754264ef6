"""The gate in front of every endpoint, ours and MONAI Label's: names only, no closed doors, no foreign
pages."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmed.server.http.body import Body, is_json, limit_of
from segmed.server.http.errors import BadRequest
from segmed.server.http.forwarded import (
    TRUSTED,
    Forwarded,
    Network,
    client_address,
    forwarded,
    networks,
    normal_origin,
    seen_from_outside,
)
from segmed.server.http.requests import check_id, check_session, check_tag

MAX_BODY = 4 * 2**30

# method (or any), path, and why it is closed
_CLOSED: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("", re.compile(r"^/reload/?$"), "The app is reloaded by restarting the server."),
    (
        "",
        re.compile(r"^/model(/|$)"),
        "Weights are installed on the server (--conf backbone), not over the network.",
    ),
    ("", re.compile(r"^/infer/wsi"), "Whole-slide images are not supported."),
    ("", re.compile(r"^/datastore/dataset"), "Copy the studies folder on the server instead."),
    ("POST", re.compile(r"^/proxy/"), "Only reading from the PACS is allowed here."),
    ("", re.compile(r"^/static/ohif"), "OHIF is at /ohif/."),
)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        origins: web origins that may call the server beside its own pages; requests may name their hosts,
            too.
        loopback_only: refuse requests that name another host than this machine by itself, which is how a
            foreign page reaches a local server through DNS. Else addresses and the name of the machine are
            taken, too.
        proxies: addresses of reverse proxies, whose word on the address that browsers see is taken.
        names: that the server was told to listen on.
    """

    def __init__(
        self,
        app: ASGIApp,
        origins: Iterable[str] = (),
        loopback_only: bool = True,
        proxies: Iterable[Network] = networks(TRUSTED),
        names: Iterable[str] = (),
    ) -> None:
        self.app = app
        self.origins = {normal_origin(origin) for origin in origins} - {""}
        self.loopback_only = loopback_only
        self.proxies = tuple(proxies)
        self._hosts: set[str | None] = {
            *_LOOPBACK,
            *names,
            *(urlsplit(origin).hostname for origin in self.origins),
        }
        self._hosts -= {"", None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        body = Body(receive, limit_of(headers, MAX_BODY))
        try:
            scope = self._checked(scope, headers)
            if scope["method"] not in ("GET", "HEAD") and is_json(headers):
                await body.check_json()
        except BadRequest as refused:
            await _refuse(refused, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            if body.refused is None or begun:
                await send(message)

        try:
            await self.app(scope, body, answer)
        except Exception:
            if body.refused is None:
                raise
        if body.refused and not begun:
            await _refuse(body.refused, send)

    def _checked(self, scope: Scope, headers: Mapping[str, str]) -> Scope:
        """The request as the browser made it. Raises BadRequest if it is not to be answered."""
        try:
            told = forwarded(scope, headers, self.proxies)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        # not the host that a proxy tells: a page that reaches a local server through DNS could send that
        # header, too
        self._check_host(headers.get("host", ""))
        self._check_origin(headers, scope, told or Forwarded())
        self._check(scope, headers)
        scope = {**scope, "segmed.address": client_address(scope, headers, self.proxies)}
        return seen_from_outside(scope, told) if told else scope

    def _check_host(self, host: str) -> None:
        name = _hostname(host)
        if name in self._hosts or (not self.loopback_only and _is_machine(name)):
            return
        where = (
            "on 127.0.0.1 only" if self.loopback_only else "to its addresses and the name of its machine only"
        )
        raise BadRequest(
            f"This server answers {where}, not as {host[:60]!r}. If that is the name of a reverse proxy in "
            "front of it, or another name of it, start it with the environment variable "
            f"SEGMED_ORIGINS=https://{host[:60]}",
            403,
        )

    def _check_origin(self, headers: Mapping[str, str], scope: Scope, told: Forwarded) -> None:
        origin, host = headers.get("origin"), headers.get("host", "")
        try:
            if not origin or urlsplit(origin).netloc == host:
                return
        except ValueError as error:
            raise BadRequest(
                "The header Origin is not an address. Send none, or that of the page."
            ) from error
        seen = f"{told.scheme or scope.get('scheme', 'http')}://{told.host}"
        if normal_origin(origin) in self.origins or (
            told.host and normal_origin(origin) == normal_origin(seen)
        ):
            return
        raise BadRequest(
            f"Pages of {origin[:80]} may not use this server. If it is reached through a reverse proxy, "
            f"start it with the environment variable SEGMED_ORIGINS={origin[:80]} or have the proxy send "
            "X-Forwarded-Host and X-Forwarded-Proto from an address in SEGMED_PROXIES.",
            403,
        )

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY:
            raise BadRequest(
                f"The upload is larger than {MAX_BODY >> 30} GiB. Send one series at a time.", 413
            )
        path = unquote(scope["path"]).removeprefix(scope.get("root_path", ""))
        if ".." in path.split("/") or "\\" in path or "\0" in path:
            raise BadRequest("The address holds a step to a parent folder. Use names only.")
        if why := is_closed(scope["method"], path):
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


def is_closed(method: str, path: str) -> str:
    """Why nobody may ask for a path; "" where it is open."""
    return next((why for one, pattern, why in _CLOSED if pattern.match(path) and one in ("", method)), "")


def _is_machine(name: str | None) -> bool:
    """Whether a host is an address, which no DNS entry can lead astray, or this machine by its name."""
    try:
        ipaddress.ip_address(name or "")
    except ValueError:
        machine = socket.gethostname().lower()
        return (name or "").removesuffix(".local") in (machine, machine.partition(".")[0])
    return True


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _refuse(refused: BadRequest, send: Send) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
