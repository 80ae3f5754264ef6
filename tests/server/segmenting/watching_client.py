"""The requests of a client that works on one image, and understands answers in parts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
from running import Server


class Client:
    """Keeps a label map by what it is told, as the web page does."""

    def __init__(self, server: Server, name: str, image: str = "ct") -> None:
        self.name, self.url = name, f"{server.url}/api/images/{image}"
        self.meta = requests.get(self.url, timeout=60).json()
        self.labels = np.zeros(self.meta["shape"], np.uint8)
        self.lines: list[dict[str, Any]] = []

    def take(self, told: dict[str, Any]) -> dict[str, Any]:
        for change in told.get("changes", []):
            (p0, p1), (q0, q1) = change["i"], change["j"]
            values = np.frombuffer(zlib.decompress(base64.b64decode(change["data"])), np.uint8)
            view = np.moveaxis(self.labels, change.get("axis", 2), 2)
            view[p0:p1, q0:q1, change["k"]] = values.reshape(q1 - q0, p1 - p0).T
        return told

    def post(self, what: str, **body: Any) -> requests.Response:
        return requests.post(f"{self.url}/{what}", json={"client": self.name, **body}, timeout=120)

    def do(self, what: str, **body: Any) -> dict[str, Any]:
        answer = self.post(what, **body)
        assert answer.status_code == 200, answer.text[:500]
        return self.take(answer.json())

    def prompt(self, model: str = "segmed", label: str = "liver", **body: Any) -> dict[str, Any]:
        return self.do("prompt", model=model, label=label, **body)

    def watch(self, what: str, **body: Any) -> Iterator[dict[str, Any]]:
        """The lines of an answer in parts, each taken over."""
        headers = {"Accept": "application/x-ndjson"}
        body = {"client": self.name, "label": "liver", **body}
        with requests.post(
            f"{self.url}/{what}", json=body, headers=headers, stream=True, timeout=120
        ) as answer:
            assert answer.status_code == 200, answer.text[:500]
            assert answer.headers["X-Accel-Buffering"] == "no"  # for reverse proxies
            for line in answer.iter_lines():
                yield self.take(json.loads(line))

    def there(self) -> np.ndarray:
        """The label map as the server has it."""
        told = requests.get(f"{self.url}/work", params={"client": self.name}, timeout=60).json()
        other = object.__new__(Client)
        other.labels = np.zeros_like(self.labels)
        other.take(told)
        return other.labels
