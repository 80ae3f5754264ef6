"""Logging in and out, on a page and as 3D Slicer's module does it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from segmed.server.access.audit import note
from segmed.server.access.gate import COOKIE, Gate, cookie_of
from segmed.server.access.login_page import HEADERS, login_page, own_path
from segmed.server.access.users import User
from segmed.server.http.errors import BadRequest

router = APIRouter(include_in_schema=False)

_LOOPBACK = ("", "127.0.0.1", "::1")


@router.get("/login")
def ask(http: Request, next: str = "/") -> Response:
    """The page that asks for name and password."""
    return login_page(http, "", next)


@router.post("/login")
def log_in(
    http: Request,
    username: str = Form(default="", max_length=64),
    password: str = Form(default="", max_length=1024),
    next: str = Form(default="/", max_length=1024),
) -> Response:
    """Begin a session, kept by a cookie that no script can read and no other page can send."""
    try:
        user = _checked(http, username, password)
    except BadRequest as error:
        return login_page(http, str(error), next, error.status)
    answer = RedirectResponse(http.scope.get("root_path", "") + own_path(next), 303, headers=HEADERS)
    begin_session(http, answer, user.name, secure=http.url.scheme == "https")
    return answer


def begin_session(http: Request, answer: Response, name: str, secure: bool, provided: bool = False) -> None:
    """Begin a session in place of the one that the browser may have.

    Args:
        http: the request.
        answer: takes the cookie with it.
        name: of the user.
        secure: whether the browser may send the cookie by TLS only.
        provided: whether an identity provider vouches for the user.
    """
    sessions = _gate(http).sessions
    sessions.end(cookie_of(http.headers))
    secret = sessions.begin(name, provided)
    path = http.scope.get("root_path", "") or "/"
    answer.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=secure, path=path)


@router.post("/logout")
def log_out(http: Request) -> Response:
    """End the session of the cookie."""
    _gate(http).sessions.end(cookie_of(http.headers))
    answer = RedirectResponse(f"{http.scope.get('root_path', '')}/login", 303)
    answer.delete_cookie(COOKIE, path=http.scope.get("root_path", "") or "/")
    return answer


@router.get("/auth/")
def is_login_needed() -> dict[str, Any]:
    """What 3D Slicer's module asks before it shows fields for name and password."""
    return {"enabled": True, "client_id": "segmed", "realm": ""}


@router.post("/auth/token")
def token(
    http: Request,
    username: str = Form(default="", max_length=64),
    password: str = Form(default="", max_length=1024),
) -> Response:
    """A bearer token for a name and password, which lasts as long as a session of the page."""
    user = _checked(http, username, password)
    told = {"access_token": _gate(http).sessions.begin(user.name), "token_type": "bearer"}
    return JSONResponse(told, headers={"Cache-Control": "no-store"})


@router.get("/auth/token/valid")
def who_am_i(http: Request) -> dict[str, str]:
    """Name and role of whoever asks."""
    user: User = http.scope["segmed.user"]
    return {"username": user.name, "role": user.role}


def _checked(http: Request, name: str, password: str) -> User:
    """The user. Raises BadRequest (401, or 429 after too many failures)."""
    gate = _gate(http)
    note(http, login=name)
    address = http.scope.get("segmed.address", "")
    # behind a reverse proxy of this machine that does not tell addresses, everybody has the same one
    others = () if address in _LOOPBACK else (f"address {address}",)
    gate.attempts.begin(f"name {name}", *others)
    user = gate.users.by_password(name, password)
    if user is None:
        raise BadRequest("Name or password is wrong.", 401)
    gate.attempts.succeeded(f"name {name}", *others)
    return user


def _gate(http: Request) -> Gate:
    gate: Gate = http.scope["segmed.gate"]
    return gate
