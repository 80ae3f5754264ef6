"""One client that asks without waiting is told so; others are served."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from running import Server
from segmed.server.http.errors import BadRequest
from segmed.server.http.turns import Turns


def test_requests_are_counted_by_client_and_image() -> None:
    turns = Turns(per_image=2, per_client=3)
    with turns.take("a", "x"), turns.take("a", "x"):
        with pytest.raises(BadRequest) as caught, turns.take("a", "x"):
            pass
        assert caught.value.status == 429
        with turns.take("b", "x"), turns.take("a", "y"), pytest.raises(BadRequest), turns.take("a", "z"):
            pass
    with pytest.raises(RuntimeError), turns.take("a", "x"):
        raise RuntimeError
    assert not turns._count


def test_a_burst_of_one_client_leaves_room_for_another(server: Server) -> None:
    def ask(client: str) -> requests.Response:
        params = {"roi": [20, 50, 20, 60, 0, 0], "client_id": client}
        url = f"{server.url}/infer/classical_3d?image=ct&output=image"
        return requests.post(url, data={"params": json.dumps(params)}, timeout=300)

    with ThreadPoolExecutor(45) as pool:
        burst = [pool.submit(ask, "hasty") for _ in range(44)]
        other = pool.submit(ask, "patient").result()
    answers = [one.result() for one in burst]
    assert other.status_code == 200
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert "ask again" in refused.json()["detail"]
    assert ask("hasty").status_code == 200
