"""Logging in by an identity provider: the way to it, and the way back."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from segmed.server.access.audit import note
from segmed.server.access.gate import Gate
from segmed.server.access.login_page import HEADERS, login_page, moving_on, own_path
from segmed.server.access.login_routes import begin_session
from segmed.server.access.oidc import NoRole, Provider
from segmed.server.access.oidc_logins import WITHIN, Begun
from segmed.server.http.errors import BadRequest

router = APIRouter(include_in_schema=False)

COOKIE = "segmed_login"  # binds a login to the browser that began it
_ERROR = re.compile(r"[a-z_]{1,40}")


@router.get("/login/oidc")
def to_the_provider(http: Request, next: str = "/") -> Response:
    """Send the browser to the provider; the page of the login with a sentence where that is not possible."""
    gate = _gate(http)
    state, browser, begun = gate.logins.begin(own_path(next))
    try:
        url = _provider(gate).login_url(state, begun.nonce, begun.verifier)
    except BadRequest as error:
        return login_page(http, str(error), next, error.status)
    answer = RedirectResponse(url, 303, headers=HEADERS)
    answer.set_cookie(
        COOKIE,
        browser,
        max_age=int(WITHIN),
        httponly=True,
        samesite="lax",  # it comes back with the provider's redirect, which is another site's
        secure=_is_secure(gate),
        path=f"{http.scope.get('root_path', '')}/login/oidc",
    )
    return answer


@router.get("/login/oidc/callback")
def back_from_the_provider(
    http: Request, code: str = "", state: str = "", error: str = "", iss: str = ""
) -> Response:
    """Begin a session of the user whom the provider vouches for."""
    gate, target = _gate(http), "/"
    provider = _provider(gate)
    try:
        begun = gate.logins.end(state, http.cookies.get(COOKIE, ""))
        target, title = begun.target, provider.settings.title
        if error or not code:
            why = f" ({error})" if _ERROR.fullmatch(error) else ""
            raise BadRequest(f"{title} did not log you in{why}. Try again, or ask who runs it.", 401)
        if iss and iss != provider.settings.issuer:
            raise BadRequest(f"The answer is not from {title}, so nobody was logged in.", 401)
        name = _admitted(http, code, begun)
    except BadRequest as refused:
        answer: Response = login_page(http, str(refused), target, refused.status)
    else:
        # a redirect would still count as the other site's, for which browsers keep the cookie of the session
        # back
        answer = HTMLResponse(moving_on(http.scope.get("root_path", "") + target), headers=HEADERS)
        begin_session(http, answer, name, provided=True, secure=_is_secure(gate))
    answer.delete_cookie(COOKIE, path=f"{http.scope.get('root_path', '')}/login/oidc")
    return answer


def _admitted(http: Request, code: str, begun: Begun) -> str:
    """The name of the user, who is known from now on. Raises BadRequest."""
    gate = _gate(http)
    provider = _provider(gate)
    try:
        user = provider.user(code, begun.nonce, begun.verifier)
    except NoRole as refused:
        note(http, login=refused.name)
        gate.provided.pop(refused.name, None)
        raise
    note(http, login=user.name)
    if gate.users.resembles(user.name):
        raise BadRequest(
            f"{user.name} is the name of a user of this server itself. Log in by that user's password, or "
            "ask who runs the server to remove or rename that user.",
            403,
        )
    gate.provided[user.name] = user
    return user.name


def _is_secure(gate: Gate) -> bool:
    return _provider(gate).settings.address.startswith("https://")


def _provider(gate: Gate) -> Provider:
    """Raises BadRequest (404) where there is none."""
    if gate.provider is None:
        raise BadRequest("This server has no login by an identity provider.", 404)
    return gate.provider


def _gate(http: Request) -> Gate:
    gate: Gate = http.scope["segmed.gate"]
    return gate
