"""Long requests: progress, partial masks, stopping, and the time limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import requests
from running import Server
from segmed.data.phantom import Phantom
from segmed.server.segmenting.jobs import Job, Jobs, Stopped
from segmed.server.workspace.patches import Patch
from watching_client import Client

KEY = ("", "reader", "ct")


def _around(mask: np.ndarray) -> list[int]:
    at = np.argwhere(mask)
    return [int(v) for pair in zip(at.min(0), at.max(0), strict=True) for v in pair]


@pytest.fixture(scope="module")
def box(phantom: Phantom) -> list[int]:
    """A box over the liver on all slices of the volume, so that the work lasts."""
    return [*_around(phantom.labels == 1)[:4], 0, phantom.labels.shape[2] - 1]


def _slow(box: list[int]) -> dict[str, Any]:
    """A prompt that takes several times as long as an answer waits before it comes in parts."""
    return {"model": "medsam_3d", "box": box, "refinement": "level set"}


def test_progress_and_partial_masks(client: Client, box: list[int]) -> None:
    before, seen = 0, 0
    for line in client.watch("prompt", **_slow(box)):
        if line["event"] == "progress":
            assert before <= line["done"] <= line["most"]
            assert line["most"] in (0, box[5] - box[4] + 1), "0 while the model is still being loaded"
            assert line["labels"].get("liver", 1) == 1
            before, seen = line["done"], seen + int((client.labels > 0).any())
    assert line["event"] == "answer"
    assert seen, "no partial mask came before the answer"
    assert line["stopped"] == ""
    assert client.labels.any()
    assert (client.labels == client.there()).all()


@pytest.mark.parametrize("keep", [True, False])
def test_a_stopped_request_keeps_or_drops_what_is_there(client: Client, box: list[int], keep: bool) -> None:
    stopped = False
    for line in client.watch("prompt", **_slow(box)):
        if line["event"] == "progress" and client.labels.any() and not stopped:
            assert client.post("stop", keep=keep).json() == {"stopped": 1}
            stopped = True
    assert stopped
    assert line["event"] == "answer"
    assert line["stopped"] == ("kept" if keep else "dropped")
    assert any(note.startswith("Stopped") for note in line["warnings"])
    assert (client.labels == client.there()).all()
    shown = np.flatnonzero(client.labels.any(axis=(0, 1)))
    if keep:
        assert 0 < len(shown) < box[5] - box[4] + 1
        client.do("undo")
    assert not client.labels.any()
    assert line["can_undo"] is keep
    assert client.post("stop").json() == {"stopped": 0}


def test_a_client_that_goes_away_finds_what_was_found(client: Client, box: list[int]) -> None:
    lines = client.watch("prompt", **_slow(box))
    for line in lines:
        if line["event"] == "progress" and client.labels.any():
            break
    lines.close()  # type: ignore[attr-defined]
    there = client.there()  # waits for the end of the request
    assert 0 < len(np.flatnonzero(there.any(axis=(0, 1)))) < box[5] - box[4] + 1


def test_errors_have_a_status_in_both_forms(client: Client, server: Server) -> None:
    body = {"client": client.name, "model": "segmed", "label": "liver", "box": [1, 2, 3]}
    for accept in ("*/*", "application/x-ndjson"):
        answer = requests.post(f"{client.url}/prompt", json=body, headers={"Accept": accept}, timeout=60)
        assert answer.status_code == 400
        assert "six finite numbers" in answer.json()["detail"]


def test_a_short_answer_in_parts_is_the_plain_answer(client: Client, box: list[int]) -> None:
    flat = [*box[:4], (box[4] + box[5]) // 2, (box[4] + box[5]) // 2]
    *_, line = client.watch("prompt", model="classical", box=flat)
    plain = client.prompt("classical", box=flat)
    assert line.keys() == plain.keys() | {"event"}
    assert plain["changes"] == []


# --- jobs ---


def test_a_job_tells_each_change_once() -> None:
    job = Job(watched=True)
    job.begin()
    patch = Patch.cut(3, *2 * (np.ones((4, 5), np.uint8),))
    assert patch is not None
    job.report(2, 8, [patch], {"liver": 1})
    news = job.news()
    assert (news["done"], news["most"], news["labels"]) == (2, 8, {"liver": 1})
    assert [change["k"] for change in news["changes"]] == [3]
    assert news["left"] == pytest.approx(3 * news["seconds"], abs=0.2)
    assert job.news()["changes"] == []


def test_jobs_of_one_user_and_image_are_stopped() -> None:
    jobs, mine, other = Jobs(), Job(), Job()
    with jobs.register(KEY, mine), jobs.register(("", "other", "ct"), other):
        assert jobs.stop(KEY, keep=False) == 1
        other.report(0, 1)
        with pytest.raises(Stopped, match="nothing was changed") as caught:
            mine.report(1, 2)
        assert not caught.value.keep
    assert jobs.stop(KEY, keep=True) == 0


def test_the_time_limit_is_told_in_a_sentence() -> None:
    job = Job(limit=1e-9)
    job.report(0, 10)  # it still waits for its turn
    job.begin()
    with pytest.raises(
        Stopped, match=r"longer than .* stopped after 4 of at most 10 slices.*time_limit"
    ) as caught:
        job.report(4, 10)
    assert caught.value.keep


def test_errors_amid_the_work_are_told_as_usual(client: Client, box: list[int]) -> None:
    """A request that waited for its turn meanwhile knows an older state than the server."""
    state = client.do("accept")
    lines = client.watch("prompt", **_slow(box))
    next(lines)
    late = client.watch("prompt", model="classical", box=box, revision=state["revision"], boot=state["boot"])
    try:
        waiting, *_, last = late
    except AssertionError as refused:  # the machine is so fast that nothing had to wait: a status of its own
        assert "has changed" in str(refused)
    else:
        assert (waiting["event"], waiting["most"], waiting["left"]) == ("progress", 0, None)
        assert (last["event"], last["status"]) == ("error", 409)
        assert "has changed" in last["detail"]
    *_, first = lines
    assert first["event"] == "answer"
