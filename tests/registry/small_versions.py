"""Versions of a model with a few numbers as weights, for the tests of the registry."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from segmed.evaluation.case_scores import CaseScore
from segmed.registry.model_version import DataFingerprint, ModelVersion, VersionRecord
from segmed.registry.versions import Registry

DATA = DataFingerprint(
    ("a", "b", "c"), {"a": "1" * 64, "b": "2" * 64}, {"train": ("a",), "validation": ("b",)}
)
FACTS = {"method": "lora", "backbone": "abc", "image_size": 96, "config": {"rank": 4}}


def scores(*dice: float) -> tuple[CaseScore, ...]:
    return tuple(CaseScore(f"case{n}", "liver", d, 2.0 if d else math.inf) for n, d in enumerate(dice))


def record(*dice: float, **more: object) -> VersionRecord:
    return replace(VersionRecord(scores(*dice), DATA, {"epochs": 3, "rates": {"": 1e-4}}), **more)  # type: ignore[arg-type]


def writer(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file({"a": torch.full((16,), value)}, folder / "weights.safetensors")
        (folder / "config.json").write_text(json.dumps(FACTS), encoding="utf-8")

    return write


def add(registry: Registry, value: float) -> str:
    return registry.add("lora", writer(value), record(0.5)).version


def served(registry: Registry) -> str | None:
    """What this registry and one that has seen nothing before say."""
    found, fresh = registry.served("lora"), Registry(registry.folder).served("lora")
    assert (found and found.version) == (fresh and fresh.version)
    return found.version if found else None


def cut_record(version: ModelVersion) -> None:
    path = version.folder / "metrics.json"
    path.write_text(path.read_text()[:-30])
