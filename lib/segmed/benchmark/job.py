"""One job of a benchmark: a row of a table with one seed, from data on disk to a file of counts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segmed.benchmark.measure import Measured, Question, extremes, measure, measure_boxes
from segmed.benchmark.tables import TABLES, Elsewhere, Entry, Table
from segmed.data.augment import Augmentation
from segmed.data.catalogue import load_dataset
from segmed.data.slices import SliceDataset
from segmed.data.split import Split, split_patients
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.segmentation_scores import ImageScore
from segmed.methods.loading import BackboneConfig, Loader, find_method, missing_weights
from segmed.methods.segmenter import Method, Segmenter
from segmed.methods.trainable import TrainableSegmenter
from segmed.sam.precision import prepare_encoder
from segmed.sam.weights import EMBEDDED
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import build_trainable
from segmed.training.loop import TrainingResult, TrainingRun
from segmed.training.progress import Progress

logger = logging.getLogger(__name__)
RESULT, PROGRESS = "result.json", "progress.json"
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3)
_TELL_SECONDS = 0.5
_SPLIT_SEED = 0  # one split for all methods and seeds, so that they compare


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
class Job:
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
            "backbone": (self.backbones.get(method.name, "") if method.read else self.backbone)
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


def run_job(job: Job, stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Do the job, or read what an earlier run has made of it. A training that was interrupted goes on.

    Args:
        job: what to do.
        stop: asked after each training step.

    Returns:
        As in its `result.json`; or `error`, a sentence, if it cannot be done here. Errors are not kept: the next run
        tries again.
    """
    done = job.result()
    if done is not None:
        return done
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        if job.threads:
            torch.set_num_threads(job.threads)
        result = _measured(job, stop)
    except Exception as error:  # one method must not end the others
        (job.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        known = isinstance(error, ValueError | OSError | ImportError | NotImplementedError)
        return {"settings": job.settings, "error": f"{'' if known else type(error).__name__ + ': '}{error}"}
    write_json(job.folder / RESULT, result)
    (job.folder / "error.txt").unlink(missing_ok=True)
    (job.folder / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(job.folder / "run", ignore_errors=True)
    return result


def write_json(path: Path, content: Any) -> None:
    """Write beside, then put in place: a file is whole or not there."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    part.replace(path)


def open_parts(table: Table, job: Job) -> tuple[tuple[SliceDataset, SliceDataset, SliceDataset], str]:
    """Slices to learn from, to choose by and to test on, and how they were dealt out, for people.

    Raises:
        FileNotFoundError: the dataset, or a file of it, is not there.
        ValueError: its files or labels are not those that the loader knows, or there are too few patients.
    """
    data = load_dataset(table.dataset, job.folders[table.dataset], **table.options)
    data = _thinned(data, job.budget).readable()
    how, here = "by patients", set(data.patients)
    published = data.published
    parts = [published.train, published.validation, published.test] if published else []
    parts = [tuple(name for name in part if name in here) for part in parts]
    if job.slice_split and table.slice_shares:
        data, how = _slices_as_patients(data), "by slices, whosever they are, as published"
        split = split_patients(data.patients, _SPLIT_SEED, *table.slice_shares)
    elif parts and all(parts):
        how = "as the dataset's authors did"
        split = Split(parts[0], parts[1], parts[2], _SPLIT_SEED)
    else:
        split = split_patients(data.patients, _SPLIT_SEED, *table.shares)
    return (data.of(split.train), data.of(split.validation), data.of(split.test)), how


def weights_text(method: Method, job: Job, trains: bool) -> str:
    """What a row began from, for people."""
    if not method.needs_backbone:
        pretrained = job.entry.settings.get("pretrained")
        return "an encoder that knows ImageNet" if pretrained else "random weights" if trains else "no weights"
    source = str(job.settings["backbone"] or method.weights)
    if source == EMBEDDED:
        return "segmed-tiny, which has seen drawn pictures only"
    return Path(source).name if Path(source).exists() else source


def _measured(job: Job, stop: Callable[[], bool] | None) -> dict[str, Any]:
    table, entry, method = TABLES[job.table], job.entry, find_method(job.entry.method)
    tell = _Teller(job.folder / PROGRESS)
    (train, validation, test), how = open_parts(table, job)
    backbone = _backbone(method, job)
    begun = time.perf_counter()
    training: TrainingResult | None = None
    resumed = 0
    if entry.train:
        candidate = _candidate(method, backbone, job, train)
        training, resumed = _trained(candidate, train, validation, job, tell, stop)
        total, wanted = sum(p.numel() for p in candidate.parameters()), set(candidate.trained_names())
        trainable = sum(p.numel() for name, p in candidate.named_parameters() if name in wanted)
        assert method.training is not None
        segmenter: Segmenter = method.training.finish(candidate.eval())
        if method.needs_backbone:
            model: Any = segmenter.model
            model.vision_encoder = prepare_encoder(model.vision_encoder, torch.device(job.device), "fp32")
    else:
        labels = tuple(train.classes.values())
        segmenter = Loader().get(entry.method, backbone, job.device, labels=labels)
        total, trainable = sum(p.numel() for p in segmenter.parameters()), 0
    trained_seconds = time.perf_counter() - begun
    result: dict[str, Any] = {
        "settings": job.settings,
        "weights": weights_text(method, job, entry.train),
        "parameters": total,
        "trainable": trainable,
        "steps": training.step if training else 0,
        "training": training.message if training else "not trained here",
        "resumed_at_step": resumed,
        "train_seconds": trained_seconds,
        "split": how,
        "unit": test.unit,
        "classes": {str(value): name for value, name in test.classes.items()},
        "patients": [len(part.patients) for part in (train, validation, test)],
        "slices": [len(part) for part in (train, validation, test)],
        "skipped": [item.reason for item in test.skipped],
    }
    if entry.protocol == "detection":
        return {**result, "boxes": asdict(measure_boxes(segmenter, test, job.budget.batch))}
    question = _question(job)
    main = measure(segmenter, test, question, lambda share: tell(0.8 + 0.1 * share, "testing"))
    picture, dice = extremes(segmenter, test, main, question)
    Image.fromarray(picture).save(job.folder / "cases.png")
    sets = {"": _packed(main)}
    for size in table.sizes if entry.protocol in ("box", "classes") else ():
        sets[f"@{size}"] = _packed(measure(segmenter, test, replace(question, size=size)))
    for other in table.elsewhere:
        if other.dataset in job.folders:
            sets[f">{other.dataset}"] = _packed(_measured_elsewhere(segmenter, other, question, test, job))
    tell(0.95, "boxes")
    return {
        **result,
        "sets": sets,
        "seconds": main.seconds,
        "model_seconds": main.model_seconds,
        "curve": _curve(segmenter, test, question, job.budget.curve) if entry.protocol == "box" else {},
        "cases": dice,
    }


def _candidate(method: Method, backbone: BackboneConfig, job: Job, train: SliceDataset) -> TrainableSegmenter:
    candidate, _ = build_trainable(method, backbone, job.entry.settings, train, job.device, job.seed)
    candidate.begin()
    candidate.recipe = candidate.recipe_for(job.budget.batch)
    return candidate


def _trained(
    candidate: TrainableSegmenter,
    train: SliceDataset,
    validation: SliceDataset,
    job: Job,
    tell: _Teller,
    stop: Callable[[], bool] | None,
) -> tuple[TrainingResult, int]:
    """How the training ended, and the step from which it went on."""
    budget = job.budget
    prompted = None if job.entry.protocol == "detection" else job.entry.protocol == "box"
    config = FinetuneConfig(budget.steps, budget.epochs, budget.batch, job.seed, prompted=prompted)
    augment = Augmentation(lateralised=train.lateralised) if budget.augment else None
    arguments = (candidate, train, validation, config, job.folder / "run", augment)
    try:
        run = TrainingRun(*arguments)
    except ValueError as error:
        if not (job.folder / "run" / "checkpoint.pt").is_file():
            raise
        logger.info("A training of other data is cleared away: %s", error)
        shutil.rmtree(job.folder / "run")
        run = TrainingRun(*arguments)
    first = run.training.step

    def told(progress: Progress) -> None:
        tell(0.8 * progress.step / progress.steps, f"training, step {progress.step} of {progress.steps}")

    result = run.run(told, stop)
    if result.ended == "stopped":
        raise ValueError(f"{result.message} Give the same command again to go on.")
    return result, first


def _backbone(method: Method, job: Job) -> BackboneConfig:
    if not method.needs_backbone:
        return BackboneConfig()
    source = str(job.settings["backbone"])
    if not source and not method.weights:
        raise ValueError(missing_weights(method))
    return BackboneConfig(source, job.image_size, "fp32")


def _question(job: Job) -> Question:
    proposals = str(job.entry.settings.get("proposals", "published"))
    return Question(job.entry.protocol, batch=job.budget.batch, proposals=proposals, points=job.budget.points)


def _measured_elsewhere(
    segmenter: Segmenter, other: Elsewhere, question: Question, test: SliceDataset, job: Job
) -> Measured:
    data = load_dataset(other.dataset, job.folders[other.dataset], **other.options)
    data = _thinned(data, job.budget).readable()
    ours = set(test.classes.values())
    names = {v: n if other.labels is None else other.labels.get(n) for v, n in data.classes.items()}
    classes = {value: name for value, name in names.items() if name in ours}
    if not classes:
        raise ValueError(
            f"{other.dataset} has none of the classes {', '.join(sorted(ours))}; its own are "
            f"{', '.join(data.classes.values())}. Name which stands for which in the table."
        )
    return measure(segmenter, data, replace(question, classes={v: str(n) for v, n in classes.items()}))


def _curve(segmenter: Segmenter, test: SliceDataset, question: Question, most: int) -> dict[str, float]:
    """Mean Dice by how far the sides of boxes are moved, on slices with an object, evenly spaced."""
    if not most:
        return {}
    shown = test.with_object()
    places = np.unique(np.linspace(0, len(shown) - 1, min(most, len(shown))).round().astype(int))
    shown = shown.picked([shown.slices[n] for n in places])
    curve = {}
    for jitter in CURVE:
        scores = measure(segmenter, shown, replace(question, jitter=jitter)).scores
        curve[str(jitter)] = float(np.mean([s.overlap.dice() for s in scores if s.has_truth]))
    return curve


def _thinned(data: SliceDataset, budget: Budget) -> SliceDataset:
    if 0 < budget.patients < len(data.patients):
        order = np.random.default_rng(_SPLIT_SEED).permutation(data.patients).tolist()
        data = data.of(order[: budget.patients])
    return data.thinned(budget.slices) if budget.slices else data


def _slices_as_patients(data: SliceDataset) -> SliceDataset:
    """Each slice a patient of its own, as in splits that do not care whose slices they are."""
    volumes = [
        replace(data.volumes[n], patient=f"{data.volumes[n].patient} {place}")
        for place, (n, _) in enumerate(data.slices)
    ]
    slices = [(place, k) for place, (_, k) in enumerate(data.slices)]
    return SliceDataset(volumes, data.classes, data.unit, data.binary, slices, skipped=data.skipped)


def _packed(measured: Measured) -> list[list[Any]]:
    """Slice, label, tp, fp, fn, tn and HD95 of each score; None for what has no distance, "inf" for a missed one."""
    rows = []
    for number, score in zip(measured.slices, measured.scores, strict=True):
        distance = None if math.isnan(score.hd95) else "inf" if math.isinf(score.hd95) else round(score.hd95, 4)
        rows.append([number, score.label, *(getattr(score.overlap, f.name) for f in fields(Overlap)), distance])
    return rows


def unpacked(rows: Sequence[Sequence[Any]]) -> list[ImageScore]:
    """Scores out of a file of results."""
    return [
        ImageScore(Overlap(*row[2:6]), math.nan if row[6] is None else float(row[6]), str(row[0]), int(row[1]))
        for row in rows
    ]


class _Teller:
    """Writes now and then how far a job is, for the one who waits for it."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, -math.inf
        self(0.0, "reading")

    def __call__(self, share: float, what: str) -> None:
        now = time.monotonic()
        if now - self._last >= _TELL_SECONDS:
            self._last = now
            write_json(self._path, {"pid": os.getpid(), "share": share, "what": what})
