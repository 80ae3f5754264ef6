"""Requests that no viewer sends: each gets a 4xx, never a 500, and the server lives on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from running import Server

LONG = "a" * 256
BIG = 2**63
ANY = {"params": "{}"}
FILE = {"label": ("a.nii.gz", b"no label map")}

REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/info/", {"headers": {"Host": "[bad]"}}),
    ("GET", "/info/", {"headers": {"Host": "["}}),
    ("GET", "/info/", {"headers": {"Origin": "http://["}}),
    ("GET", "/info/", {"headers": {"Origin": "http://127.0.0.1:port"}}),
    ("GET", "/info/", {"headers": {"Origin": "null"}}),
    ("GET", "/info/", {"headers": {"X-Forwarded-Host": "http://["}}),
    ("GET", "/info/", {"headers": {"X-Forwarded-Proto": "gopher"}}),
    ("GET", f"/datastore/image?image={LONG}", {}),
    ("GET", f"/datastore/image?image={'%F0%9F%98%80' * 100}", {}),
    ("GET", f"/datastore/label?label={BIG}&tag=final", {}),
    ("GET", f"/datastore/label?label=ct&tag={LONG}", {}),
    ("GET", "/datastore/image?image=%00", {}),
    ("GET", "/datastore/image?image=%ff%fe", {}),
    ("GET", f"/api/images/{LONG}/work", {}),
    ("GET", f"/api/images/ct/history/{LONG}", {}),
    ("POST", "/api/images/ct/history/20260101T000000-000000", {}),
    ("PUT", "/datastore/label/info?label=ct&tag=final", {"data": {"info": "[1]"}}),
    ("PUT", "/datastore/label/info?label=ct&tag=final", {"data": {"info": "7"}}),
    ("PUT", "/datastore/image/info?image=ct", {"data": {"info": '"text"'}}),
    ("PUT", "/datastore/image/info?image=ct", {"data": {"info": '{"a": ' * 300 + "1" + "}" * 300}}),
    ("PUT", "/datastore/label?image=ct", {"data": {"params": "[]"}, "files": FILE}),
    ("PUT", "/datastore/label?image=ct", {"data": {"params": '{"client_id": ["x"]}'}, "files": FILE}),
    ("PUT", f"/datastore/label?image=ct&tag=version_{BIG}", {"data": ANY, "files": FILE}),
    ("PUT", f"/datastore/image?image={LONG}", {"data": ANY, "files": {"file": ("a.png", b"x")}}),
    ("PUT", "/datastore/image?image=x", {"data": ANY, "files": {"file": (f"{LONG}{LONG}.png", b"x")}}),
    ("POST", "/infer/segmed?image=ct", {"data": {"params": json.dumps({"roi": [BIG - 1] * 6})}}),
    ("POST", "/infer/segmed?image=ct", {"data": {"params": json.dumps({"foreground": [[1e308, 1, 1]]})}}),
    ("POST", "/infer/segmed?image=ct", {"data": {"params": json.dumps({"label_info": [{"name": [1]}] * 5})}}),
    ("POST", f"/infer/{LONG}?image=ct", {"data": ANY}),
    ("POST", "/infer/segmed?image=ct&output=picture", {"data": ANY}),
    (
        "POST",
        "/api/images/ct/prompt",
        {"json": {"client": "a", "model": "segmed", "label": "x", "box": [BIG] * 6}},
    ),
    (
        "POST",
        "/api/images/ct/prompt",
        {"json": {"client": "a", "model": LONG, "label": "x", "box": [1, 9, 1, 9, 1, 1]}},
    ),
    ("POST", "/api/images/ct/prompt", {"json": []}),
    ("POST", "/api/images/ct/save", {"json": {"client": {"a": 1}}}),
    (
        "POST",
        "/api/images/ct/paint",
        {"json": {"client": "a", "rectangles": [{"k": BIG, "i": [0], "j": [0]}]}},
    ),
    ("POST", f"/train/{LONG}", {"json": {}}),
    ("POST", "/train/segmed", {"json": []}),
    ("POST", "/batch/infer/segmed", {"json": 3}),
    ("POST", f"/activelearning/{LONG}", {"json": {}}),
    ("POST", "/activelearning/random", {"json": []}),
    ("GET", f"/session/{LONG}", {}),
    ("PUT", "/session/?expiry=-9223372036854775809", {"files": {"files": ("a.png", b"x")}}),
    ("DELETE", f"/datastore/label?id={LONG}&tag=final", {}),
    ("POST", f"/api/active/labels/{BIG}", {"json": {"keep": True, "client_id": "a"}}),
    ("POST", f"/api/active/labels/-{BIG}", {"json": {"keep": True, "client_id": "a"}}),
    ("POST", "/batch/infer/nothing", {"json": {}}),
    ("PATCH", "/info/", {}),
    ("GET", "/api/images/ct/slice/9223372036854775808", {}),
]


@pytest.mark.parametrize(("method", "path", "more"), REQUESTS)
def test_it_is_refused_with_a_sentence(server: Server, method: str, path: str, more: dict[str, Any]) -> None:
    answer = requests.request(method, server.url + path, timeout=60, allow_redirects=False, **more)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    assert "Traceback" not in answer.text
    assert requests.get(f"{server.url}/info/", timeout=60).status_code == 200
