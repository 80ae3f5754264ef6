"""Requests that come through a reverse proxy, and those that only say so."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from segmed.server.http.forwarded import allowed_origins, networks, normal_origin
from segmed.server.http.guard import Guard

PUBLIC = "https://segmed.hospital.example"
TOLD = {"X-Forwarded-Host": "segmed.hospital.example", "X-Forwarded-Proto": "https"}


def _client(peer: str = "127.0.0.1", **settings: Any) -> TestClient:
    app = FastAPI()

    @app.api_route("/seen/", methods=["GET", "POST"])
    def seen(request: Request) -> dict[str, str]:
        return {"url": str(request.url), "root": request.scope["root_path"]}

    guard = Guard(app, **settings)
    return TestClient(guard, "http://127.0.0.1:8000", client=(peer, 1234), follow_redirects=False)


def test_pages_behind_a_trusted_proxy_are_our_own() -> None:
    answer = _client().post("/seen/", headers={"Origin": PUBLIC, **TOLD})
    assert answer.status_code == 200, answer.text
    assert answer.json()["url"] == f"{PUBLIC}/seen/"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-Host": "segmed.hospital.example"},  # http, as nobody says otherwise
        {**TOLD, "X-Forwarded-Host": "other.example"},
        {**TOLD, "X-Forwarded-Host": "segmed.hospital.example:8443"},
    ],
)
def test_other_pages_are_refused_with_the_name_of_the_setting(headers: dict[str, str]) -> None:
    answer = _client().post("/seen/", headers={"Origin": PUBLIC, **headers})
    assert answer.status_code == 403
    assert f"SEGMED_ORIGINS={PUBLIC}" in answer.json()["detail"]


def test_nobody_but_named_proxies_is_believed() -> None:
    headers = {"Origin": PUBLIC, **TOLD, "X-Forwarded-Prefix": "/x"}
    assert _client("10.1.2.3").post("/seen/", headers=headers).status_code == 403
    told = _client("10.1.2.3").post("/seen/", headers=TOLD | {"X-Forwarded-Prefix": "/x"}).json()
    assert told == {"url": "http://127.0.0.1:8000/seen/", "root": ""}
    assert (
        _client("10.1.2.3", proxies=networks("10.0.0.0/8")).post("/seen/", headers=headers).status_code == 200
    )
    assert _client(proxies=networks("none")).post("/seen/", headers=headers).status_code == 403


def test_a_page_that_reaches_a_local_server_through_dns_stays_outside() -> None:
    """It may send any header to what it takes for its own host."""
    rebound = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    for said in ("127.0.0.1", "evil.example:8000"):
        answer = _client().get(
            "/seen/", headers={**rebound, "X-Forwarded-Host": said, "X-Forwarded-Proto": "http"}
        )
        assert answer.status_code == 403
        assert "SEGMED_ORIGINS" in answer.json()["detail"]


def test_a_proxy_that_keeps_the_host_needs_the_setting() -> None:
    headers = {"Host": "segmed.hospital.example", "Origin": PUBLIC}
    refused = _client().post("/seen/", headers=headers)
    assert refused.status_code == 403
    assert f"SEGMED_ORIGINS={PUBLIC}" in refused.json()["detail"]
    client = _client(origins=allowed_origins(f"https://other.example, {PUBLIC}/"))
    assert client.post("/seen/", headers=headers).status_code == 200
    assert client.post("/seen/", headers={**headers, "Host": "third.example"}).status_code == 403


@pytest.mark.parametrize("prefix", ["/hospital/segmed", "/segmed/", "/seen"])
def test_below_a_path(prefix: str) -> None:
    """The proxy has taken the path off, whatever the rest begins with."""
    client = _client()
    headers = {**TOLD, "X-Forwarded-Prefix": prefix}
    bare = prefix.rstrip("/")
    assert client.get("/seen/", headers=headers).json() == {"url": f"{PUBLIC}{bare}/seen/", "root": bare}
    assert client.get("/seen", headers=headers).headers["location"] == f"{PUBLIC}{bare}/seen/"
    assert client.get("/static/ohif/x", headers=headers).status_code == 403  # closed doors stay closed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Prefix", '/"><script>'),
        ("Prefix", "/../x"),
        ("Prefix", "//evil.example"),
        ("Prefix", "segmed"),
        ("Host", "a b"),
        ("Host", "a/b"),
        ("Proto", "javascript"),
    ],
)
def test_what_no_proxy_sends_is_refused(name: str, value: str) -> None:
    answer = _client().get("/seen/", headers={f"X-Forwarded-{name}": value})
    assert answer.status_code == 400
    assert f"X-Forwarded-{name}" in answer.json()["detail"]


def test_settings_are_checked() -> None:
    assert networks("127.0.0.1, ::1,,10.0.0.7/8")[2].num_addresses == 2**24
    assert networks("none") == networks("") == ()
    with pytest.raises(ValueError, match=r"SEGMED_PROXIES: 'proxy\.local'"):
        networks("proxy.local")
    for wrong in ("segmed.hospital.example", "https://x/path", "ftp://x", "https://x:port"):
        with pytest.raises(ValueError, match="SEGMED_ORIGINS"):
            allowed_origins(wrong)
    assert normal_origin("HTTPS://Segmed.Example:443") == "https://segmed.example"
    assert normal_origin("http://[::1]:80/") == "http://[::1]"
    assert normal_origin("null") == ""


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("10.0.0.7:8000", 200),
        ("[fe80::1]:8000", 200),
        (socket.gethostname(), 200),
        ("evil.example", 403),
        ("", 403),
    ],
)
def test_a_server_for_others_answers_to_its_addresses_and_its_name(host: str, status: int) -> None:
    assert _client(loopback_only=False).get("/seen/", headers={"Host": host}).status_code == status
    for allowed in ({"origins": ["https://evil.example"]}, {"names": ["evil.example"]}):
        answer = _client(loopback_only=False, **allowed).get("/seen/", headers={"Host": host})
        assert answer.status_code == (200 if host else 403)
