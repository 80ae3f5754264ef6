"""The loop through a real server on loopback, asked as viewers ask it."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import psutil
import requests
from PIL import Image

from simulation.archive import Archive, Case
from simulation.loops import Setup

_USER = "annotator"
_PATIENCE = 1800.0  # s
_ENDED = ("promoted", "rejected", "failed")


class ServerLoop:
    """A server of its own, with studies and models below the folder; ended by `close`.

    Args:
        archive: its pool is written into the studies.
        folder: empty.
        setup: what is trained; versions cannot be forced.
        batch: labels that begin a retraining.
        scores: whether to wait until all images are scored before the next ones are asked for.
    """

    def __init__(self, archive: Archive, folder: Path, setup: Setup, batch: int, scores: bool = True) -> None:
        if setup.forced:
            raise ValueError(
                "A server serves what its gate lets through. Force versions in this process only."
            )
        self.archive, self.setup, self.scores = archive, setup, scores
        studies = folder / "studies"
        studies.mkdir(parents=True)
        for case in archive.pool:
            Image.fromarray(case.image).save(studies / f"{case.name}.png")
        conf = {
            "registry": str(folder / "registry"),
            "models": setup.method,
            "labels": ",".join(archive.classes.values()),
            "retrain_after": str(batch),
            "retrain_options": ",".join(f"{key}={value}" for key, value in setup.options.items()),
            "replay": str(setup.replay),
            "patient": r"^(.+)_\d+$",
            **({"image_size": str(setup.image_size)} if setup.image_size else {}),
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = [sys.executable, "-m", "segmed.cli", "serve", "--studies", str(studies), "--port", str(port)]
        words += [word for key, value in conf.items() for word in ("--conf", key, value)]
        temporary = folder / "tmp"
        temporary.mkdir()
        variables = {**os.environ, "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(words, stdout=self._log, stderr=subprocess.STDOUT, env=variables)
        self.url = f"http://127.0.0.1:{port}"
        self._jobs, self._version = 0, ""
        try:
            self._wait(lambda: self._up(), 300)
        except BaseException:
            self.close()
            raise

    def next(self, strategy: str, count: int) -> list[str]:
        if self.scores and self._version:
            self._wait(lambda: self.status()["scoring"]["left"] == 0)
        wish = {"strategy": strategy, "client_id": _USER, "count": count, "keep": False}
        told = self.ask("POST", "/api/active/next", json=wish).json()
        return [sample["id"] for sample in told.get("samples", [])]

    def submit(self, case: Case) -> None:
        info = {
            "label_info": [
                {"name": name, "idx": n} for n, name in enumerate(self.archive.classes.values(), 1)
            ],
            "client_id": _USER,
        }
        file = io.BytesIO()
        Image.fromarray(case.truth).save(file, "png")
        self.ask(
            "PUT",
            f"/datastore/label?image={case.name}",
            data={"params": json.dumps(info)},
            files={"label": ("label.png", file.getvalue())},
        )

    def retrain(self) -> str:
        def ended() -> bool:
            told = self.status()["retraining"]
            return told["jobs"] > self._jobs and told["state"] in _ENDED

        self._wait(ended)
        told = self.status()["retraining"]
        self._jobs = told["jobs"]
        if told["state"] == "promoted" and self.scores:  # scores are of another version from now on
            self._wait(lambda: self.status()["scoring"]["version"] not in ("", self._version))
            self._version = self.status()["scoring"]["version"]
        return str(told["state"])

    def predict(self, cases: Sequence[Case]) -> list[np.ndarray] | None:
        if self.setup.method not in self.ask("GET", "/info/").json()["models"]:
            return None
        return [self._predict(case) for case in cases]

    def _predict(self, case: Case) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(case.image).save(file, "png")
        answer = self.ask(
            "POST",
            f"/infer/{self.setup.method}?output=image",
            data={"params": json.dumps({"result_extension": ".nrrd", "client_id": _USER})},
            files={"file": ("picture.png", file.getvalue())},
        )
        with tempfile.NamedTemporaryFile(suffix=".nrrd") as target:
            target.write(answer.content)
            target.flush()
            return np.asarray(nrrd.read(target.name)[0])[:, :, 0].T

    def status(self) -> dict[str, Any]:
        """What the server tells of active learning."""
        return dict(self.ask("GET", "/api/active/state").json())

    def memory(self) -> dict[str, float]:
        """MiB that the server's process holds, its open files, its threads, and the processes it has
        begun."""
        process = psutil.Process(self.process.pid)
        return {
            "rss_mib": process.memory_info().rss / 2**20,
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "processes": len(process.children(recursive=True)),
        }

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """An answer of the server, which must be good."""
        answer = requests.request(method, f"{self.url}{path}", timeout=300, **more)
        if not answer.ok:
            raise RuntimeError(
                f"The server answers {answer.status_code} to {method} {path}: {answer.text[:300]}"
            )
        return answer

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        self._log.close()

    def _up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(
                f"The server has ended:\n{Path(self._log.name).read_text(encoding='utf-8')[-2000:]}"
            )
        try:
            return requests.get(f"{self.url}/info/", timeout=30).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def _wait(self, until: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"The server is stuck: {self.status()}")
            if self.process.poll() is not None:
                raise RuntimeError(f"The server has ended with {self.process.returncode}.")
            time.sleep(0.5)
