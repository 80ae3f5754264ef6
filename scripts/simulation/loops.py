"""The loop of active learning as a simulation sees it, and the same library functions without a server."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from segmed.active.continual import LessonConfig, TrainingSteps, learnt_until, note_of, select_training_images
from segmed.active.retraining import Job, Retraining
from segmed.active.scoring.scorer import Scorer
from segmed.active.scoring.scorer_config import ScorerConfig
from segmed.active.scoring.strategies import find_strategy
from segmed.active.store.database import Database
from segmed.active.store.labels import LabelLog
from segmed.active.store.state import ActiveState
from segmed.data.pairs import natural, open_volumes
from segmed.data.slices import LabelledVolume
from segmed.imaging.picture import open_picture
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader, find_method
from segmed.inference.predictor import Predictor
from segmed.registry.versions import Registry
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, train_model

from simulation.archive import Archive, Case

_CACHE = 2**26  # bytes
_COMMON = ("epochs", "epoch_steps", "batch", "patience", "seed")


@dataclass(frozen=True)
class Setup:
    """What is trained and how.

    Attributes:
        method: one that labels without a prompt.
        image_size: of its input, px; None for that of the backbone.
        options: of its trainer: `epochs`, `epoch_steps`, `batch`, `patience`, `seed`, `learning_rate`,
            `validation`, and its own.
        replay: earlier images that a retraining learns again.
        forced: serve each version, whatever the gate says of it.
    """

    method: str = "lora"
    image_size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    replay: int = 100
    forced: bool = False


class Loop(Protocol):
    """A server, or what does the same."""

    def next(self, strategy: str, count: int) -> list[str]:
        """Names of the pictures to label next."""

    def submit(self, case: Case) -> None:
        """Hand in the truth as the label of a picture."""

    def retrain(self) -> str:
        """Have a retraining done on all that was submitted; `promoted`, `rejected` or `failed`."""

    def predict(self, cases: Sequence[Case]) -> list[np.ndarray] | None:
        """Label maps (H, W) by what is served; None if nothing is."""

    def close(self) -> None:
        """End it."""


class InProcess:
    """Strategies, scorer, lesson, training, gate and registry of the library, in this process.

    What the server adds is left out: HTTP, processes of their own for trainings, and the quarantine.

    Args:
        archive: its pool is written into the folder.
        folder: empty.
        setup: what is trained.
        strategy: only what this one needs is computed.
        seed: of the strategies' chance.
    """

    def __init__(self, archive: Archive, folder: Path, setup: Setup, strategy: str, seed: int) -> None:
        self.archive, self.folder, self.setup, self.seed = archive, folder, setup, seed
        self.studies = folder / "studies"
        self._files = {case.name: case.write(self.studies) for case in archive.pool}
        self._volumes = [
            LabelledVolume(
                case.patient, self._files[case.name], case.truth_in(self.studies), image_id=case.name
            )
            for case in sorted(archive.pool, key=lambda case: natural(case.name))
        ]
        self._tests = {case.name: case.write(folder / "test") for case in archive.test}
        database = Database(folder / "state")
        self.state, self.log, self.retraining = (
            ActiveState(database),
            LabelLog(database),
            Retraining(database),
        )
        self.registry = Registry(folder / "registry")
        # a folder may have been copied after the first round
        self._labelled = {record.image for record in self.log.labels()}
        self._asked = 0
        method = find_method(setup.method)
        self._backbone = (
            BackboneConfig(method.weights or "segmed-tiny", setup.image_size)
            if method.needs_backbone
            else BackboneConfig()
        )
        self._config = job_config(setup.options)
        self._needs = find_strategy(strategy).needs if strategy != "full" else frozenset()
        self._loader = Loader()

    def next(self, strategy: str, count: int) -> list[str]:
        version = self._score() if self._needs else ""
        self._asked += 1
        draw = int(np.random.default_rng([self.seed, self._asked]).integers(2**31))
        return [
            p.image for p in self.state.propose(strategy, "annotator", count, version, keep=False, seed=draw)
        ]

    def submit(self, case: Case) -> None:
        self._labelled.add(case.name)
        self._observe()
        sizes = {name: int((case.truth == value).sum()) for value, name in self.archive.classes.items()}
        self.log.record(case.name, "annotator", hashlib.sha256(case.truth.tobytes()).hexdigest(), sizes)

    def retrain(self) -> str:
        job = self.retraining.reserve(self.setup.method, "so many labels are new")
        assert job is not None
        done = self.retraining.carry_out(job, TrainingSteps(self.registry, self._train))
        if self.setup.forced and done.state == "rejected":
            self.registry.promote(self.setup.method, done.version, "forced")
        return done.state

    def predict(self, cases: Sequence[Case]) -> list[np.ndarray] | None:
        predictor = self._predictor()
        if predictor is None:
            return None
        files = {**self._files, **self._tests}
        return [predictor.segment_classes(open_picture(files[case.name]))[:, :, 0].T for case in cases]

    def close(self) -> None:
        pass

    def _train(self, job: Job) -> str:
        choice = LessonConfig(self.setup.replay, self._config.validation, self._config.training.seed)
        labels, since = self.log.labels(), learnt_until(self.retraining.jobs(), job)
        # the order of slices in training depends on what else is labelled, as on a server
        labelled = [volume for volume in self._volumes if volume.name in self._labelled]
        data = open_volumes(labelled, self.archive.classes, "px")
        chosen = select_training_images(data, labels, since, job.upto, choice)
        arguments = (
            self.setup.method,
            self._backbone,
            chosen,
            self.registry,
            self.folder / "run",
            self._config,
        )
        return train_model(*arguments, note=note_of(job)).message

    def _score(self) -> str:
        """Bring the scores up to date as the server does behind its users; the version they are of, or ""."""
        predictor = self._predictor()
        if predictor is None:
            return ""
        segmenter = predictor.segmenter
        self._observe()
        # without these, entropy and embedding are the same and cost less
        config = ScorerConfig() if "prompts" in self._needs else ScorerConfig(objects=1, jitters=1, passes=0)
        scorer = Scorer(segmenter, config)
        for image in self.state.stale(segmenter.version, len(self._files)):
            found = scorer.score(open_picture(self._files[image]))
            assert found is not None
            self.state.save_scores(image, segmenter.version, image, found.scores, found.embedding)
        self.state.prune(segmenter.version)
        return segmenter.version

    def _observe(self) -> None:
        self.state.observe({name: name for name in self._files}, self._labelled)

    def _predictor(self) -> Predictor | None:
        served = self.registry.served(self.setup.method)
        if served is None:
            return None
        names = tuple(self.archive.classes.values())
        segmenter = self._loader.get(self.setup.method, self._backbone, "cpu", served.folder, names)
        return Predictor(segmenter, ByteBoundedStore(_CACHE), batch=1)


class FirstRound:
    """The first round of a seed, which all strategies share: it is played once and then copied.

    Args:
        folder: Folder to be filled.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._row: dict[str, Any] | None = None

    def keep(self, folder: Path, row: Mapping[str, Any]) -> None:
        """Copy what a loop left in its folder after the round."""
        if self._row is None:
            shutil.copytree(folder, self._folder, dirs_exist_ok=True)
            self._row = dict(row)

    def restore(self, folder: Path, strategy: str) -> dict[str, Any] | None:
        """Fill the folder of another strategy; its row of the round, or None if it was not played yet."""
        if self._row is None:
            return None
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)
        return {**self._row, "strategy": strategy}


def job_config(options: Mapping[str, Any]) -> JobConfig:
    """Options of a trainer as the server takes them."""
    known = {"epochs": 30, "epoch_steps": 10, "batch": 8, "patience": 10, "seed": 0, **options}
    own = {k: v for k, v in known.items() if k not in (*_COMMON, "learning_rate", "validation", "augment")}
    common: dict[str, Any] = {name: int(known[name]) for name in _COMMON}
    training = FinetuneConfig(**common)
    rate = float(known.get("learning_rate", 0)) or None
    return JobConfig(
        own, training, rate, float(known.get("validation", 0.2)), bool(known.get("augment", False))
    )


def dice_of(
    found: Sequence[np.ndarray] | None, cases: Sequence[Case], classes: Mapping[int, str]
) -> dict[str, float]:
    """Dice by structure and its mean, `kind …` by kind; 0 where nothing is served.

    Pictures of one patient are taken together; a structure that neither the truth nor the mask of a patient
    has is left out. Means go over patients, and then over structures.
    """
    both: dict[tuple[int, str, str], list[int]] = {}
    for n, case in enumerate(cases):
        for value in classes:
            mask = np.zeros_like(case.truth, bool) if found is None else found[n] == value
            truth = case.truth == value
            sums = both.setdefault((value, case.patient, case.kind), [0, 0])
            sums[0] += 2 * int((mask & truth).sum())
            sums[1] += int(mask.sum()) + int(truth.sum())
    dice = {key: overlap / total for key, (overlap, total) in both.items() if total}
    rows: dict[str, float] = {}
    for value, name in classes.items():
        mine = [d for (v, _, _), d in dice.items() if v == value]
        rows[name] = float(np.mean(mine)) if mine else math.nan
    for kind in sorted({kind for _, _, kind in dice}):
        rows[f"kind {kind}"] = float(np.mean([d for (_, _, k), d in dice.items() if k == kind]))
    return {"dice": float(np.nanmean([rows[name] for name in classes.values()])), **rows}
