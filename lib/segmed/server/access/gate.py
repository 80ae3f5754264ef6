"""The gate in front of every endpoint where users have to log in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

from monailabel.config import settings
from monailabel.endpoints.user.auth import User as KnownUser
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from segmed.server.access.sessions import Attempts, Sessions
from segmed.server.access.users import User, Users

COOKIE = "segmed"
_OPEN = {"/login", "/auth", "/auth/", "/auth/token", "/favicon.ico"}  # without a login
_SAFE = ("GET", "HEAD", "OPTIONS")
_MONAILABEL = {
    "reader": settings.MONAI_LABEL_AUTH_ROLE_USER,
    "annotator": settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
    "reviewer": settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
    "admin": settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
}


class Gate:
    """ASGI middleware: finds out who asks, by bearer token or cookie, and lets nobody else pass.

    What a role allows stands at the endpoints. Requests that change something and come with a cookie must come from the
    server's own pages.

    Args:
        app: what is behind it.
        users: who may log in.

    Attributes:
        sessions: who has.
        attempts: of those who try.
    """

    def __init__(self, app: ASGIApp, users: Users) -> None:
        self.app, self.users = app, users
        self.sessions, self.attempts = Sessions(), Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over web sockets, and they would pass without a login
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        user, by_cookie = self._user(headers)
        scope = {**scope, "segmed.user": user, "segmed.gate": self}
        if user is None and path not in _OPEN:
            await _ask_to_log_in(scope, headers, path, send)
        elif by_cookie and scope["method"] not in _SAFE and not _own_page(headers):
            await _answer(send, 403, "Requests of other pages are not taken with your login. Use an access token.")
        else:
            await self.app(scope, receive, send)

    def _user(self, headers: Mapping[str, str]) -> tuple[User | None, bool]:
        """Who asks, and whether a cookie says so."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            name = self.sessions.name(token.strip())
            return (self.users.get(name) if name else self.users.by_token(token.strip())), False
        secret = cookie_of(headers)
        name = self.sessions.name(secret) if secret else None
        user = self.users.get(name) if name else None
        return user, user is not None


def cookie_of(headers: Mapping[str, str]) -> str:
    """The secret of a session; "" without one."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def login_name(http: HTTPConnection) -> str:
    """The name that somebody has logged in by; "" where nobody has to."""
    user: User | None = http.scope.get("segmed.user")
    return user.name if user else ""


def current_user(http: HTTPConnection) -> KnownUser:
    """In place of MONAI Label's: the user as its endpoints know one, with all roles that the user's own includes."""
    user: User = http.scope["segmed.user"]
    roles = [theirs for role, theirs in _MONAILABEL.items() if user.may(role)]
    return KnownUser(username=user.name, name=user.name, roles=roles)


def _own_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of this server asks; the guard has compared `Origin` with the address."""
    site = headers.get("sec-fetch-site")
    return site in ("same-origin", "none") if site else bool(urlsplit(headers.get("origin", "")).netloc)


async def _ask_to_log_in(scope: Scope, headers: Mapping[str, str], path: str, send: Send) -> None:
    if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        target = f"{scope.get('root_path', '')}/login?next={quote(path)}"
        await send({"type": "http.response.start", "status": 303, "headers": [(b"location", target.encode())]})
        await send({"type": "http.response.body", "body": b""})
        return
    await _answer(send, 401, "Log in first: on the page /login, or with an access token (`segmed users token`).")


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
