#!/usr/bin/env python
"""What checks, login and audit cost a prompt, without HTTP and without a model.

    python scripts/bench_access.py

The same JSON prompt goes through an application that answers at once: bare, then behind the guard (host,
origin, body, JSON), then also behind the login (an access token), then also noted in an audit log, which is
flushed to the disk each time.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.server.access.audit import Audit, Audited
from segmed.server.access.gate import Gate
from segmed.server.access.users import Users
from segmed.server.http.guard import Guard
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROMPTS = 300
BODY = json.dumps(
    {"client": "x", "model": "segmed", "box": [9, 26, 7, 21, 2, 2], "foreground": [[5, 5, 2]] * 50}
).encode()


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def ask(app: ASGIApp, token: str) -> None:
    """One prompt. Raises RuntimeError if it is not answered with 200."""
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = {"host": "127.0.0.1", "content-type": "application/json", "authorization": f"Bearer {token}"}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/api/images/ct/prompt",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }
    await app(scope, receive, send)
    if status != 200:
        raise RuntimeError(f"The prompt was answered with {status}.")


def milliseconds(app: ASGIApp, token: str) -> tuple[float, float]:
    """Median and 95th percentile of one prompt."""

    async def run() -> list[float]:
        took = []
        for _ in range(PROMPTS):
            start = time.perf_counter()
            await ask(app, token)
            took.append(1000 * (time.perf_counter() - start))
        return took

    took = asyncio.run(run())
    return statistics.median(took), statistics.quantiles(took, n=20)[-1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        users = Users(Path(folder) / "users.json")
        users.add("anna", "annotator")
        token = users.make_token("anna")
        audited = Audited(answer, Audit(Path(folder) / "audit.jsonl"))
        stages: dict[str, ASGIApp] = {
            "bare": answer,
            "checks": Guard(answer),
            "checks and login": Guard(Gate(answer, users)),
            "checks, login and audit": Guard(Gate(audited, users)),
        }
        print("| | median, ms | 95 %, ms |\n|---|---|---|")
        for name, app in stages.items():
            median, most = milliseconds(app, token)
            print(f"| {name} | {median:.2f} | {most:.2f} |")


if __name__ == "__main__":
    main()
