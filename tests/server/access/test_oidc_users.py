"""Who somebody is by an identity provider: roles by claims, names that cannot be used, and the settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from identity_provider import IdentityProvider
from oidc_site import ADDRESS, PASSWORD, MakeSite, Site, message_of
from segmed.server.access.oidc_settings import OidcSettings


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
        assert "City Hospital knows you as dr.house, who has no role" in message_of(answer)
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
    assert "is the name of a user of this server itself" in message_of(answer)
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
    assert "no usable name in the claim preferred_username" in message_of(answer)


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
