"""A server that asks for a login: nobody passes without one, each role does what it may, and who did what is
known."""

from __future__ import annotations

import json
import re
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from guarded_server import PASSWORD, Guarded
from playwright.sync_api import Page, expect
from segmed.server.access.users import ROLES

BOX = {"roi": [9, 26, 7, 21, 2, 2]}
PROMPT: dict[str, Any] = {"client": "x", "model": "classical", "label": "liver", "box": [9, 26, 7, 21, 2, 2]}


PATHS = [
    ("GET", "/"),
    ("GET", "/info/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/logs/"),
    ("GET", "/logs/?refresh=3"),
    ("GET", "/datastore/?output=all"),
    ("GET", "/datastore/image?image=ct"),
    ("GET", "/api/state"),
    ("GET", "/api/images/ct/volume.nii"),
    ("GET", "/api/images/ct/history"),
    ("POST", "/infer/classical?image=ct"),
    ("POST", "/train/classical"),
    ("PUT", "/datastore/label?image=ct"),
    ("DELETE", "/datastore/label?id=ct&tag=final"),
    ("PUT", "/session/"),
    ("GET", "/report"),
    ("GET", "/ohif/"),
    ("GET", "/static/x"),
    ("GET", "/no-such-path"),
    ("POST", "/logout"),
    ("GET", "/auth/token/valid"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Cookie": "segmed=nonsense"},
        {"Cookie": 'segmed="; \x80'},
    ],
)
def test_nobody_passes_without_a_login(
    guarded: Guarded, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = requests.request(
        method, guarded.server.url + path, headers=headers, timeout=30, allow_redirects=False
    )
    assert answer.status_code == 401, answer.text[:200]
    assert "Log in first" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("least", "method", "path", "more"),
    [
        ("reader", "GET", "/info/", {}),
        ("reader", "GET", "/api/images", {}),
        ("reader", "GET", "/docs", {}),
        ("reader", "GET", "/openapi.json", {}),
        ("admin", "GET", "/logs/", {}),
        ("reader", "POST", "/infer/classical?image=ct", {"data": {"params": json.dumps(BOX)}}),
        ("annotator", "POST", "/api/images/ct/save", {"json": {"client": "x"}}),
        ("annotator", "GET", "/api/active/labels", {}),
        ("reviewer", "POST", "/api/active/labels/999", {"json": {"keep": True}}),
        ("admin", "GET", "/api/active/state", {}),
        ("admin", "DELETE", "/train/", {}),
    ],
)
def test_a_role_does_what_it_may(
    guarded: Guarded, least: str, method: str, path: str, more: dict[str, Any]
) -> None:
    for role in ROLES:
        answer = guarded.ask(role, method, path, **more)
        if ROLES.index(role) < ROLES.index(least):
            assert answer.status_code == 403, (role, answer.text[:200])
            assert f"needs the role {least}, and yours is {role}" in answer.json()["detail"]
        else:
            assert answer.status_code not in (401, 403), (role, answer.text[:200])


def test_who_did_it_is_who_logged_in(guarded: Guarded) -> None:
    label = np.zeros((40, 36, 5), np.uint8)
    label[10:25, 8:20, 2] = 1
    path = guarded.server.studies.parent / "drawn.nii.gz"
    nib.save(nib.Nifti1Image(label, np.eye(4)), path)
    sent = {"params": json.dumps({"client_id": "somebody else", "label_info": [{"name": "liver", "idx": 1}]})}
    with path.open("rb") as file:
        saved = guarded.ask("annotator", "PUT", "/datastore/label?image=ct", data=sent, files={"label": file})
    assert saved.status_code == 200, saved.text
    noted = guarded.ask("reader", "GET", "/datastore/label/info?label=ct&tag=final").json()
    assert noted["client_id"] == "annotator"
    claim = {"info": json.dumps({"client_id": "somebody else", "checked": "yes"})}
    assert (
        guarded.ask("annotator", "PUT", "/datastore/label/info?label=ct&tag=final", data=claim).status_code
        == 200
    )
    noted = guarded.ask("reader", "GET", "/datastore/label/info?label=ct&tag=final").json()
    assert (noted["client_id"], noted["checked"]) == ("annotator", "yes")
    assert guarded.ask("reviewer", "POST", "/api/images/ct/prompt", json=PROMPT).status_code == 200
    assert guarded.ask("reviewer", "POST", "/api/images/ct/save", json={"client": "x"}).status_code == 200
    noted = guarded.ask("reader", "GET", "/datastore/label/info?label=ct&tag=final").json()
    assert noted["client_id"] == "reviewer"
    state = guarded.ask("annotator", "GET", "/api/state").json()
    assert (state["user"], state["role"]) == ("annotator", "annotator")


def test_slicer_logs_in_by_name_and_password(guarded: Guarded) -> None:
    url = guarded.server.url
    assert requests.get(f"{url}/auth/", timeout=30).json()["enabled"] is True
    form = {"username": "annotator", "password": PASSWORD, "grant_type": "password"}
    told = requests.post(f"{url}/auth/token", data=form, timeout=30).json()
    headers = {"Authorization": f"Bearer {told['access_token']}"}
    assert requests.get(f"{url}/info/", headers=headers, timeout=30).status_code == 200
    who = requests.get(f"{url}/auth/token/valid", headers=headers, timeout=30).json()
    assert who == {"username": "annotator", "role": "annotator"}
    wrong = requests.post(f"{url}/auth/token", data={**form, "password": "x"}, timeout=30)
    assert wrong.status_code == 401


def _session(guarded: Guarded, name: str = "annotator") -> requests.Session:
    session = requests.Session()
    form = {"username": name, "password": PASSWORD, "next": "/"}
    answer = session.post(f"{guarded.server.url}/login", data=form, timeout=30, allow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    return session


def test_a_cookie_serves_the_own_pages_only(guarded: Guarded) -> None:
    url, session = guarded.server.url, _session(guarded)
    own = {"Origin": url}
    assert session.get(f"{url}/info/", timeout=30).status_code == 200
    path = f"{url}/api/images/ct/prompt"
    assert session.post(path, json=PROMPT, headers=own, timeout=60).status_code == 200
    assert (
        session.post(path, json=PROMPT, headers={"Sec-Fetch-Site": "same-origin"}, timeout=60).status_code
        == 200
    )
    for foreign in (
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert session.post(path, json=PROMPT, headers=foreign, timeout=60).status_code == 403, foreign
    assert session.post(f"{url}/logout", headers=own, timeout=30, allow_redirects=False).status_code == 303
    assert session.get(f"{url}/info/", timeout=30).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}]
)
def test_nobody_is_logged_in_or_out_by_another_page(guarded: Guarded, headers: dict[str, str]) -> None:
    url, session = guarded.server.url, _session(guarded)
    form = {"username": "reader", "password": PASSWORD}
    refused = requests.post(f"{url}/login", data=form, headers=headers, timeout=30, allow_redirects=False)
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers
    assert (
        session.post(f"{url}/logout", headers=headers, timeout=30, allow_redirects=False).status_code == 403
    )
    assert session.get(f"{url}/info/", timeout=30).status_code == 200


def test_a_login_leads_back_with_the_query(guarded: Guarded) -> None:
    path = "/ohif/monai-label?StudyInstanceUIDs=1.2&a=%C3%A4%20b"
    headers = {"Accept": "text/html"}
    asked = requests.get(guarded.server.url + path, headers=headers, timeout=30)
    assert f'name="next" value="{path.replace("&", "&amp;")}"' in asked.text


@pytest.mark.parametrize(
    "target",
    [
        "/\t/evil.example",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        '"><',
    ],
)
def test_a_login_leads_nowhere_else(guarded: Guarded, target: str) -> None:
    url = guarded.server.url
    form = {"username": "reader", "password": PASSWORD, "next": target}
    answer = requests.post(f"{url}/login", data=form, timeout=30, allow_redirects=False)
    assert answer.headers["location"] == "/"
    page = requests.get(f"{url}/login", params={"next": target}, timeout=30).text
    assert re.search(r'name="next" value="/"', page)


def test_a_user_who_is_removed_is_out_at_once(guarded: Guarded) -> None:
    guarded.users.add("guest", "reader", PASSWORD)
    session, token = _session(guarded, "guest"), guarded.users.make_token("guest")
    info, bearer = f"{guarded.server.url}/info/", {"Authorization": f"Bearer {token}"}
    assert session.get(info, timeout=30).status_code == 200
    assert requests.get(info, headers=bearer, timeout=30).status_code == 200
    guarded.users.remove("guest")
    assert session.get(info, timeout=30).status_code == 401
    assert requests.get(info, headers=bearer, timeout=30).status_code == 401


def test_guessing_is_stopped(guarded: Guarded) -> None:
    guarded.users.add("target", "reader", PASSWORD)
    form = {"username": "target", "password": "wrong password"}
    told = [requests.post(f"{guarded.server.url}/login", data=form, timeout=30) for _ in range(8)]
    assert [answer.status_code for answer in told[:5]] == [401] * 5
    assert 429 in [answer.status_code for answer in told[5:]]
    assert "wrong" in told[0].text
    right = requests.post(f"{guarded.server.url}/login", data={**form, "password": PASSWORD}, timeout=30)
    assert right.status_code == 429  # nobody learns which guess was right


def test_the_page_knows_whom_a_provider_vouches_for(page: Page, guarded: Guarded) -> None:
    """The provider is another site for the browser, which keeps strict cookies back on the way from there."""
    guarded.provider.reset()
    page.goto(guarded.server.url)
    page.get_by_text("Log in with City Hospital").click()
    expect(page).to_have_url(f"{guarded.server.url}/")
    expect(page.locator("#client")).to_have_value("dr.house")
    page.locator("#logout").click()
    expect(page).to_have_url(re.compile(r"/login$"))
    assert requests.get(f"{guarded.server.url}/info/", timeout=30).status_code == 401


def test_the_page_asks_and_knows_who_is_there(page: Page, guarded: Guarded) -> None:
    page.goto(guarded.server.url)
    expect(page).to_have_url(re.compile(r"/login\?next=/$"))
    page.locator("[name=username]").fill("annotator")
    page.locator("[name=password]").fill("wrong password")
    page.locator("button").click()
    expect(page.locator("p")).to_have_text("Name or password is wrong.")
    page.locator("[name=username]").fill("annotator")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("button").click()
    expect(page.locator("#client")).to_have_value("annotator")
    expect(page.locator("#client")).not_to_be_editable()
    page.locator('#images button[data-id="ct"]').click()
    expect(page.locator("#title")).to_have_text("ct")
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    page.locator("#logout").click()
    expect(page).to_have_url(re.compile(r"/login$"))
    page.goto(guarded.server.url)
    expect(page).to_have_url(re.compile(r"/login"))
