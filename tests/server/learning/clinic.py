"""A server whose users label cases of known truth, and which is restarted on the same studies and models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from running import Server, Start
from segmed.data.phantom import Phantom, make_phantom

NAMES = ("liver", "spleen")
CASES = [f"case {n}" for n in range(8)]
BROKEN = "case 8"


def phantom_of(n: int) -> Phantom:
    return make_phantom("MR", shape=(48, 48, 2), spacing=(7.0, 7.0, 40.0), seed=n)


def labels_of(n: int) -> np.ndarray:
    found = phantom_of(n).labels
    return np.where(found <= len(NAMES), found, 0).astype(np.uint8)


class Clinic:
    """A server that is started anew on the same studies and models."""

    def __init__(self, start: Start, studies: Path, registry: Path) -> None:
        self._start, self.studies, self.registry = start, studies, registry
        self.server = self.restart()

    def restart(self) -> Server:
        words = {
            "registry": str(self.registry),
            "models": "segmed",
            "labels": ",".join(NAMES),
            "strategy": "hybrid",
            "retrain_after": "3",
            "retrain_options": "epochs=1,epoch_steps=1,batch=8,learning_rate=0.001,device=cpu",
        }
        self.server = self._start(
            self.studies, *(w for key, value in words.items() for w in ("--conf", key, value))
        )
        return self.server

    def ask(self, method: str, path: str, **body: Any) -> requests.Response:
        return requests.request(method, f"{self.server.url}{path}", json=body or None, timeout=120)

    def next(self, user: str, strategy: str = "sequential", **more: Any) -> list[str]:
        answer = self.ask("POST", f"/activelearning/{strategy}", client_id=user, **more)
        assert answer.ok, answer.text
        return [sample["id"] for sample in answer.json().get("samples", [])]

    def give_back(self, user: str) -> None:
        """Leave the user with nothing."""
        for image in self.next(user, count=1):
            assert self.ask("POST", "/api/active/skip", image=image, client_id=user).ok

    def status(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/api/active/state").json())

    def retrainings(self) -> list[dict[str, Any]]:
        return list(self.ask("GET", "/api/active/retrainings").json())

    def labels(self, **query: str) -> list[dict[str, Any]]:
        return list(requests.get(f"{self.server.url}/api/active/labels", query, timeout=60).json())

    def submit(
        self, n: int, user: str, tag: str = "final", labels: np.ndarray | None = None, **more: float | str
    ) -> None:
        path = self.server.temporary / f"{n}-{tag}.nii.gz"
        nib.save(nib.Nifti1Image(labels_of(n) if labels is None else labels, phantom_of(n).affine), path)
        info = {
            "label_info": [{"name": name, "idx": k} for k, name in enumerate(NAMES, 1)],
            "client_id": user,
            **more,
        }
        with path.open("rb") as file:
            answer = requests.put(
                f"{self.server.url}/datastore/label?image={CASES[n]}&tag={tag}",
                data={"params": json.dumps(info)},
                files={"label": (path.name, file)},
                timeout=60,
            )
        path.unlink()
        assert answer.ok, answer.text

    def wait(self, until: Callable[[dict[str, Any]], Any], seconds: float = 900) -> dict[str, Any]:
        """The status as soon as it is as wanted."""
        deadline = time.monotonic() + seconds
        while not until(status := self.status()):
            assert time.monotonic() < deadline, (status, self.server.log.read_text(encoding="utf-8")[-3000:])
            time.sleep(0.3)
        return status
