"""Logging in and out, on a page and as 3D Slicer's module does it."""

from __future__ import annotations

import html
from typing import Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from segmed.server.access.gate import COOKIE, Gate, cookie_of
from segmed.server.access.users import User
from segmed.server.audit import note
from segmed.server.errors import BadRequest

router = APIRouter(include_in_schema=False)

_LOOPBACK = ("", "127.0.0.1", "::1")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>SegMed</title>
<style>
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: #10161d; color: #d7dfe8;
  font: 15px/1.5 system-ui, sans-serif; }}
form {{ display: grid; gap: 12px; width: 280px; }}
h1 {{ margin: 0; font-size: 22px; }}
label {{ display: grid; gap: 4px; }}
input, button {{ font: inherit; padding: 8px 10px; border-radius: 6px; border: 1px solid #33404f; }}
input {{ background: #0a0f14; color: inherit; }}
button {{ background: #2563ab; color: #fff; cursor: pointer; }}
p {{ margin: 0; color: #ff9b8f; }}
</style></head>
<body><form method="post" action="login">
<h1>SegMed</h1>{message}
<label>Name <input name="username" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<input type="hidden" name="next" value="{next}">
<button>Log in</button>
</form></body></html>
"""


@router.get("/login")
def login_page(next: str = "/") -> Response:
    """The page that asks for name and password."""
    return _page("", next)


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
        return _page(str(error), next, error.status)
    target = http.scope.get("root_path", "") + _own(next)
    answer = RedirectResponse(target, 303, headers=_HEADERS)
    answer.set_cookie(
        COOKIE,
        _gate(http).sessions.begin(user.name),
        httponly=True,
        samesite="strict",
        secure=http.url.scheme == "https",
        path=http.scope.get("root_path", "") or "/",
    )
    return answer


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
    address = http.client.host if http.client else ""
    # through a reverse proxy on this machine everybody has the same address
    keys = (f"name {name}",) if address in _LOOPBACK else (f"name {name}", f"address {address}")
    gate.attempts.check(*keys)
    user = gate.users.by_password(name, password)
    if user is None:
        gate.attempts.failed(*keys)
        raise BadRequest("Name or password is wrong.", 401)
    gate.attempts.succeeded(keys[0])
    return user


def _gate(http: Request) -> Gate:
    gate: Gate = http.scope["segmed.gate"]
    return gate


def _own(target: str) -> str:
    """A path on this server; others would lead away from it."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"


def _page(message: str, target: str, status: int = 200) -> Response:
    shown = f"<p>{html.escape(message)}</p>" if message else ""
    page = _PAGE.format(message=shown, next=html.escape(_own(target), quote=True))
    return HTMLResponse(page, status, headers=_HEADERS)
