"""Guessing passwords: by many names, from many addresses that somebody only claims to have, and through a
proxy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from segmed.server.access import login_routes
from segmed.server.access.gate import Gate
from segmed.server.access.users import Users
from segmed.server.http.errors import BadRequest
from segmed.server.http.forwarded import client_address, networks
from segmed.server.http.guard import Guard

Clients = Callable[..., TestClient]


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Makes clients with an address, of one server where every password is wrong."""
    monkeypatch.setattr(Users, "by_password", lambda *_: None)
    app = FastAPI()
    app.include_router(login_routes.router)

    @app.exception_handler(BadRequest)
    async def refused(request: Request, error: BadRequest) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, error.status)

    gate = Gate(app, Users(tmp_path / "users.json"))

    def make(address: str, proxies: str = "127.0.0.1") -> TestClient:
        return TestClient(Guard(gate, proxies=networks(proxies)), "http://127.0.0.1", client=(address, 1))

    return make


def _guess(client: TestClient, name: str, **headers: str) -> int:
    return client.post("/auth/token", data={"username": name, "password": "x"}, headers=headers).status_code


def test_many_names_from_one_address(clients: Clients) -> None:
    client = clients("10.1.2.3")
    assert [_guess(client, f"name{n}") for n in range(8)] == [401] * 5 + [429] * 3
    assert _guess(clients("10.1.2.4"), "name9") == 401


def test_one_name_from_many_addresses(clients: Clients) -> None:
    assert [_guess(clients(f"10.1.2.{n}"), "anna") for n in range(8)] == [401] * 5 + [429] * 3


def test_who_is_no_proxy_cannot_claim_other_addresses(clients: Clients) -> None:
    client = clients("10.1.2.3")
    told = [
        _guess(client, f"name{n}", **{"X-Forwarded-For": f"10.9.9.{n}", "Forwarded": f"for=1.1.1.{n}"})
        for n in range(8)
    ]
    assert told == [401] * 5 + [429] * 3


def test_people_behind_a_proxy_are_told_apart(clients: Clients) -> None:
    proxy = clients("127.0.0.1")
    told = [_guess(proxy, f"name{n}", **{"X-Forwarded-For": "10.1.2.3"}) for n in range(8)]
    assert told == [401] * 5 + [429] * 3
    assert _guess(proxy, "name9", **{"X-Forwarded-For": "10.1.2.4"}) == 401


def test_what_came_before_the_proxy_is_not_believed(clients: Clients) -> None:
    proxy = clients("127.0.0.1")
    told = [_guess(proxy, f"name{n}", **{"X-Forwarded-For": f"10.9.9.{n}, 10.1.2.3"}) for n in range(8)]
    assert told == [401] * 5 + [429] * 3


@pytest.mark.parametrize(
    ("peer", "header", "address"),
    [
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "1.1.1.1", "10.1.2.3"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("127.0.0.1", "1.1.1.1, 2.2.2.2", "2.2.2.2"),
        ("127.0.0.1", "1.1.1.1, 192.168.0.7", "1.1.1.1"),
        ("127.0.0.1", "::ffff, nonsense", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("testclient", "1.1.1.1", "testclient"),
    ],
)
def test_whom_a_request_comes_from(peer: str, header: str, address: str) -> None:
    trusted = networks("127.0.0.1, 192.168.0.0/24")
    assert client_address({"client": (peer, 1)}, {"x-forwarded-for": header}, trusted) == address
    assert client_address({}, {}, trusted) == ""
