"""A clinic with studies, labels and models to report on, and the tables of a page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from safetensors.torch import save_file
from segmed.active.review.submission import LabelMap, read_submission
from segmed.active.store.clock import Reading
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.active.store.state import ActiveState
from segmed.active.store.study_files import StudyFiles
from segmed.data.phantom import make_phantom
from segmed.evaluation.case_scores import CaseScore
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from segmed.reports.report import Report, collect

DAY = 86400.0
NOON = time.mktime((2026, 3, 2, 12, 0, 0, 0, 0, -1))
EVIL = '<script>alert("x")</script>'


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> Reading:
        return Reading("one", self.now, self.now)


class Clinic:
    """Studies of phantoms with a state and a registry."""

    def __init__(self, root: Path) -> None:
        self.studies, self.clock = root / "ward 7", Clock()
        self.studies.mkdir()
        self.database = Database(self.studies / ".segmed", self.clock)
        self.state, self.log = ActiveState(self.database), LabelLog(self.database)
        self.registry = Registry(root / "models")
        self.objects: dict[str, dict[str, dict[str, object]]] = {}

    def image(self, image: str, seed: int = 0) -> np.ndarray:
        """Add an image; its true labels."""
        phantom = make_phantom("CT", shape=(40, 32, 6), spacing=(8.0, 8.0, 20.0), seed=seed)
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), self.studies / f"{image}.nii.gz")
        self.objects[image] = {"image": {"ext": ".nii.gz", "info": {}}, "labels": {}}
        self._write()
        return phantom.labels

    def save(self, image: str, tag: str, labels: np.ndarray, user: str, names: tuple[str, ...]) -> Path:
        file = self.studies / "labels" / tag / f"{image}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(labels, nib.load(self.studies / f"{image}.nii.gz").affine), file)  # type: ignore[attr-defined]
        info = {"label_info": [{"name": name} for name in names], "client_id": user}
        self.objects[image]["labels"][tag] = {"ext": ".nii.gz", "info": info}
        self._write()
        return file

    def label(
        self, image: str, user: str, prompts: int = 0, gap: float = 10.0, dice: float | None = None
    ) -> int:
        """Work on an image and submit a label without a file."""
        self.log.work(image, user)
        for _ in range(prompts):
            self.clock.now += gap
            self.log.work(image, user, 1, "segmed")
        agreement = None if dice is None else {"liver": dice}
        record = self.log.record(image, user, f"{image}{user}{self.clock.now}", {"liver": 10}, agreement)
        assert record is not None
        return record.id

    def version(self, value: float, dice: float, against: str | None, served: float) -> str:
        def scores(mean: float) -> tuple[CaseScore, ...]:
            return tuple(CaseScore(f"case{n}", "liver", mean, 2.5) for n in range(4))

        record = VersionRecord(scores(dice), DataFingerprint(("a", "b"), {}, {"train": ("a", "b")}))
        return self.registry.decide("lora", weights_writer(value), record, against, scores(served)).version

    def report(self) -> Report:
        return collect(self.database, StudyFiles.read(self.studies), self.registry, name=self.studies.name)

    def _write(self) -> None:
        facts = {"images_dir": ".", "labels_dir": "labels", "objects": self.objects}
        (self.studies / "datastore_v2.json").write_text(json.dumps(facts), encoding="utf-8")


def weights_writer(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file({"a": torch.full((4,), value)}, folder / "weights.safetensors")
        facts = {"method": "lora", "backbone": "abc", "image_size": 96, "config": {}}
        (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")

    return write


def rows_of(page: str, section: str) -> list[list[str]]:
    """Cells of all tables of a section, without tags."""
    part = page.split(f'<section id="{section}">')[1].split("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part, re.S)
    return [
        [" ".join(re.sub("<[^>]*>", " ", c).split()) for c in re.findall(r"<td.*?>(.*?)</td>", r, re.S)]
        for r in rows
    ]


NAMES = ("liver", "spleen", "kidney right", "kidney left", "aorta", "lesion")


def add_label(
    clinic: Clinic, image: str, user: str, final: np.ndarray, proposal: np.ndarray | None = None
) -> Path:
    file = clinic.save(image, "final", final, user, NAMES)
    first = None
    names = dict(enumerate(NAMES, 1))
    if proposal is not None:
        first = LabelMap(clinic.save(image, "original", proposal, "", NAMES), names)
    found = read_submission(LabelMap(file, names), first)
    clinic.log.record(image, user, found.checksum, found.sizes, found.agreement)
    return file
