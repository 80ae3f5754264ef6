"""The settings of one job of a benchmark: a row of a table, a seed, and a budget."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segmed.benchmark.tables import TABLES, Entry
from segmed.methods import find_method
from segmed.sam.sources import EMBEDDED
from segmed.training.finetune_config import FinetuneConfig

RESULT, PROGRESS = "result.json", "progress.json"


@dataclass(frozen=True)
class Budget:
    """The limits of a job's data and training.

    Attributes:
        steps: Optimiser steps, or None to use the epochs.
        epochs: Passes over the data, or None for those of each recipe.
        batch: Slices per step, or None for those of each recipe.
        patients: Largest number of patients of each dataset, drawn at random; 0 for all.
        slices: Largest number of slices of each patient, evenly spaced; 0 for all.
        augment: Whether slices are changed at random in training, or None for the choice of each recipe.
        curve: Number of test slices with an object for the curve of moved boxes; 0 for no curve.
        points: Points per side of the grid of an oracle's clicks.
    """

    steps: int | None = None
    epochs: int | None = None
    batch: int | None = None
    patients: int = 0
    slices: int = 0
    augment: bool | None = None
    curve: int = 64
    points: int = 32

    def __post_init__(self) -> None:
        # Raises ValueError for values that are not allowed.
        FinetuneConfig(steps=self.steps, epochs=self.epochs, batch=self.batch or 1)
        for name in ("patients", "slices", "curve"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; give 0 for no limit, or a positive number."
                )
        if self.points < 1:
            raise ValueError(f"points is {self.points}; give at least 1, such as 32.")


@dataclass(frozen=True)
class BenchmarkJob:
    """A job for one worker. All settings that change the numbers are part of `settings`.

    Attributes:
        table: Name of the table in `TABLES`.
        entry: Row of the table.
        seed: Seed of the order of slices, the training boxes and the untrained weights.
        folders: Folders of datasets by name.
        out: Folder of the whole benchmark.
        backbone: SAM weights.
        image_size: Side of the model input in px, or None for that of the weights.
        backbones: Weights of methods with another architecture, by name of the method.
        budget: Limits of data and training.
        slice_split: Whether to split by slices instead of patients, where that was published.
        device: The device, such as `cpu` or `cuda:0`.
        threads: Number of PyTorch threads, or 0 for the default.
        files: Identity of the datasets, and of local files that settings name, by name; see `inputs`.
    """

    table: str
    entry: Entry
    seed: int
    folders: Mapping[str, str]
    out: Path
    backbone: str = EMBEDDED
    image_size: int | None = None
    backbones: Mapping[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    slice_split: bool = False
    device: str = "cpu"
    threads: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the numbers depend on."""
        method = find_method(self.entry.method)
        entry = {**asdict(self.entry), "settings": dict(self.entry.settings)}
        del entry["parent"]  # which changes the comparison, but no number
        return {
            "table": self.table,
            "entry": entry,
            "seed": self.seed,
            "backbone": (self.backbones.get(method.name, "") if method.own_format else self.backbone)
            if method.needs_backbone
            else "",
            "image_size": self.image_size if method.needs_backbone else None,
            "budget": asdict(self.budget),
            "slice_split": self.slice_split and TABLES[self.table].slice_shares is not None,
            "datasets": sorted(self.folders),
            "files": dict(self.files),
        }

    @property
    def folder(self) -> Path:
        """The folder of the job, which depends on its settings."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]
        name = "".join(c if c.isalnum() else "-" for c in self.entry.name)
        return self.out / "jobs" / self.table / f"{name}-{self.seed}-{digest}"

    def result(self) -> dict[str, Any] | None:
        """The result of an earlier run, or None if there is no complete one."""
        try:
            return dict(json.loads((self.folder / RESULT).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return None


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a temporary file and rename it, so that the file is never incomplete."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    part.replace(path)
