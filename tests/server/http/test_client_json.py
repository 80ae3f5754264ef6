"""JSON of clients, as texts and over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from running import Server
from segmed.server.http.client_json import MOST_BYTES, read_json, read_object
from segmed.server.http.errors import BadRequest

WRONG = [
    ("{", "not JSON"),
    ("", "not JSON"),
    (b"\xff\xfe{}", "not JSON"),
    ("[" * 400 + "]" * 400, "inside each other"),
    ("[" * 50_000 + "]" * 50_000, "inside each other"),
    ('{"a":' * 2_000 + "1" + "}" * 2_000, "inside each other"),
    ("[NaN]", "finite"),
    ("[-Infinity]", "finite"),
    ("[1e999]", "too large"),
    ("9" * 4_000, "4000 digits"),
    ("9" * 6_000, "6000 digits"),
    (str(2**63), "2^63"),
    (json.dumps({"client_id": "\ud800"}), "surrogate"),
    (json.dumps({"\udfff": 1}), "surrogate"),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_what_could_not_be_kept_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(BadRequest, match=told.replace("^", r"\^")) as caught:
        read_json(text, "The field params")
    assert str(caught.value).startswith("The field params ")


def test_large_texts_are_refused_before_they_are_read() -> None:
    with pytest.raises(BadRequest, match="more than 4 MiB") as caught:
        read_json(" " * (MOST_BYTES + 1))
    assert caught.value.status == 413


@pytest.mark.parametrize(
    "text", ['{"a": [1, -2.5e3, null, true, "Läsion \\ud83d\\ude00 腫瘍"]}', str(2**63 - 1), "[]"]
)
def test_the_rest_is_what_json_gives(text: str) -> None:
    assert read_json(text) == json.loads(text)
    assert read_json(text.encode()) == json.loads(text)


def test_an_object_is_an_object() -> None:
    assert read_object("", "The field params") == {}
    with pytest.raises(BadRequest, match="must be a JSON object"):
        read_object("[1]", "The field params")


@pytest.mark.parametrize("text", ["[" * 400 + "]" * 400, '{"client": "\ud800"}', '{"a": NaN}', "9" * 4_000])
@pytest.mark.parametrize(
    "path", ["/api/images/ct/prompt", "/train/segmed", "/batch/infer/segmed", "/activelearning/random"]
)
def test_no_endpoint_sees_it(server: Server, path: str, text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    answer = requests.post(
        f"{server.url}{path}", data=body, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.status_code == 400, answer.text
    assert "body of the request" in answer.json()["detail"]


@pytest.mark.parametrize("field", ["[" * 900 + "]" * 900, '{"client_id": "\\ud800"}', '{"client_id": NaN}'])
def test_nor_do_forms(server: Server, field: str) -> None:
    files: dict[str, Any] = {"label": ("a.nii.gz", b"x")}
    urls = [f"{server.url}/datastore/label?image=ct", f"{server.url}/infer/segmed?image=ct"]
    for method, url in zip(("PUT", "POST"), urls, strict=True):
        answer = requests.request(method, url, data={"params": field}, files=files, timeout=30)
        assert answer.status_code == 400, answer.text
        assert "field params" in answer.json()["detail"]


def test_bodies_are_counted_while_they_come(server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2**30:
            sent += 2**20
            yield b" " * 2**20

    try:
        answer = requests.post(
            f"{server.url}/api/images/ct/prompt",
            data=endless(),
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        assert answer.status_code == 413, answer.text
        assert "4 MiB" in answer.json()["detail"]
    except requests.ConnectionError:  # the server hung up while more was sent
        pass
    assert sent < 200 * 2**20
    assert requests.get(f"{server.url}/info/", timeout=30).status_code == 200
