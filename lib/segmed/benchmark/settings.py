"""What one job of a benchmark is to do: a row of a table, a seed, and how much of everything."""

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
    """How much of everything; what is None or 0 is not bounded.

    Attributes:
        steps: optimiser steps; None for the epochs.
        epochs: passes over the data; None for those of each recipe.
        batch: slices per step.
        patients: at most so many of each dataset, drawn by chance.
        slices: at most so many of each patient, evenly spaced.
        augment: change slices by chance in training.
        curve: test slices with an object for the curve of moved boxes; 0 draws none.
        points: of the grid of an oracle's clicks, per side.
    """

    steps: int | None = None
    epochs: int | None = None
    batch: int = 8
    patients: int = 0
    slices: int = 0
    augment: bool = False
    curve: int = 64
    points: int = 32

    def __post_init__(self) -> None:
        FinetuneConfig(steps=self.steps, epochs=self.epochs, batch=self.batch)  # refuses what it cannot do
        for name in ("patients", "slices", "curve"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 for all, or more.")
        if self.points < 1:
            raise ValueError(f"points is {self.points}; give at least 1. 32 is usual.")


@dataclass(frozen=True)
class BenchmarkJob:
    """What one worker does. Everything that changes numbers is part of `settings`.

    Attributes:
        table: name in `TABLES`.
        entry: row.
        seed: of the order of slices, of training boxes and of fresh weights.
        folders: of datasets by name.
        out: folder of the whole benchmark.
        backbone: SAM weights.
        image_size: side of the model input in px, None for that of the weights.
        backbones: weights of their own, by method.
        budget: how much of everything.
        slice_split: whether slices are split where that was published, and not patients.
        device: such as `cpu` or `cuda:0`.
        threads: of PyTorch, 0 leaves them.
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

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, beside the files."""
        method = find_method(self.entry.method)
        return {
            "table": self.table,
            "entry": {**asdict(self.entry), "settings": dict(self.entry.settings)},
            "seed": self.seed,
            "backbone": (self.backbones.get(method.name, "") if method.own_format else self.backbone)
            if method.needs_backbone
            else "",
            "image_size": self.image_size if method.needs_backbone else None,
            "budget": asdict(self.budget),
            "slice_split": self.slice_split and TABLES[self.table].slice_shares is not None,
            "datasets": sorted(self.folders),
        }

    @property
    def folder(self) -> Path:
        """Its own one: other settings have another."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]
        name = "".join(c if c.isalnum() else "-" for c in self.entry.name)
        return self.out / "jobs" / self.table / f"{name}-{self.seed}-{digest}"

    def result(self) -> dict[str, Any] | None:
        """What an earlier run left, None if there is nothing whole."""
        try:
            return dict(json.loads((self.folder / RESULT).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return None


def write_json(path: Path, content: Any) -> None:
    """Write beside, then put in place: a file is whole or not there."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    part.replace(path)
