"""MONAI Label's endpoints on threads: they are coroutines that wait for a disk or a PACS, and everybody with
them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

import monailabel.endpoints
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute


def run_in_threads() -> None:
    """Make ordinary functions of the endpoints, which FastAPI calls on threads.

    To be called before MONAI Label's application is made of them. Their bodies await nothing but each other,
    so that each can run in an event loop of its own.
    """
    for module in pkgutil.iter_modules(monailabel.endpoints.__path__):
        router = getattr(import_module(f"{monailabel.endpoints.__name__}.{module.name}"), "router", None)
        if isinstance(router, APIRouter):
            router.routes[:] = [_on_a_thread(route) for route in router.routes]


def _on_a_thread(route: BaseRoute) -> BaseRoute:
    if not isinstance(route, APIRoute) or not inspect.iscoroutinefunction(route.endpoint):
        return route
    return APIRoute(
        route.path,
        _ordinary(route.endpoint),
        methods=route.methods,
        summary=route.summary,
        tags=route.tags,
        dependencies=route.dependencies,
        include_in_schema=route.include_in_schema,
        deprecated=route.deprecated,
    )


def _ordinary(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def run(*arguments: Any, **named: Any) -> Any:
        return asyncio.run(endpoint(*arguments, **named))

    # a wrapped coroutine would still be taken for one
    run.__signature__ = inspect.signature(endpoint)  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    return run
