"""A complete training run: validation and checkpoints after each epoch, early stopping, and resumption."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import CaseScore, mean_dice
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.training.batches import Augment
from segmed.training.checkpoint import data_facts, load_checkpoint, save_checkpoint
from segmed.training.embeddings import FrozenEncoder
from segmed.training.finetune import Finetuning, LossNotFinite
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.progress import Pace, Progress, RunReport
from segmed.training.validation import Validated, validate

Ended = Literal["finished", "no gain", "stopped", "not finite", "background only"]
_IRRELEVANT = ("cache_bytes", "micro", "checkpointing")  # settings of speed and memory, not of the results


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, after which the method holds the best weights.

    Attributes:
        ended: `finished` after all steps, `no gain` by patience, `stopped` by the user, `not finite` by its
            loss.
        message: A message for the user.
        step: Number of steps done.
        best: Mean Dice of the best validation, NaN without any.
        best_epoch: Epoch of the best validation, 0 without any.
        scores: Scores of the best validation.
        history: The entries of `log.jsonl`.
    """

    ended: Ended
    message: str
    step: int
    best: float
    best_epoch: int
    scores: tuple[CaseScore, ...]
    history: tuple[Mapping[str, Any], ...]


class TrainingRun:
    """A training in a folder, which resumes an interrupted one there with the same method, settings and data.

    On one CPU thread the resulting weights are identical bit for bit, however often it was interrupted.
    Processes that torchrun started (see `torchrun_processes`) train together; the first of them writes.

    Args:
        method: The method as built on the base weights; it is changed in place.
        data: The training slices.
        validation: Slices of other patients for validation; None keeps the last weights and never ends early.
        config: The settings of the training.
        folder: Folder of the run, created if it does not exist, for `checkpoint.pt`, embeddings, and the
            files of `RunReport`.
        augment: Random changes of the slices, or None.
        facts: Further facts by name that a checkpoint must agree with, such as the version of the code.

    Raises:
        ValueError: If the checkpoint in the folder is damaged or belongs to another training, there is
            nothing to learn from, or a patient is both in training and validation.
    """

    def __init__(
        self,
        method: TrainableSegmenter,
        data: SliceDataset,
        validation: SliceDataset | None,
        config: FinetuneConfig,
        folder: Path,
        augment: Augment | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        both = sorted(set(data.patients) & set(validation.patients)) if validation else []
        if both:
            raise ValueError(
                f"The patient {both[0]!r} is both in training and in validation. Split by patient."
            )
        self.method, self.config, self.folder = method, config, folder
        trained_on, held_out = data_facts(data), data_facts(validation) if validation else "none"
        self.facts = {
            "method": f"{method.name} ({method.config})",
            "base model": method.version,
            "recipe": repr(replace(method.recipe, rates=dict(method.recipe.rates))),
            **{f.name: repr(getattr(config, f.name)) for f in fields(config) if f.name not in _IRRELEVANT},
            "training data": trained_on,
            "validation data": held_out,
            "augmentation": repr(getattr(augment, "config", getattr(augment, "__qualname__", None))),
            **(facts or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "checkpoint.pt"
        origin = f"{self.facts['method']} {method.version} {method.input_size}"
        self.training = Finetuning(method, data, config, folder, augment, f"{origin} {trained_on}")
        self.processes = self.training.processes
        state = self.processes.from_first(lambda: load_checkpoint(path, self.facts))
        self.validation = validation.with_object() if validation and self.training.prompted else validation
        self._origin = f"{origin} {held_out}"
        self._encoder: FrozenEncoder | None = None
        self.ended: Ended | None = None
        self.history: list[dict[str, Any]] = []
        self.best, self.best_epoch = math.nan, 0
        self.scores: tuple[CaseScore, ...] = ()
        self._good = self._best_weights = self.training.weights()
        if state is not None:
            self._restore(state)

    def run(
        self, tell: Callable[[Progress], None] | None = None, stop: Callable[[], bool] | None = None
    ) -> TrainingResult:
        """Train to the end.

        Args:
            tell: Function called after each step.
            stop: Function called after each step that returns whether to stop, such as the `is_set` of an
                event; the state is saved, and the run can be resumed.

        Returns:
            The result. The method has the weights of the best validation, or the last ones without any, and
            is in evaluation mode.

        Raises:
            ValueError: If one slice alone needs more memory than there is, or a file cannot be read.
            OSError: If a checkpoint cannot be written; the previous one is intact.
        """
        message, pace, training = "", Pace(), self.training
        report = None
        if self.processes.first and self.ended is None:
            report = RunReport(self.folder, training.step, asdict(self.config))

        def after_step(step: int, loss: float) -> None:
            left = pace.left(training.steps - step)
            if tell:
                epochs = math.ceil(training.steps / training.per_epoch)
                epoch = math.ceil(step / training.per_epoch)
                tell(Progress(epoch, epochs, step, training.steps, loss, self.best, left))

        try:
            while self.ended is None:
                stopped = training.train_epoch(after_step, stop)
                if training.step % training.per_epoch == 0 or training.step == training.steps:
                    self._after_epoch(report)
                self._save()
                if stopped and self.ended is None:
                    if not self.history:
                        self._best_weights = training.weights()
                    return self._result(
                        "stopped", f"Stopped after {training.step} of {training.steps} steps."
                    )
        except LossNotFinite as error:
            if not self.best_epoch:
                self._best_weights = self._good
            self.ended, message = "not finite", f"{error} The weights from before are kept."
        finally:
            self.method.load_state_dict(self._best_weights, strict=False)
            self.method.eval()
            if report:
                report.close()
        self._remove_embeddings()
        return self._result(self.ended, message or self._message())

    def _after_epoch(self, report: RunReport | None) -> None:
        training = self.training
        epoch = math.ceil(training.step / training.per_epoch)
        done = training.step - self.history[-1]["step"] if self.history else training.step
        entry: dict[str, Any] = {
            "epoch": epoch,
            "step": training.step,
            "loss": float(np.mean(training.losses[-done:])),
            "rate": float(training.optimiser.param_groups[-1]["lr"]),
        }
        self._good = training.weights()
        validated = Validated((), ())
        if self.validation is not None and len(self.validation):
            validated = self._validate(self.validation)
            entry["dice"] = mean_dice(validated.scores)
            if not entry["dice"] <= self.best:  # true for the first one, where best is NaN
                self.best, self.best_epoch, self.scores = entry["dice"], epoch, validated.scores
                self._best_weights = self._good
        else:
            self._best_weights = self._good
        self.history.append(entry)
        if training.step >= training.steps:
            self.ended = "finished"
        elif self.best_epoch and epoch - self.best_epoch >= (self.config.patience or math.inf):
            self.ended = "no gain"
        if self.ended and any(s.present for s in self.scores) and self.best == 0:
            self.ended = "background only"
        if report:
            report.epoch(self.history, validated.scores, validated.shown, self.ended is not None)

    def _validate(self, data: SliceDataset) -> Validated:
        self.method.eval()
        if self._encoder is None:
            first = self.method.prepare(data[0].image)[0]
            path = self.folder / "validation.bin"
            with self.processes.first_on_each_machine() as prepare:
                self._encoder = FrozenEncoder(
                    self.method, first, path, len(data), self.config.cache_bytes, self._origin, prepare
                )
        with torch.autocast(self.training.device.type, torch.bfloat16, enabled=self.training.bf16):
            return validate(
                self.method, data, self.training.prompted, min(4, self.training.micro), self._encoder
            )

    def _save(self) -> None:
        if not self.processes.first:
            return
        state = {
            "training": self.training.state(),
            "best weights": self._best_weights,
            "best": self.best,
            "best epoch": self.best_epoch,
            "scores": [asdict(s) for s in self.scores],
            "history": self.history,
            "ended": self.ended,
        }
        save_checkpoint(self.folder / "checkpoint.pt", self.facts, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.training.restore(state["training"])
        self._best_weights, self._good = state["best weights"], state["training"]["weights"]
        self.best, self.best_epoch = state["best"], state["best epoch"]
        self.scores = tuple(CaseScore(**row) for row in state["scores"])
        self.history, self.ended = state["history"], state["ended"]

    def _result(self, ended: Ended, message: str) -> TrainingResult:
        facts = self.best, self.best_epoch, self.scores, tuple(self.history)
        return TrainingResult(ended, message, self.training.step, *facts)

    def _message(self) -> str:
        text = f"Trained for {self.training.step} steps."
        if self.ended == "background only":
            return (
                f"{text} The model predicts only background on every validation case, so it is of no use. "
                "Train for more passes, at a higher learning rate, or with more labelled slices."
            )
        if self.best_epoch:
            text += f" The best mean Dice of the validation is {self.best:.3f}, after pass {self.best_epoch}."
        if self.ended == "no gain":
            text += (
                f" It did not rise in the {self.config.patience} passes after that, so training ended early."
            )
        return text

    def _remove_embeddings(self) -> None:
        for encoder in (self.training.encoder, self._encoder):
            if encoder and self.processes.node_rank == 0:
                encoder.remove()
