"""Logging in by an identity provider: whom its tokens let in, and all that they must not."""

from __future__ import annotations

import base64
import hmac
import html
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from identity_provider import IdentityProvider, identity_provider
from joserfc.jwk import RSAKey
from segmed.server.access import login_routes, oidc_routes
from segmed.server.access.audit import Audit, Audited, entries
from segmed.server.access.gate import Gate
from segmed.server.access.oidc import Provider
from segmed.server.access.oidc_logins import WITHIN, Logins
from segmed.server.access.oidc_settings import OidcSettings
from segmed.server.access.users import Users
from segmed.server.http.errors import BadRequest
from segmed.server.http.guard import Guard

ADDRESS = "http://127.0.0.1:8000"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def running() -> Iterator[IdentityProvider]:
    with identity_provider() as one:
        yield one


@pytest.fixture
def provider(running: IdentityProvider) -> IdentityProvider:
    running.reset()
    return running


@dataclass
class Site:
    """A server with a login, without anything behind it, and a browser."""

    provider: IdentityProvider
    gate: Gate
    app: Guard
    folder: Path
    browser: TestClient

    def another_browser(self) -> TestClient:
        return TestClient(self.app, ADDRESS, client=("127.0.0.1", 1), follow_redirects=False)

    def to_provider(self, path: str = "/login/oidc", browser: TestClient | None = None) -> str:
        """Press the button; where the provider sends the browser back to."""
        begun = (browser or self.browser).get(path)
        assert begun.status_code == 303, begun.text
        assert begun.headers["location"].startswith(f"{self.provider.issuer}/authorize?")
        back = httpx2.get(begun.headers["location"], follow_redirects=False).headers["location"]
        assert back.startswith(f"{ADDRESS}/login/oidc/callback?")
        return str(back).removeprefix(ADDRESS)

    def log_in(self) -> Any:
        return self.browser.get(self.to_provider())

    def who(self) -> Any:
        told = self.browser.get("/auth/token/valid")
        return told.json() if told.status_code == 200 else told.status_code


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(provider: IdentityProvider, tmp_path: Path) -> MakeSite:
    def make(**more: Any) -> Site:
        file = tmp_path / "oidc.json"
        file.write_text(json.dumps({**provider.settings(ADDRESS), **more}))
        file.chmod(0o600)
        app = FastAPI()
        app.include_router(login_routes.router)
        app.include_router(oidc_routes.router)

        @app.exception_handler(BadRequest)
        async def refused(request: Request, error: BadRequest) -> JSONResponse:
            return JSONResponse({"detail": str(error)}, error.status)

        audited = Audited(app, Audit(tmp_path / "audit.jsonl"))
        gate = Gate(audited, Users(tmp_path / "users.json"), Provider(OidcSettings.read(file)))
        guard = Guard(gate)
        site = Site(provider, gate, guard, tmp_path, None)  # type: ignore[arg-type]
        site.browser = site.another_browser()
        return site

    return make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()


def _message(answer: Any) -> str:
    found = re.search(r"<p>(.*?)</p>", answer.text)
    return html.unescape(found[1]) if found else ""


def test_a_good_login_begins_a_session_as_a_password_does(site: Site) -> None:
    assert 'href="/login/oidc?next=/">Log in with City Hospital<' in site.browser.get("/login").text
    assert site.who() == 401
    answer = site.log_in()
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/"' in answer.text
    cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("segmed="))
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert site.who() == {"username": "dr.house", "role": "annotator"}
    assert not site.gate.users.path.exists()
    (noted,) = entries(site.folder / "audit.jsonl")
    assert (noted["login"], noted["action"], noted["status"]) == ("dr.house", "GET /login/oidc/callback", 200)
    assert site.browser.post("/logout", headers={"Origin": ADDRESS}).status_code == 303
    assert site.who() == 401


def test_what_is_sent_to_the_provider(site: Site, make_site: MakeSite) -> None:
    asked = parse_qs(urlsplit(site.browser.get("/login/oidc").headers["location"]).query)
    assert asked["response_type"] == ["code"]
    assert asked["redirect_uri"] == [f"{ADDRESS}/login/oidc/callback"]
    assert asked["code_challenge_method"] == ["S256"]
    assert "code_verifier" not in asked and "prompt" not in asked
    again = parse_qs(urlsplit(make_site(prompt="login").browser.get("/login/oidc").headers["location"]).query)
    assert again["prompt"] == ["login"]
    for key in ("state", "nonce", "code_challenge"):
        assert len(asked[key][0]) > 40 and asked[key] != again[key]


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _unsigned(claims: dict[str, Any]) -> str:
    return f"{_part({'alg': 'none', 'kid': 'one'})}.{_part(claims)}."


def _by_public_key(provider: IdentityProvider) -> Callable[[dict[str, Any]], str]:
    """Signed by HMAC with what everybody can read, as if the key were a secret."""

    def sign(claims: dict[str, Any]) -> str:
        text = f"{_part({'alg': 'HS256', 'kid': 'one'})}.{_part(claims)}"
        code = hmac.digest(provider.key.as_pem(private=False), text.encode(), "sha256")
        return f"{text}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"

    return sign


_STRANGER = RSAKey.generate_key(2048, {"kid": "one"})
BAD: dict[str, Callable[[IdentityProvider], dict[str, Any]]] = {
    "issuer": lambda p: {"change": lambda claims: {**claims, "iss": "https://evil.example"}},
    "no issuer": lambda p: {"change": lambda claims: {k: v for k, v in claims.items() if k != "iss"}},
    "audience": lambda p: {"change": lambda claims: {**claims, "aud": "another client"}},
    "no audience": lambda p: {"change": lambda claims: {k: v for k, v in claims.items() if k != "aud"}},
    "made for another client": lambda p: {
        "change": lambda claims: {**claims, "aud": ["segmed", "b"], "azp": "b"}
    },
    "expired": lambda p: {
        "change": lambda claims: {**claims, "exp": time.time() - 60, "iat": time.time() - 360}
    },
    "no expiry": lambda p: {"change": lambda claims: {k: v for k, v in claims.items() if k != "exp"}},
    "from the future": lambda p: {"change": lambda claims: {**claims, "iat": time.time() + 120}},
    "nonce": lambda p: {"change": lambda claims: {**claims, "nonce": "of another login"}},
    "no nonce": lambda p: {"change": lambda claims: {k: v for k, v in claims.items() if k != "nonce"}},
    "none": lambda p: {"sign": _unsigned},
    "HS256 with the public key": lambda p: {"sign": _by_public_key(p)},
    "another key of that name": lambda p: {"sign": lambda claims: p.signed(claims, _STRANGER)},
    "a key of another name": lambda p: {"sign": lambda claims: p.signed(claims, _STRANGER, kid="two")},
    "no token": lambda p: {"sign": lambda claims: "nonsense"},
}


@pytest.mark.parametrize("bad", BAD)
def test_a_token_that_is_not_good_lets_nobody_in(site: Site, bad: str) -> None:
    vars(site.provider).update(BAD[bad](site.provider))
    answer = site.log_in()
    assert answer.status_code == 401
    assert "not valid, so nobody was logged in" in _message(answer)
    assert (bad in ("expired", "from the future")) == (
        "Its clock and that of this server" in _message(answer)
    )
    assert not any(one.startswith("segmed=") for one in answer.headers.get_list("set-cookie"))
    assert site.who() == 401


@pytest.mark.parametrize("seconds", [-20, 20])
def test_clocks_may_differ_a_little(site: Site, seconds: int) -> None:
    now = time.time() + seconds
    site.provider.change = lambda claims: {**claims, "iat": now, "exp": now + 10}
    assert site.log_in().status_code == 200


def test_keys_that_the_provider_has_changed_are_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.log_in().status_code == 200
    asked = site.provider.asked.count("/keys")
    assert site.log_in().status_code == 200
    assert site.provider.asked.count("/keys") == asked  # they are kept
    monkeypatch.setattr(site.provider, "key", RSAKey.generate_key(2048, {"kid": "two"}))
    site.provider.sign = lambda claims: site.provider.signed(claims, kid="two")
    assert site.gate.provider is not None
    late = time.monotonic() + 60
    site.gate.provider._clock = lambda: late
    assert site.log_in().status_code == 200


def test_an_answer_counts_once_in_the_browser_that_asked(site: Site) -> None:
    back = site.to_provider()
    stranger = site.another_browser()
    answer = stranger.get(back)
    assert answer.status_code == 401 and "not begun in this browser" in _message(answer)
    assert site.browser.get(back).status_code == 401  # and it is used up

    back = site.to_provider()
    wrong = re.sub(r"state=[^&]+", "state=guessed", back)
    assert site.browser.get(wrong).status_code == 401
    assert site.browser.get(back).status_code == 401  # the cookie is gone

    back = site.to_provider()
    secret = site.browser.cookies["segmed_login"]
    assert site.browser.get(back).status_code == 200
    replayed = site.another_browser().get(back, headers={"Cookie": f"segmed_login={secret}"})
    assert replayed.status_code == 401 and "used already" in _message(replayed)


def test_a_code_of_another_login_is_of_no_use(site: Site) -> None:
    theirs = site.to_provider(browser=site.another_browser())
    ours = site.to_provider()
    code = parse_qs(urlsplit(theirs).query)["code"][0]
    answer = site.browser.get(re.sub(r"code=[^&]+", f"code={code}", ours))
    assert answer.status_code == 401  # as the provider checks what PKCE adds
    assert site.who() == 401


def test_a_login_ends_after_a_while() -> None:
    now = 0.0
    logins = Logins(lambda: now)
    state, browser, begun = logins.begin("/")
    assert logins.end(state, browser) == begun
    state, browser, _ = logins.begin("/")
    now = WITHIN + 1
    with pytest.raises(BadRequest, match="ten minutes"):
        logins.end(state, browser)


@pytest.mark.parametrize(
    ("target", "led"),
    [
        ("/ohif/monai-label?StudyInstanceUIDs=1.2", "/ohif/monai-label?StudyInstanceUIDs=1.2"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ('"><script>', "/"),
        ('/"><script>', '/"><script>'),
    ],
)
def test_a_login_leads_nowhere_else(site: Site, target: str, led: str) -> None:
    begun = site.browser.get("/login/oidc", params={"next": target})
    back = httpx2.get(begun.headers["location"], follow_redirects=False).headers["location"]
    answer = site.browser.get(str(back).removeprefix(ADDRESS))
    assert f'content="0; url={html.escape(led)}"' in answer.text
    assert "<script>" not in answer.text


def test_a_provider_that_is_down_is_told_and_passwords_work(site: Site) -> None:
    site.gate.users.add("anna", "reader", PASSWORD)
    site.provider.down = True
    for _ in range(2):
        answer = site.browser.get("/login/oidc")
        assert answer.status_code == 503
        assert _message(answer) == (
            "City Hospital cannot be reached now: log in by name and password, or try again later."
        )
    assert len(site.provider.asked) == 1  # it is not asked again at once
    form = {"username": "anna", "password": PASSWORD}
    assert site.browser.post("/login", data=form).status_code == 303
    assert site.who()["username"] == "anna"
    site.provider.down = False
    assert site.gate.provider is not None
    late = time.monotonic() + 60
    site.gate.provider._clock = lambda: late
    assert site.log_in().status_code == 200


def test_a_provider_that_nobody_listens_as(provider: IdentityProvider, make_site: MakeSite) -> None:
    site = make_site(issuer="http://127.0.0.1:9")
    assert site.browser.get("/login/oidc").status_code == 503


def test_a_provider_that_calls_itself_otherwise_is_not_used(
    provider: IdentityProvider, make_site: MakeSite
) -> None:
    site = make_site(issuer=provider.issuer.replace("localhost", "127.0.0.1"))
    assert site.browser.get("/login/oidc").status_code == 503


def test_what_the_provider_refuses_is_told(site: Site) -> None:
    site.provider.error = "access_denied"
    assert "City Hospital did not log you in (access_denied)" in _message(site.log_in())
    site.provider.error = "<b>x"
    assert "did not log you in. Try" in _message(site.log_in())


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["radiology"], "annotator"),
        ("radiology", "annotator"),
        (["radiology", "chiefs", "canteen"], "reviewer"),
        (["it", "radiology"], "admin"),
        (["canteen"], None),
        ([], None),
        (None, None),
        (7, None),
        ([{"name": "it"}], None),
        ("admin", None),  # a role of ours is none of theirs
    ],
)
def test_roles_come_from_the_claim(make_site: MakeSite, groups: Any, role: str | None) -> None:
    site = make_site()
    site.provider.claims["groups"] = groups
    answer = site.log_in()
    assert answer.status_code == (200 if role else 403)
    assert site.who() == ({"username": "dr.house", "role": role} if role else 401)
    if role is None:
        assert "City Hospital knows you as dr.house, who has no role" in _message(answer)
        others = make_site(default_role="reader")
        assert others.log_in().status_code == 200
        assert others.who()["role"] == "reader"


def test_a_claim_may_lie_in_others(make_site: MakeSite) -> None:
    site = make_site(role_claim="realm_access.roles", name_claim="https://x.example/name")
    site.provider.claims |= {"realm_access": {"roles": ["it"]}, "https://x.example/name": "anna"}
    site.log_in()
    assert site.who() == {"username": "anna", "role": "admin"}


def test_another_role_counts_at_the_next_login_in_all_browsers(site: Site) -> None:
    site.log_in()
    first, site.browser = site.browser, site.another_browser()
    site.provider.claims["groups"] = ["it"]
    assert first.get("/auth/token/valid").json()["role"] == "annotator"
    site.log_in()
    assert first.get("/auth/token/valid").json()["role"] == "admin"
    site.provider.claims["groups"] = []
    assert site.log_in().status_code == 403
    assert first.get("/auth/token/valid").status_code == 401  # and so does having none


@pytest.mark.parametrize("name", ["dr.house", "Dr.House", "DR.HOUSE", "dr.ｈouse"])
def test_nobody_takes_over_a_user_of_the_server(site: Site, name: str) -> None:
    site.gate.users.add("dr.house", "admin", PASSWORD)
    site.provider.claims["preferred_username"] = name
    answer = site.log_in()
    assert answer.status_code == 403
    assert "is the name of a user of this server itself" in _message(answer)
    assert site.who() == 401


def test_a_user_who_gets_that_name_ends_the_session(site: Site) -> None:
    site.log_in()
    site.gate.users.add("dr.house", "admin", PASSWORD)
    assert site.who() == 401


@pytest.mark.parametrize("name", ["", "an na", "x" * 65, "../x", None, 7, ["anna"], {"a": 1}])
def test_names_that_cannot_be_used(site: Site, name: Any) -> None:
    site.provider.claims["preferred_username"] = name
    answer = site.log_in()
    assert answer.status_code == 403
    assert "no usable name in the claim preferred_username" in _message(answer)


def test_an_address_that_nobody_has_verified_is_no_name(make_site: MakeSite) -> None:
    site = make_site(name_claim="email")
    site.provider.claims |= {"email": "anna@hospital.example", "email_verified": False}
    assert site.log_in().status_code == 403
    site.provider.claims["email_verified"] = True
    assert site.log_in().status_code == 200


def test_behind_a_proxy_with_tls_and_a_path(make_site: MakeSite) -> None:
    address = "https://segmed.hospital.example/imaging"
    site = make_site(address=address)
    told = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "segmed.hospital.example"}
    headers = {**told, "X-Forwarded-Prefix": "/imaging"}
    begun = site.browser.get("/login/oidc", headers=headers)
    cookie = begun.headers["set-cookie"]
    assert "Secure" in cookie and "SameSite=lax" in cookie and "Path=/imaging/login/oidc" in cookie
    back = str(httpx2.get(begun.headers["location"], follow_redirects=False).headers["location"])
    secret = re.match(r"segmed_login=([^;]+)", cookie)
    assert back.startswith(f"{address}/login/oidc/callback?") and secret
    headers["Cookie"] = f"segmed_login={secret[1]}"
    answer = site.another_browser().get(back.removeprefix(address), headers=headers)
    assert 'content="0; url=/imaging/"' in answer.text
    session = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("segmed="))
    assert "Secure" in session and "Path=/imaging" in session


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"issuer": "http://idp.example"}, "issuer 'http://idp.example' must be an https://"),
        ({"address": "http://segmed.example"}, "logins need TLS"),
        ({"address": "segmed.example"}, "address 'segmed.example' must be"),
        ({"algorithms": ["HS256"]}, "algorithms HS256 cannot be used"),
        ({"algorithms": ["RS256", "none"]}, "algorithms none cannot be used"),
        ({"algorithms": "RS256"}, "algorithms must be a list"),
        ({"scopes": ["profile"]}, "scopes must hold openid"),
        ({"roles": {"x": "king"}}, "'king' is no role"),
        ({"roles": ["x"]}, "roles must name a role"),
        ({"default_role": "king"}, "default_role: 'king' is no role"),
        ({"client_id": ""}, "client_id must be given"),
        ({"role_claim": None}, "role_claim must be given"),
        ({"client": "x"}, "unknown client. Known are"),
        ({"prompt": "never"}, "prompt 'never' must be"),
        ({"ca": "none.pem"}, "ca 'none.pem' is not there"),
        ({"client_secret": 7}, "client_secret must be a text"),
        ({"client_secret_env": "X"}, "not both"),
        ({"client_secret": None, "client_secret_env": "SEGMED_NOT_SET"}, "not both"),
    ],
)
def test_settings_that_cannot_be_used(
    provider: IdentityProvider, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    path = tmp_path / "oidc.json"
    path.write_text(json.dumps({**provider.settings(ADDRESS), **change}))
    path.chmod(0o600)
    with pytest.raises(ValueError, match=re.escape(told)):
        OidcSettings.read(path)


def test_where_the_secret_may_stand(
    provider: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "oidc.json"
    with pytest.raises(FileNotFoundError, match="Give --oidc a JSON file"):
        OidcSettings.read(path)
    settings = provider.settings(ADDRESS)
    path.write_text(json.dumps(settings))
    path.chmod(0o644)
    with pytest.raises(ValueError, match="everybody on this machine can read"):
        OidcSettings.read(path)
    settings.pop("client_secret")
    path.write_text(json.dumps({**settings, "client_secret_env": "SEGMED_TEST_SECRET"}))
    with pytest.raises(ValueError, match="SEGMED_TEST_SECRET of client_secret_env is not set"):
        OidcSettings.read(path)
    monkeypatch.setenv("SEGMED_TEST_SECRET", "a secret of the client")
    read = OidcSettings.read(path)
    assert read.client_secret == "a secret of the client" and read.client_secret not in repr(read)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        OidcSettings.read(path)
