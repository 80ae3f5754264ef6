"""The gate in front of every endpoint where users have to log in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from monailabel.config import settings
from monailabel.endpoints.user.auth import User as KnownUser
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from segmed.server.access.oidc_logins import Logins
from segmed.server.access.sessions import Attempts, Owner, Sessions
from segmed.server.access.users import User, Users

if TYPE_CHECKING:
    from segmed.server.access.oidc import Provider

COOKIE = "segmed"
# without a login
OPEN = frozenset(
    {"/login", "/login/oidc", "/login/oidc/callback", "/auth", "/auth/", "/auth/token", "/favicon.ico"}
)
_SAFE = ("GET", "HEAD", "OPTIONS")
MONAILABEL_ROLES = {
    "reader": settings.MONAI_LABEL_AUTH_ROLE_USER,
    "annotator": settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
    "reviewer": settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
    "admin": settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
}


class Gate:
    """ASGI middleware: finds out who asks, by bearer token or cookie, and lets nobody else pass.

    What a role allows stands at the endpoints. Requests that change something and come with a cookie must
    come from the server's own pages.

    Args:
        app: what is behind it.
        users: who may log in.
        provider: that vouches for others; None for none.

    Attributes:
        sessions: who has.
        attempts: of those who try.
        logins: at the provider, that were begun.
        provided: users by name that the provider has vouched for, with their roles as of the last login.
    """

    def __init__(self, app: ASGIApp, users: Users, provider: Provider | None = None) -> None:
        self.app, self.users, self.provider = app, users, provider
        self.sessions, self.attempts, self.logins = Sessions(), Attempts(), Logins()
        self.provided: dict[str, User] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if (
            scope["type"] != "http"
        ):  # nothing here speaks over web sockets, and they would pass without a login
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        user, by_cookie = self._user(headers)
        scope = {**scope, "segmed.user": user, "segmed.gate": self}
        if user is None and path not in OPEN:
            await _ask_to_log_in(scope, headers, path, send)
        elif by_cookie and scope["method"] not in _SAFE and not _own_page(headers):
            await _answer(
                send, 403, "Requests of other pages are not taken with your login. Use an access token."
            )
        else:
            await self.app(scope, receive, send)

    def _user(self, headers: Mapping[str, str]) -> tuple[User | None, bool]:
        """Who asks, and whether a cookie says so."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token:
            owner = self.sessions.owner(token.strip())
            return (self._known(owner) if owner else self.users.by_token(token.strip())), False
        secret = cookie_of(headers)
        owner = self.sessions.owner(secret) if secret else None
        user = self._known(owner) if owner else None
        return user, user is not None

    def _known(self, owner: Owner) -> User | None:
        """The user of a session; None if there is none any more, or another one has got the name."""
        if not owner.provided:
            return self.users.get(owner.name)
        return None if self.users.resembles(owner.name) else self.provided.get(owner.name)


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


def login_role(http: HTTPConnection) -> str:
    """The role of whoever has logged in; "" where nobody has to."""
    user: User | None = http.scope.get("segmed.user")
    return user.role if user else ""


def current_user(http: HTTPConnection) -> KnownUser:
    """In place of MONAI Label's: the user as its endpoints know one, with all roles that the user's own
    includes."""
    user: User = http.scope["segmed.user"]
    roles = [theirs for role, theirs in MONAILABEL_ROLES.items() if user.may(role)]
    return KnownUser(username=user.name, name=user.name, roles=roles)


def _own_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of this server asks; the guard has compared `Origin` with the
    address."""
    site = headers.get("sec-fetch-site")
    return site in ("same-origin", "none") if site else bool(urlsplit(headers.get("origin", "")).netloc)


async def _ask_to_log_in(scope: Scope, headers: Mapping[str, str], path: str, send: Send) -> None:
    if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        query = scope["query_string"].decode("latin-1")
        asked = quote(path) + (f"?{query}" if query else "")
        target = f"{scope.get('root_path', '')}/login?next={quote(asked)}"
        await send(
            {"type": "http.response.start", "status": 303, "headers": [(b"location", target.encode())]}
        )
        await send({"type": "http.response.body", "body": b""})
        return
    await _answer(
        send, 401, "Log in first: on the page /login, or with an access token (`segmed users token`)."
    )


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
