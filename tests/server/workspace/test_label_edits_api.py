"""Labels as a whole and proposed objects over HTTP."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import requests
from running import Server  # type: ignore[import-not-found]


def _square(k: int, first: int, last: int) -> dict[str, Any]:
    values = np.ones((last - first) ** 2, np.uint8).tobytes()
    data = base64.b64encode(zlib.compress(values)).decode()
    return {"k": k, "i": [first, last], "j": [first, last], "data": data}


def test_labels_are_changed_as_a_whole(server: Server) -> None:
    url, who = f"{server.url}/api/images/ct", {"client": "chips"}

    def post(what: str, **body: Any) -> requests.Response:
        return requests.post(f"{url}/{what}", json={**who, **body}, timeout=60)

    def label(action: str, name: str, **body: Any) -> dict[str, Any]:
        answer = post("labels", action=action, label=name, **body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    objects = [
        {"label": "cell 1", "changes": [_square(3, 2, 6)]},
        {"label": "细胞 🦠", "changes": [_square(3, 5, 8), _square(4, 5, 8)]},
    ]
    told = post("objects", objects=objects).json()
    assert told["voxels"] == {"cell 1": 15, "细胞 🦠": 18}
    assert told["labels"] == {"liver": 1, "spleen": 2, "cell 1": 3, "细胞 🦠": 4}
    assert label("recolour", "cell 1", colour="#0072B2")["colours"] == {"cell 1": "#0072b2"}
    assert label("rename", "cell 1", to="خلية")["labels"]["خلية"] == 3
    assert label("merge", "خلية", to="liver")["labels"] == {"liver": 1, "spleen": 2, "细胞 🦠": 4}
    assert label("delete", "spleen")["labels"] == {"liver": 1, "细胞 🦠": 4}
    answer = post("undo").json()
    assert answer["labels"]["spleen"] == 2 and answer["can_redo"]
    for body, words in (
        ({"action": "rename", "label": "liver"}, "needs the other name"),
        ({"action": "recolour", "label": "liver", "colour": "red"}, "colour"),
        ({"action": "merge", "label": "liver", "to": "heart"}, "no label heart"),
        ({"action": "explode", "label": "liver"}, "action"),
    ):
        refused = post("labels", **body)
        assert refused.status_code == 400 and words in refused.json()["detail"]
    stale = post("labels", action="delete", label="liver", revision=-5)
    assert stale.status_code == 409


def test_locked_labels_are_neither_cleared_painted_over_nor_deleted(server: Server) -> None:
    url, who = f"{server.url}/api/images/ct", {"client": "locks"}

    def post(what: str, **body: Any) -> requests.Response:
        return requests.post(f"{url}/{what}", json={**who, **body}, timeout=60)

    objects = [{"label": "liver", "changes": [_square(3, 2, 6)]}]
    before = post("objects", objects=objects).json()["revision"]
    over = {"label": "spleen", "changes": [_square(3, 4, 8)]}  # in the value of the liver
    for what, body in (
        ("clear", {}),
        ("paint", over),
        ("labels", {"action": "delete", "label": "liver"}),
        ("labels", {"action": "merge", "label": "spleen", "to": "liver"}),
    ):
        refused = post(what, locked=["liver"], **body)
        assert refused.status_code == 400 and "liver is locked" in refused.json()["detail"]
    assert requests.get(f"{url}/revision", params=who, timeout=60).json()["revision"] == before
    assert post("clear", locked=["spleen"]).json()["changes"]


def test_objects_on_a_slice_are_proposed(server: Server) -> None:
    url, who = f"{server.url}/api/images/ct", {"client": "proposals"}

    def ask(**body: Any) -> requests.Response:
        return requests.post(f"{url}/proposals", json={**who, "points": 4, **body}, timeout=300)

    found = ask(model="classical", k=14).json()["proposals"]
    assert found and [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    for one in found:
        (i0, i1), (j0, j1) = one["i"], one["j"]
        values = np.frombuffer(zlib.decompress(base64.b64decode(one["data"])), np.uint8)
        assert one["k"] == 14 and values.size == (i1 - i0) * (j1 - j0) and values.any()
    work = requests.get(f"{url}/work", params=who, timeout=60).json()
    assert work["changes"] == [] and not work["unsaved"]
    assert "slices 0 to 23" in ask(model="classical", k=24).json()["detail"]
    taken = [{"label": f"object {n}", "changes": [one]} for n, one in enumerate(found[:2], 1)]
    told = requests.post(f"{url}/objects", json={**who, "objects": taken}, timeout=60).json()
    assert sum(told["voxels"].values()) > 0 and told["can_undo"]
    assert requests.get(f"{server.url}/api/images", params=who, timeout=60).json()[0]["labelled_by"] == ""
