"""Training jobs: split labelled cases, train, compare with the served version, store, and serve if better."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from segmed.data.augment import Augmentation
from segmed.data.checksums import common_folder
from segmed.data.selection import missing_structures
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import CaseScore
from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.trainable import TrainableSegmenter, save_trained
from segmed.registry.gate import GateConfig
from segmed.registry.model_version import DataFingerprint, ModelVersion, VersionRecord
from segmed.registry.versions import Registry
from segmed.training.candidate import (
    build_trainable,
    first_rival,
    lost_structures,
    scores_of_served,
    take_over,
)
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.loop import TrainingResult, TrainingRun
from segmed.training.processes import Processes
from segmed.training.progress import Progress

logger = logging.getLogger(__name__)
_KEPT = ("curves.png", "validation.png", "log.jsonl")


@dataclass(frozen=True)
class JobConfig:
    """The settings of a training that users may choose.

    Attributes:
        settings: Settings of the method's config, such as `rank` or `preset`; its labels are those of the
            data.
        training: Batch size, epochs and similar settings.
        learning_rate: Learning rate of the parts with the longest prefix in the recipe; the others keep their
            ratio to it. None for that of the recipe.
        validation: Share of the patients held out for validation, at least one.
        augment: Whether slices are changed at random, which disables the embedding cache.
        fresh: Whether to start from the base weights even if a version with the same settings is served.
        gate: Limits of the gate.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    training: FinetuneConfig = field(default_factory=FinetuneConfig)
    learning_rate: float | None = None
    validation: float = 0.2
    augment: bool = False
    fresh: bool = False
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ValueError(
                f"validation is {self.validation}; give a share above 0 and below 1, such as 0.2."
            )
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"learning_rate is {self.learning_rate}; give a number above 0 and at most 1, such as 1e-4."
            )


@dataclass(frozen=True)
class JobResult:
    """The result of a training job.

    Attributes:
        training: The result of the training.
        version: The stored version, or None if nothing was stored.
        before: Scores of the version that was served at the start.
        message: A message for the user.
    """

    training: TrainingResult
    version: ModelVersion | None
    before: tuple[CaseScore, ...]
    message: str


def train_model(
    name: str,
    backbone: BackboneConfig,
    data: SliceDataset,
    registry: Registry,
    folder: Path,
    config: JobConfig | None = None,
    device: str = "cpu",
    tell: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    note: Mapping[str, Any] | None = None,
) -> JobResult:
    """Train a method and let the gate decide. Under torchrun all processes call it; the first one writes.

    The same patients are held out each time, however many are added, so that versions can be compared. Where
    the served version has learned from some of them, as with another seed, training starts from the base
    weights. A candidate that does not know all structures of the served version is not served. An
    interrupted run with the same settings and data is resumed; any other run in the folder is deleted.

    Args:
        name: Name of the method, which is also that of its versions in the registry.
        backbone: The base weights.
        data: The labelled slices.
        registry: The registry of versions.
        folder: Folder of the run.
        config: The settings, or None for their default values.
        device: The device, such as `cpu` or `cuda:0`.
        tell: Function called after each step.
        stop: Function called after each step that returns whether to stop.
        note: JSON values stored with the settings of the version, such as the reason for the training.

    Raises:
        ValueError: If the method cannot be trained, or the data are not sufficient.
        FileNotFoundError: If weights do not exist.
        OSError: If the disk is full; the served version stays in use.
    """
    config = config or JobConfig()
    method = find_method(name)
    data = data.readable()
    missing_structures(data)
    split = hold_out(data.patients, config.validation, config.training.seed)
    parts = {part: data.of(patients) for part, patients in split.items()}
    used = fingerprint_of(data, split)
    served = registry.served(name)
    known = set(used.split["validation"]) & _learned_from(registry, name, served.version if served else None)
    candidate, version = build_trainable(
        method, backbone, config.settings, data, device, config.training.seed
    )
    prompted = config.training.is_prompted(candidate.recipe)
    before = scores_of_served(
        method, backbone, served, candidate, version, parts["validation"], prompted, device
    )
    parent = None
    if served and not (config.fresh or known) and take_over(candidate, served, version):
        parent = served.version
    else:
        candidate.begin()
    recipe = candidate.recipe_for(config.training.batch)
    if config.learning_rate is not None:
        last = recipe.rates[max(recipe.rates, key=len)]
        recipe = replace(recipe, rates={k: v * config.learning_rate / last for k, v in recipe.rates.items()})
    candidate.recipe = recipe
    processes = Processes.current()
    augment = Augmentation(lateralised=data.lateralised) if config.augment else None
    facts = {"start": parent or "base weights"}
    arguments = (candidate, parts["train"], parts["validation"], config.training, folder, augment, facts)
    try:
        run = TrainingRun(*arguments)
    except ValueError as error:
        if not processes.from_first((folder / "checkpoint.pt").is_file):
            raise
        logger.info("A run with other settings or data is deleted: %s", error)
        processes.from_first(lambda: shutil.rmtree(folder))
        run = TrainingRun(*arguments)
    result = run.run(tell, stop)
    if result.ended in ("stopped", "background only") or not result.best_epoch:
        return JobResult(result, None, before, result.message)
    source = Path(backbone.source).name if method.needs_backbone else ""
    settings = {**_settings(config, candidate, source), **(note or {})}
    record = VersionRecord(result.scores, used, settings, parent)

    def write(target: Path) -> None:
        save_trained(candidate, target, version)
        for kept in _KEPT:
            if (folder / kept).is_file():
                shutil.copy(folder / kept, target / kept)

    kept = None
    if processes.first:
        now = served.version if served else None
        lost = lost_structures(candidate, served) if served else ()
        kept = registry.decide(name, write, record, now, before, config.gate, first_rival(candidate), lost)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    notes = [result.message]
    if known and served:
        notes.append(
            f"It started from the base weights, and the served version {served.version} has an advantage in "
            f"the comparison, because that has learned from {len(known)} of the held-out images. Keep --seed "
            "and --validation to avoid this."
        )
    verdict = kept.record.verdict.reason if kept and kept.record and kept.record.verdict else ""
    notes.append(verdict)
    if data.skipped:
        notes.append(f"{len(data.skipped)} cases could not be used: {data.skipped[0].reason}")
    return JobResult(result, kept, before, " ".join(filter(None, notes)))


def _learned_from(registry: Registry, name: str, version: str | None) -> set[str]:
    """Images that a version, or one that it started from, learned from, as far as records tell."""
    records = {one.version: one.record for one in registry.versions(name)}
    found: set[str] = set()
    while version and (record := records.get(version)):
        found |= set(record.data.split.get("train", ()))
        version = record.parent
    return found


def hold_out(patients: Collection[str], share: float, seed: int) -> dict[str, tuple[str, ...]]:
    """Split patients into `train` and `validation`; held-out patients stay held out when others are added.

    Among so few patients that none, or each of them, would be held out, one is moved; it can be another one
    when patients are added.

    Raises:
        ValueError: If there are fewer than two patients.
    """
    # Each patient has a fixed rank in [0, 1) from a hash; those with a rank below `share` are held out.
    if len(patients) < 2:
        raise ValueError(
            f"There are {len(patients)} labelled cases; training needs at least two, one to learn from and "
            "one to check with. Submit more labels."
        )
    ranks = {p: int(hashlib.sha256(f"{seed} {p}".encode()).hexdigest(), 16) / 2**256 for p in patients}
    order = sorted(ranks, key=lambda p: ranks[p])
    count = min(max(sum(rank < share for rank in ranks.values()), 1), len(order) - 1)
    return {"train": tuple(sorted(order[count:])), "validation": tuple(sorted(order[:count]))}


def fingerprint_of(data: SliceDataset, split: Mapping[str, Collection[str]]) -> DataFingerprint:
    """The fingerprint of a dataset, with the names of images relative to their common folder.

    A DICOM series has its id, because its folder may be a temporary one.
    """
    root = common_folder(data)
    used = [data.volumes[n] for n in sorted({n for n, _ in data.slices})]
    named = [
        (v.image_id if v.image_id and v.image.is_dir() else v.image.relative_to(root).as_posix(), v)
        for v in used
    ]
    parts = {part: tuple(name for name, v in named if v.patient in who) for part, who in split.items()}
    return DataFingerprint.of({name: v.label for name, v in named}, parts)


def _settings(config: JobConfig, candidate: TrainableSegmenter, backbone: str) -> dict[str, Any]:
    training = {
        f.name: getattr(config.training, f.name) for f in fields(config.training) if f.name != "prompts"
    }
    return {
        **{k: v for k, v in training.items() if v is not None},
        "loss": candidate.recipe.loss,
        "rates": dict(candidate.recipe.rates),
        "backbone": backbone,
        "validation": config.validation,
        "augment": config.augment,
    }
