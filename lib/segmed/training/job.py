"""From labelled cases to a served model: split, train, compare with what is served, keep, and serve if it is better."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from segmed.data.augment import Augmentation
from segmed.data.checksums import common_folder
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import CaseScore
from segmed.methods import find_method
from segmed.methods.backbone import BackboneConfig
from segmed.methods.method import Method
from segmed.methods.trainable import TrainableSegmenter, config_from, load_trained, save_trained
from segmed.methods.trained_facts import read_facts
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.gate import GateConfig
from segmed.training.loop import TrainingResult, TrainingRun
from segmed.training.model_version import DataFingerprint, ModelVersion, VersionRecord
from segmed.training.processes import Processes
from segmed.training.progress import Progress
from segmed.training.registry import UNTRAINED, Registry
from segmed.training.validation import validate

logger = logging.getLogger(__name__)
_KEPT = ("curves.png", "validation.png", "log.jsonl")


@dataclass(frozen=True)
class JobConfig:
    """What a user may choose for a training.

    Attributes:
        settings: of the method's config, such as `rank` or `preset`; labels are those of the data.
        training: batch, epochs and the like.
        learning_rate: of the parts whose rate the recipe names last; the others keep their proportion. None for the
            recipe's.
        validation: share of the patients held out, at least one.
        augment: whether slices are changed by chance; nothing is kept of them between passes then.
        fresh: begin with the base weights even where a version with the same settings is served.
        gate: limits of the gate.
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
            raise ValueError(f"validation {self.validation} must be a share above 0 and below 1, such as 0.2.")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate {self.learning_rate} must be above 0 and at most 1, such as 1e-4.")


@dataclass(frozen=True)
class JobResult:
    """What came of it.

    Attributes:
        training: how it ended.
        version: what was kept, None if nothing was.
        before: scores of what was served when it began.
        message: for the user.
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

    The same patients are held out each time, however many are added, so that versions compare. A run that was
    interrupted with the same settings and data goes on; any other one in the folder is cleared away.

    Args:
        name: of the method; its versions go by it in the registry.
        backbone: base weights.
        data: labelled slices.
        registry: where versions are kept.
        folder: of the run.
        config: how to train.
        device: such as `cpu` or `cuda:0`.
        tell: called after each step.
        stop: asked after each step.
        note: kept among the settings of the version, such as what the training was begun for; JSON values.

    Raises:
        ValueError: the method does not learn, or the data do not do.
        FileNotFoundError: weights are not there.
        OSError: the disk is full; what was served still is.
    """
    config = config or JobConfig()
    method = find_method(name)
    data = data.readable()
    split = hold_out(data.patients, config.validation, config.training.seed)
    parts = {part: data.of(patients) for part, patients in split.items()}
    served = registry.served(name)
    candidate, version = build_trainable(method, backbone, config.settings, data, device)
    before = _scores_of_served(method, backbone, served, candidate, version, parts["validation"], config, device)
    parent = None
    if served and not config.fresh and _take_over(candidate, served, version):
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
        logger.info("A training of other settings or data is cleared away: %s", error)
        processes.from_first(lambda: shutil.rmtree(folder))
        run = TrainingRun(*arguments)
    result = run.run(tell, stop)
    if result.ended == "stopped" or not result.best_epoch:
        return JobResult(result, None, before, result.message)
    source = Path(backbone.source).name if method.needs_backbone else ""
    settings = {**_settings(config, candidate, source), **(note or {})}
    record = VersionRecord(result.scores, fingerprint_of(data, split), settings, parent)

    def write(target: Path) -> None:
        save_trained(candidate, target, version)
        for kept in _KEPT:
            if (folder / kept).is_file():
                shutil.copy(folder / kept, target / kept)

    kept = None
    if processes.first:
        kept = registry.decide(
            name, write, record, served.version if served else None, before, config.gate, _otherwise(method)
        )
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    verdict = kept.record.verdict.reason if kept and kept.record and kept.record.verdict else ""
    skipped = f" {len(data.skipped)} cases could not be used: {data.skipped[0].reason}" if data.skipped else ""
    return JobResult(result, kept, before, f"{result.message} {verdict}{skipped}".strip())


def hold_out(patients: Collection[str], share: float, seed: int) -> dict[str, tuple[str, ...]]:
    """Patients of `train` and `validation`; who is held out stays so when others are added.

    Raises:
        ValueError: fewer than two patients.
    """
    if len(patients) < 2:
        raise ValueError(
            f"There are {len(patients)} labelled cases; training needs at least two, one to learn from and one to "
            "check with. Submit more labels."
        )
    ranks = {p: int(hashlib.sha256(f"{seed} {p}".encode()).hexdigest(), 16) / 2**256 for p in patients}
    order = sorted(ranks, key=lambda p: ranks[p])
    count = min(max(sum(rank < share for rank in ranks.values()), 1), len(order) - 1)
    return {"train": tuple(sorted(order[count:])), "validation": tuple(sorted(order[:count]))}


def build_trainable(
    method: Method,
    backbone: BackboneConfig,
    settings: Mapping[str, Any],
    data: SliceDataset,
    device: str,
    seed: int = 0,
) -> tuple[TrainableSegmenter, str]:
    """A method with fresh weights on base weights of its own, and the version of these, "" where it needs none.

    Raises:
        ValueError: the method does not learn, needs weights and has none, or a setting that it does not know.
        FileNotFoundError: weights are not there.
    """
    training = method.training
    if training is None:
        raise ValueError(f"{method.name} does not learn. Train one of the methods that `segmed info` lists so.")
    source = backbone.source or method.weights
    if not method.needs_backbone and backbone.image_size:
        raise ValueError(f"{method.name} has no SAM weights to resize. Leave image_size out and set its input_size.")
    if method.needs_backbone and not source:
        raise ValueError(f"{method.name} needs SAM weights. Name them with --backbone or --conf backbone.")
    known = {f.name for f in fields(training.config)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{method.name} does not know {unknown[0]!r}. It takes {', '.join(sorted(known))}.")
    labels = {"labels": tuple(data.classes.values())} if "labels" in known else {}
    base, version = None, ""
    if method.needs_backbone:
        if method.read:
            base, version = method.read(source, backbone.image_size, torch.float32)
        else:
            from segmed.sam.weights import load_sam, weights_version

            base = load_sam(source, backbone.image_size)
            version = weights_version(base)
        base.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # new heads are drawn
        built = training.kind(base, training.config(**{**labels, **settings}), version)
    return built.to(device), version


def _scores_of_served(
    method: Method,
    backbone: BackboneConfig,
    served: ModelVersion | None,
    candidate: TrainableSegmenter,
    version: str,
    held_out: SliceDataset,
    config: JobConfig,
    device: str,
) -> tuple[CaseScore, ...]:
    """Of the served version on the same cases and prompts; where none fits, of what `_otherwise` says."""
    prompted = config.training.is_prompted(candidate.recipe)
    rival = candidate
    if served:
        try:
            settings = vars(config_from(type(candidate.config), read_facts(served.folder)["config"]))
            rival, _ = build_trainable(method, backbone, settings, held_out, device)
            load_trained(rival, served.folder, version)
        except (ValueError, FileNotFoundError) as error:
            logger.warning("The served version cannot be compared, %s is: %s", _otherwise(method), error)
            rival = candidate
    held_out = held_out.with_object() if prompted else held_out
    try:
        scores = validate(rival, held_out, prompted).scores
    except ValueError as error:  # it was trained for other structures
        logger.warning("The served version cannot be compared, %s is: %s", _otherwise(method), error)
        rival, scores = candidate, validate(candidate, held_out, prompted).scores
    if rival is not candidate or method.ready:
        return scores
    return tuple(replace(s, dice=float(not s.present), hd95=math.inf if s.present else 0.0) for s in scores)


def _otherwise(method: Method) -> str:
    """What a first version has to beat: new heads that nobody would use find something by chance."""
    return UNTRAINED if method.ready else "a model that finds nothing"


def _take_over(candidate: TrainableSegmenter, served: ModelVersion, version: str) -> bool:
    """Begin with the served weights if they are of the same settings."""
    try:
        load_trained(candidate, served.folder, version)
    except (ValueError, FileNotFoundError) as error:
        logger.info("Training begins with the base weights: %s", error)
        return False
    return True


def fingerprint_of(data: SliceDataset, split: Mapping[str, Collection[str]]) -> DataFingerprint:
    """What the slices of a dataset were, by the names of their images below the folder that holds them all."""
    root = common_folder(data)
    used = [data.volumes[n] for n in sorted({n for n, _ in data.slices})]
    named = [(volume.image.relative_to(root).as_posix(), volume) for volume in used]
    parts = {part: tuple(name for name, v in named if v.patient in who) for part, who in split.items()}
    return DataFingerprint.of({name: v.label for name, v in named}, parts)


def _settings(config: JobConfig, candidate: TrainableSegmenter, backbone: str) -> dict[str, Any]:
    training = {f.name: getattr(config.training, f.name) for f in fields(config.training) if f.name != "prompts"}
    return {
        **{k: v for k, v in training.items() if v is not None},
        "loss": candidate.recipe.loss,
        "rates": dict(candidate.recipe.rates),
        "backbone": backbone,
        "validation": config.validation,
        "augment": config.augment,
    }
