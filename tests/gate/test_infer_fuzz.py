"""Thousands of odd requests to `/infer/{model}`: each is answered or refused, within seconds, and none by a
5xx.

SEGMED_INFER_REQUESTS sets how many; `scripts/release_gate.sh` sends thousands.
"""

from __future__ import annotations

import http.client
import os
from collections import Counter

import pytest
import requests
from infer_grammar import Sent, request
from running import Server

COUNT = int(os.environ.get("SEGMED_INFER_REQUESTS", "160"))
FIRST = int(os.environ.get("SEGMED_FIRST_INFER", "0"))
BATCH = 80
SECONDS = 30
SHAPE = (40, 36, 5)


def _send(server: Server, sent: Sent) -> tuple[int, bytes]:
    """Status and body; by http.client, which sends headers and bodies as they are."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SECONDS)
    try:
        connection.request("POST", sent.path, sent.body, sent.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, BATCH))
def test_odd_requests_are_answered_or_refused(attacked: Server, first: int) -> None:
    statuses: Counter[int] = Counter()
    wrong = []
    for seed in range(first, min(first + BATCH, FIRST + COUNT)):
        try:
            status, body = _send(attacked, request(seed, SHAPE))
        except (OSError, http.client.HTTPException) as error:
            wrong.append((seed, repr(error)))
            continue
        statuses[status] += 1
        if not (status == 200 or 400 <= status < 500) or b"Traceback" in body:
            wrong.append((seed, status, body[:200]))
    assert wrong == []
    assert statuses[200] and statuses[400], statuses  # the grammar makes both kinds
    assert requests.get(f"{attacked.url}/info/", timeout=SECONDS).status_code == 200
    assert attacked.left_behind() == []
