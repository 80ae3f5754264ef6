"""The web application: MONAI Label's, with our endpoints in front, readable errors, and a guard.

`segmed serve` and `scripts/serve.sh` start it; `monailabel start_server --uvicorn_app segmed.server.asgi:app`
does too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import get_current_user
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from segmed.inference.cancelling import Cancelled
from segmed.server.access import login_routes, oidc_routes
from segmed.server.access.audit import Audit, Audited
from segmed.server.access.gate import MONAILABEL_ROLES, Gate, current_user, login_role
from segmed.server.access.oidc import Provider
from segmed.server.access.oidc_settings import OidcSettings
from segmed.server.access.users import Users
from segmed.server.datastores import history_routes
from segmed.server.http import download_routes, info_routes, routes, session_routes
from segmed.server.http.errors import MAY_ONLY_READ, BadRequest
from segmed.server.http.forwarded import TRUSTED, allowed_origins, networks, normal_origin
from segmed.server.http.guard import Guard
from segmed.server.http.threads import run_in_threads
from segmed.server.http.turns import TOO_MANY
from segmed.server.learning import learning_routes, report_routes
from segmed.server.leaving import CLOSED
from segmed.server.pages import api_page as interface_page
from segmed.server.pages import log_page, ohif, preview, proxy, web
from segmed.server.segmenting import routes as segmenting_routes
from segmed.server.tasks import batch_routes
from segmed.server.workspace import routes as workspace_routes
from segmed.server.workspace.edits import routes as edit_routes

run_in_threads()
with contextlib.redirect_stdout(io.StringIO()):  # it prints its CORS setting, which the guard overrules
    from monailabel.app import app as monailabel_app

logger = logging.getLogger(__name__)


def _put_in_front(app: FastAPI) -> None:
    """Our routes win over MONAI Label's of the same path, which stay behind them."""
    before = len(app.router.routes)
    ours = (
        download_routes,
        history_routes,
        info_routes,
        learning_routes,
        report_routes,
        segmenting_routes,
        workspace_routes,
        edit_routes,
        preview,
        session_routes,
        routes,
    )
    for part in (batch_routes, *ours, proxy, ohif, web, interface_page, log_page):
        app.include_router(part.router)
    app.router.routes[:] = app.router.routes[before:] + app.router.routes[:before]


def _answer(status: int, message: str) -> JSONResponse:
    return JSONResponse({"detail": message}, status_code=status)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    answer = _answer(getattr(error, "status", 400), str(error))
    if answer.status_code == TOO_MANY:
        answer.headers["Retry-After"] = "1"
    return answer


async def _not_found(request: Request, error: Exception) -> JSONResponse:
    return _answer(404, str(error))


async def _monailabel(request: Request, error: Exception) -> JSONResponse:
    message = str(getattr(error, "msg", error))
    return _answer(404 if "not found" in message.lower() else 400, message)


async def _out_of_memory(request: Request, error: Exception) -> JSONResponse:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of memory: %s", error)
    return _answer(
        413,
        "The GPU has not enough free memory for this model. Close other programs that use it, choose the "
        "device cpu, or start with a smaller --conf image_size or --conf batch 1.",
    )


async def _cancelled(request: Request, error: Exception) -> JSONResponse:
    logger.info("the client left before the answer: %s", request.url.path)
    return _answer(CLOSED, "The request was cancelled, and nothing was changed.")


async def _disk(request: Request, error: Exception) -> JSONResponse:
    number = getattr(error, "errno", None)
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        logger.error("may not write: %s", error)
        return _answer(403, MAY_ONLY_READ)
    if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return await _unexpected(request, error)
    logger.error("no space: %s", error)
    return _answer(
        507,
        "The server's disk is full, so nothing was saved; what was there before is as it was. Free space "
        "there.",
    )


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(
        error.__cause__, OSError
    ):  # an upload that the disk had no room for, which FastAPI calls a bad body
        return await _disk(request, error.__cause__)
    return await http_exception_handler(request, error)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    number = uuid.uuid4().hex[:8]
    logger.error("error %s at %s %s", number, request.method, request.url.path, exc_info=error)
    return _answer(500, f"Something unexpected went wrong; the server's log tells more under {number}.")


async def _role_missing(request: Request, error: Exception) -> Response:
    """MONAI Label names its own roles, which nobody here has heard of."""
    assert isinstance(error, HTTPException)
    found = re.match(r'Role "(.+)" is required', str(error.detail))
    role = next((ours for ours, theirs in MONAILABEL_ROLES.items() if found and theirs == found[1]), "")
    if error.status_code != 403 or not role:
        return await http_exception_handler(request, error)
    return _answer(
        403,
        f"This needs the role {role}, and yours is {login_role(request)}. Ask who runs this server for "
        f"another one.",
    )


def _close_at_the_end(app: FastAPI) -> None:
    """A retraining goes on in a process of its own, which Python would wait for."""
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(started: FastAPI) -> AsyncIterator[Any]:
        async with inner(started) as state:
            yield state
            await proxy.close()
            batch_routes.close()
            app_instance().close()

    app.router.lifespan_context = lifespan


def _with_login(app: FastAPI, inner: ASGIApp, users: Path, oidc: OidcSettings | None) -> ASGIApp:
    """The application for users who have logged in; MONAI Label's roles at its endpoints count from now
    on."""
    settings.MONAI_LABEL_AUTH_ENABLE = True
    app.dependency_overrides[get_current_user] = current_user
    app.add_exception_handler(HTTPException, _role_missing)
    before = len(app.router.routes)
    app.include_router(login_routes.router)
    if oidc:
        app.include_router(oidc_routes.router)
    app.router.routes[:] = app.router.routes[before:] + app.router.routes[:before]
    return Gate(inner, Users(users), Provider(oidc) if oidc else None)


def create_app() -> ASGIApp:
    """MONAI Label's application, wrapped."""
    app = monailabel_app
    _put_in_front(app)
    _close_at_the_end(app)
    app.add_exception_handler(BadRequest, _refused)
    app.add_exception_handler(ValueError, _refused)
    app.add_exception_handler(FileNotFoundError, _not_found)
    app.add_exception_handler(MONAILabelException, _monailabel)
    app.add_exception_handler(torch.OutOfMemoryError, _out_of_memory)
    app.add_exception_handler(Cancelled, _cancelled)
    app.add_exception_handler(OSError, _disk)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    inner: ASGIApp = app
    if log := os.environ.get("SEGMED_AUDIT", ""):
        inner = Audited(inner, Audit(Path(log)))
    oidc = OidcSettings.read(Path(path)) if (path := os.environ.get("SEGMED_OIDC", "")) else None
    if users := os.environ.get("SEGMED_USERS", ""):
        inner = _with_login(app, inner, Path(users), oidc)
    origins = allowed_origins(os.environ.get("SEGMED_ORIGINS", ""))
    if oidc:
        origins |= {normal_origin(oidc.address)}
    loopback_only = os.environ.get("SEGMED_LOOPBACK_ONLY", "1") == "1"
    proxies = networks(os.environ.get("SEGMED_PROXIES", TRUSTED))
    return Guard(inner, origins, loopback_only, proxies, [os.environ.get("SEGMED_HOST", "")])


app = create_app()
