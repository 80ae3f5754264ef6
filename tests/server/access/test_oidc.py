"""Logging in by an identity provider: whom its tokens let in, and all that they must not."""

from __future__ import annotations

import base64
import hmac
import html
import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from identity_provider import IdentityProvider
from joserfc.jwk import RSAKey
from oidc_site import ADDRESS, PASSWORD, MakeSite, Site, message_of
from segmed.server.access.audit import entries
from segmed.server.access.oidc_logins import WITHIN, Logins
from segmed.server.http.errors import BadRequest


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
    assert "not valid, so nobody was logged in" in message_of(answer)
    assert (bad in ("expired", "from the future")) == (
        "Its clock and that of this server" in message_of(answer)
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
    assert answer.status_code == 401 and "not begun in this browser" in message_of(answer)
    assert site.browser.get(back).status_code == 401  # and it is used up

    back = site.to_provider()
    wrong = re.sub(r"state=[^&]+", "state=guessed", back)
    assert site.browser.get(wrong).status_code == 401
    assert site.browser.get(back).status_code == 401  # the cookie is gone

    back = site.to_provider()
    secret = site.browser.cookies["segmed_login"]
    assert site.browser.get(back).status_code == 200
    replayed = site.another_browser().get(back, headers={"Cookie": f"segmed_login={secret}"})
    assert replayed.status_code == 401 and "used already" in message_of(replayed)


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
        assert message_of(answer) == (
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
    assert "City Hospital did not log you in (access_denied)" in message_of(site.log_in())
    site.provider.error = "<b>x"
    assert "did not log you in. Try" in message_of(site.log_in())
