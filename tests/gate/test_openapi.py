"""Requests made from the server's own description of its interface, right and wrong ones: no 5xx, no silence.

SEGMED_OPENAPI_EXAMPLES sets how many for each endpoint; `scripts/release_gate.sh` sends hundreds.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from running import Server
from schemathesis import GenerationMode

EXAMPLES = int(os.environ.get("SEGMED_OPENAPI_EXAMPLES", "3"))
FIRST = int(os.environ.get("SEGMED_OPENAPI_SEED", "0"))
SECONDS = 30
# what there is, without which nearly all requests would end at an unknown name
KNOWN = {"image": "ct", "label": "ct", "id": "ct", "tag": "final", "model": "classical", "strategy": "random"}


def _campaign(operation: Any, attacked: Server) -> None:
    """Raises AssertionError, by Hypothesis with the smallest request that does it."""

    @seed(FIRST)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate] if EXAMPLES < 10 else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)),
        known=st.booleans(),
    )
    def run(case: Any, known: bool) -> None:
        if known:
            for names in (case.path_parameters, case.query):
                names.update({key: KNOWN[key] for key in KNOWN.keys() & names.keys()} if names else {})
        try:
            answer = case.call(base_url=attacked.url, timeout=SECONDS)
        except (requests.ReadTimeout, requests.ConnectionError) as error:
            raise AssertionError(f"{type(error).__name__}: {case.as_curl_command()}") from None
        told = answer.content[:300]
        fine = answer.status_code < 500 or answer.status_code in (503, 507)
        assert fine and b"Traceback" not in told, (answer.status_code, told, case.as_curl_command())

    run()


def test_what_the_description_allows_is_answered(attacked: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{attacked.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {"/train/{model}", "/batch/infer/{model}", "/infer/{model}"} <= {
        operation.path for operation in operations
    }
    wrong = []
    for operation in operations:
        try:
            _campaign(operation, attacked)
        except AssertionError as error:
            wrong.append(f"{operation.label}: {error}")
    if wrong:
        pytest.fail("\n".join(wrong))
    assert requests.get(f"{attacked.url}/info/", timeout=SECONDS).status_code == 200
