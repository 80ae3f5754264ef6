"""A client of a workspace over HTTP, as the web page is one, and what its requests are made of."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import requests
from running import Server  # type: ignore[import-not-found]
from scipy import ndimage
from segmed.evaluation.metrics import Overlap

K = 14


class Page:
    """A client that knows the label map by the changes it was told, and by nothing else."""

    def __init__(self, server: Server, client: str, image: str = "ct") -> None:
        self.server, self.client, self.image = server, client, image
        self.url = f"{server.url}/api/images/{image}"
        self.shape = requests.get(self.url, timeout=60).json()["shape"]
        self.labels = np.zeros(self.shape, np.uint8)
        self.told: dict[str, Any] = {}
        self.take(requests.get(f"{self.url}/work", params={"client": client}, timeout=60))

    def take(self, answer: requests.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text[:500]
        self.told = answer.json()
        for change in self.told["changes"]:
            (i0, i1), (j0, j1) = change["i"], change["j"]
            values = np.frombuffer(zlib.decompress(base64.b64decode(change["data"])), np.uint8)
            self.labels[i0:i1, j0:j1, change["k"]] = values.reshape(j1 - j0, i1 - i0).T
        return self.told

    def believed(self) -> dict[str, Any]:
        """The state of the work as the last answer told it."""
        return {"revision": self.told["revision"], "boot": self.told["boot"]}

    def post(self, what: str, **body: Any) -> requests.Response:
        return requests.post(f"{self.url}/{what}", json={"client": self.client, **body}, timeout=120)

    def do(self, what: str, **body: Any) -> dict[str, Any]:
        return self.take(self.post(what, **body))

    def prompt(self, label: str = "liver", model: str = "classical", **body: Any) -> dict[str, Any]:
        return self.do("prompt", model=model, label=label, **body)

    def there(self) -> np.ndarray:
        """The label map as the server has it."""
        again = Page(self.server, self.client, self.image)
        self.told = again.told
        return again.labels


def box_around(mask: np.ndarray, k: int = K) -> list[int]:
    i, j = np.nonzero(mask[:, :, k])
    return [int(i.min()), int(i.max()), int(j.min()), int(j.max()), k, k]


def middle_of(mask: np.ndarray, k: int = K) -> list[int]:
    depth = ndimage.distance_transform_edt(np.pad(mask[:, :, k], 1))[1:-1, 1:-1]
    i, j = np.unravel_index(depth.argmax(), depth.shape)
    return [int(i), int(j), k]


def dice_on(labels: np.ndarray, truth: np.ndarray, k: int = K) -> float:
    return Overlap.of(labels[:, :, k] == 1, truth[:, :, k]).dice()


def change_of(k: int, i: list[int], j: list[int], values: np.ndarray) -> dict[str, Any]:
    return {
        "k": k,
        "i": i,
        "j": j,
        "data": base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes())).decode(),
    }


def assert_refused(answer: requests.Response, *words: str, status: int = 400) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    told = answer.json()["detail"]
    assert isinstance(told, str)
    for word in words:
        assert word in told, told
