"""Active learning without a server around it, for the tests of its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monailabel.datastore.local import LocalDatastore
from segmed.registry.versions import Registry
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine
from segmed.server.learning.learning import ActiveLearning


class Practice:
    """Active learning without a server, on images of a bright box; nothing goes on behind the test."""

    def __init__(self, folder: Path, images: int, **conf: str) -> None:
        self.folder, self.studies = folder, folder / "studies"
        self.studies.mkdir()
        self.truth = np.zeros((40, 40, 3), np.uint8)
        self.truth[8:25, 10:30] = 1
        for n in range(images):
            self.add(f"i{n}")
        self.store = LocalDatastore(str(self.studies), extensions=["*.nii.gz"])
        self.learning = self.restart(**conf)

    def restart(self, **conf: str) -> ActiveLearning:
        settings = ServerSettings.from_conf({"models": "classical", "labels": "organ", **conf})
        engine = Engine(settings, Registry(self.folder / "registry"))
        self.learning = ActiveLearning(engine, str(self.studies), lambda: self.store, lambda name: None)  # type: ignore[arg-type, return-value]
        return self.learning

    def add(self, name: str) -> None:
        grey = np.where(self.truth, 200, 40) + np.random.default_rng(len(name)).integers(
            0, 20, self.truth.shape
        )
        nib.save(nib.Nifti1Image(grey.astype(np.int16), np.eye(4)), self.studies / f"{name}.nii.gz")

    def submit(self, n: int, labels: np.ndarray, user: str = "ann", **info: Any) -> None:
        nib.save(nib.Nifti1Image(labels, np.eye(4)), self.folder / "label.nii.gz")
        self.store.save_label(
            f"i{n}", str(self.folder / "label.nii.gz"), "final", {"client_id": user, **info}
        )
        self.learning.submitted(f"i{n}", user)
        self.learning.tick()

    def next(self, user: str, strategy: str = "hybrid", count: int = 1) -> list[str]:
        return [p.image for p in self.learning.next(strategy, user, count, False)]


def wait_until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
