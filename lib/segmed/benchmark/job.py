"""One job of a benchmark: training and testing of a row of a table with one seed."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segmed.benchmark.inputs import weights_text
from segmed.benchmark.measure import EvalProtocol, Measured, extremes, measure, measure_boxes
from segmed.benchmark.packing import packed
from segmed.benchmark.parts import open_parts, thinned
from segmed.benchmark.settings import PROGRESS, RESULT, BenchmarkJob, write_json
from segmed.benchmark.tables import TABLES, ExternalTest
from segmed.data.augment import Augmentation
from segmed.data.datasets.catalogue import load_dataset
from segmed.data.slices import SliceDataset
from segmed.inference.loading import Loader
from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig, missing_weights
from segmed.methods.base.method import Method
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.sam.cpu.precision import prepare_encoder
from segmed.training.candidate import build_trainable
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.loop import TrainingResult, TrainingRun
from segmed.training.progress import Progress

logger = logging.getLogger(__name__)
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3)  # largest moves of the boxes' sides, as shares of the side
_TELL_SECONDS = 0.5  # least time between two reports of progress


def run_job(job: BenchmarkJob, stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Run a job, or read the result of an earlier run; an interrupted training is resumed.

    Args:
        job: The job.
        stop: Function called after each training step that returns whether to stop.

    Returns:
        The content of its `result.json`, or a dictionary with an `error`, a sentence, if the job failed.
        Errors are not stored, so that the next run tries again.
    """
    done = job.result()
    if done is not None:
        return done
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        if job.threads:
            torch.set_num_threads(job.threads)
        result = _measured(job, stop)
    except Exception as error:  # an error of one method must not end the others
        (job.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        known = isinstance(error, ValueError | OSError | ImportError | NotImplementedError)
        return {"settings": job.settings, "error": f"{'' if known else type(error).__name__ + ': '}{error}"}
    write_json(job.folder / RESULT, result)
    (job.folder / "error.txt").unlink(missing_ok=True)
    (job.folder / PROGRESS).unlink(missing_ok=True)
    for folder in ("run", "prompter"):
        shutil.rmtree(job.folder / folder, ignore_errors=True)
    return result


def _measured(job: BenchmarkJob, stop: Callable[[], bool] | None) -> dict[str, Any]:
    table, entry, method = TABLES[job.table], job.entry, find_method(job.entry.method)
    tell = _Teller(job.folder / PROGRESS)
    (train, validation, test), how = open_parts(table, job)
    backbone = _backbone(method, job)
    start = time.perf_counter()
    training: TrainingResult | None = None
    resumed = 0
    if entry.train:
        candidate = _candidate(method, backbone, job, train)
        if entry.tunes_prompter:
            _tune_prompter(candidate, train, validation, job, tell, stop)
        training, resumed = _trained(candidate, train, validation, job, tell, stop)
        total, wanted = sum(p.numel() for p in candidate.parameters()), set(candidate.trained_names())
        trainable = sum(p.numel() for name, p in candidate.named_parameters() if name in wanted)
        assert method.training is not None
        segmenter: Segmenter = method.training.for_inference(candidate.eval())
        if method.needs_backbone and not method.own_format:
            model: Any = segmenter.model
            model.vision_encoder = prepare_encoder(model.vision_encoder, torch.device(job.device), "fp32")
    else:
        labels = tuple(train.classes.values())
        segmenter = Loader().get(entry.method, backbone, job.device, labels=labels)
        total, trainable = sum(p.numel() for p in segmenter.parameters()), 0
    trained_seconds = time.perf_counter() - start
    result: dict[str, Any] = {
        "settings": job.settings,
        "weights": weights_text(method, job, entry.train),
        "parameters": total,
        "trainable": trainable,
        "steps": training.step if training else 0,
        "training": training.message if training else "not trained here",
        "ended": training.ended if training else "",
        "resumed_at_step": resumed,
        "train_seconds": trained_seconds,
        "split": how,
        "unit": test.unit,
        "classes": {str(value): name for value, name in test.classes.items()},
        "patients": [len(part.patients) for part in (train, validation, test)],
        "slices": [len(part) for part in (train, validation, test)],
        "skipped": [item.reason for item in test.skipped],
    }
    if segmenter.finds_boxes:
        result["boxes"] = asdict(measure_boxes(segmenter, test))
    if entry.protocol == "detection":
        return result
    question = _eval_protocol(job)
    main = measure(segmenter, test, question, lambda share: tell(0.8 + 0.1 * share, "testing"))
    picture, dice = extremes(segmenter, test, main, question)
    Image.fromarray(picture).save(job.folder / "cases.png")
    sets = {"": packed(main)}
    for size in table.sizes if entry.protocol in ("box", "classes") else ():
        sets[f"@{size}"] = packed(measure(segmenter, test, replace(question, size=size)))
    for other in table.external_tests:
        if other.dataset in job.folders:
            sets[f">{other.dataset}"] = packed(_measured_elsewhere(segmenter, other, question, test, job))
    if segmenter.finds_boxes and entry.protocol == "classes":
        sets["=true boxes"] = packed(measure(segmenter, test, replace(question, protocol="box")))
    tell(0.95, "boxes")
    return {
        **result,
        "sets": sets,
        "seconds": main.seconds,
        "model_seconds": main.model_seconds,
        "curve": _curve(segmenter, test, question, job.budget.curve) if entry.protocol == "box" else {},
        "cases": dice,
    }


def _candidate(
    method: Method, backbone: BackboneConfig, job: BenchmarkJob, train: SliceDataset
) -> TrainableSegmenter:
    candidate, _ = build_trainable(method, backbone, job.entry.settings, train, job.device, job.seed)
    candidate.begin()
    candidate.recipe = candidate.recipe_for(job.budget.batch or candidate.recipe.batch)
    return candidate


def _tune_prompter(
    chain: TrainableSegmenter,
    train: SliceDataset,
    validation: SliceDataset,
    job: BenchmarkJob,
    tell: _Teller,
    stop: Callable[[], bool] | None,
) -> None:
    """Train the prompter of a chain on true boxes, which then outlines those of the detector."""
    training = find_method(chain.config.prompter).training
    untrained: Any = chain.prompter
    assert training is not None and isinstance(untrained, Segmenter)
    prompter = training.kind(untrained.model, training.config(), untrained.version).to(job.device)
    prompter.recipe = prompter.recipe_for(job.budget.batch or prompter.recipe.batch)
    _trained(prompter, train, validation, job, tell, stop, job.folder / "prompter", prompted=True)
    chain.prompter = training.for_inference(prompter.eval().requires_grad_(False))


def _trained(
    candidate: TrainableSegmenter,
    train: SliceDataset,
    validation: SliceDataset,
    job: BenchmarkJob,
    tell: _Teller,
    stop: Callable[[], bool] | None,
    folder: Path | None = None,
    prompted: bool | None = None,
) -> tuple[TrainingResult, int]:
    """Train a candidate, and return the result and the step from which the training was resumed."""
    budget, recipe = job.budget, candidate.recipe
    batch = budget.batch or recipe.batch
    folder = folder or job.folder / "run"
    if prompted is None and job.entry.protocol != "detection":
        prompted = job.entry.protocol == "box"
    config = FinetuneConfig(
        steps=budget.steps, epochs=budget.epochs, batch=batch, seed=job.seed, prompted=prompted
    )
    wanted = recipe.augmented if budget.augment is None else budget.augment
    augment = Augmentation(lateralised=train.lateralised) if wanted else None
    arguments = (candidate, train, validation, config, folder, augment)
    try:
        run = TrainingRun(*arguments)
    except ValueError as error:
        if not (folder / "checkpoint.pt").is_file():
            raise
        logger.info("A run with other data is deleted: %s", error)
        shutil.rmtree(folder)
        run = TrainingRun(*arguments)
    first = run.training.step

    def show_progress(progress: Progress) -> None:
        tell(0.8 * progress.step / progress.steps, f"training, step {progress.step} of {progress.steps}")

    result = run.run(show_progress, stop)
    if result.ended == "stopped":
        raise ValueError(f"{result.message} Give the same command again to continue.")
    return result, first


def _backbone(method: Method, job: BenchmarkJob) -> BackboneConfig:
    if not method.needs_backbone:
        return BackboneConfig()
    source = str(job.settings["backbone"])
    if not source and not method.weights:
        raise ValueError(missing_weights(method))
    return BackboneConfig(source, job.image_size, "fp32")


def _eval_protocol(job: BenchmarkJob) -> EvalProtocol:
    proposals = str(job.entry.settings.get("proposals", "published"))
    return EvalProtocol(job.entry.protocol, proposals=proposals, points=job.budget.points)


def _measured_elsewhere(
    segmenter: Segmenter, other: ExternalTest, question: EvalProtocol, test: SliceDataset, job: BenchmarkJob
) -> Measured:
    data = load_dataset(other.dataset, job.folders[other.dataset], **other.options)
    data = thinned(data, job.budget).readable()
    ours = set(test.classes.values())
    names = {v: n if other.labels is None else other.labels.get(n) for v, n in data.classes.items()}
    classes = {value: name for value, name in names.items() if name in ours}
    if not classes:
        raise ValueError(
            f"{other.dataset} has none of the classes {', '.join(sorted(ours))}; its own are "
            f"{', '.join(data.classes.values())}. Map its names to these classes in the table."
        )
    return measure(segmenter, data, replace(question, classes={v: str(n) for v, n in classes.items()}))


def _curve(segmenter: Segmenter, test: SliceDataset, question: EvalProtocol, most: int) -> dict[str, float]:
    """Mean Dice by the largest move of the boxes' sides, on at most `most` slices with an object."""
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


class _Teller:
    """A writer of a job's progress file, which is updated at most every half second."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, -math.inf
        self(0.0, "reading")

    def __call__(self, share: float, what: str) -> None:
        now = time.monotonic()
        if now - self._last >= _TELL_SECONDS:
            self._last = now
            write_json(self._path, {"pid": os.getpid(), "share": share, "what": what})
