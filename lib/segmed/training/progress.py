"""Progress of a training for users: numbers while it runs, and curves, events and overlays in its folder."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from segmed.evaluation.case_scores import CaseScore
from segmed.training.mlflow_sink import MlflowSink
from segmed.training.overlay import overlay_sheet
from segmed.training.validation import ShownCase

logger = logging.getLogger(__name__)
_REMEMBERED = 100  # number of steps over which the pace is averaged
_DRAWING_SHARE = 20  # drawing curves takes at most one part in this number of the time


@dataclass(frozen=True)
class Progress:
    """The state of a training.

    Attributes:
        epoch: Current epoch, counted from 1.
        epochs: Largest number of epochs.
        step: Number of steps done.
        steps: Largest number of steps.
        loss: Loss of the last step.
        best: Mean Dice of the best validation, NaN before the first.
        seconds_left: Estimated seconds until the last step, NaN if unknown.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    best: float
    seconds_left: float


class Pace:
    """An estimate of the remaining time from the last steps, including the time between them."""

    def __init__(self) -> None:
        self._times: deque[float] = deque([time.monotonic()], _REMEMBERED)

    def left(self, steps: int) -> float:
        """Estimate the seconds for further steps; to be called after each step."""
        self._times.append(time.monotonic())
        return steps * (self._times[-1] - self._times[0]) / (len(self._times) - 1)


class RunReport:
    """The files in the folder of a run: `log.jsonl`, `curves.png`, `validation.png` and TensorBoard events.

    The numbers also go to MLflow, see `MlflowSink`. Errors of writing are logged; reports never end a
    training.

    Args:
        folder: Folder of the run.
        step: Step from which the run continues; later events of an earlier attempt are removed.
        settings: Settings of the training, for MLflow.
    """

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any] | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        self.folder = folder
        self._writer = SummaryWriter(str(folder / "events"), purge_step=step or None)
        self._mlflow, self._ended = MlflowSink(folder, settings or {}), False
        self._drawn, self._cost = -math.inf, 0.0

    def epoch(
        self,
        history: Sequence[Mapping[str, Any]],
        scores: Sequence[CaseScore],
        shown: Sequence[ShownCase],
        last: bool,
    ) -> None:
        """Report the last epoch.

        Args:
            history: Entries of all epochs: epoch, step, loss, learning rate, and dice if there was a
                validation.
            scores: Scores of the last validation.
            shown: Cases of the last validation for the overlays.
            last: Whether this is the end of the training.
        """
        try:
            lines = "".join(json.dumps(entry) + "\n" for entry in history)
            (self.folder / "log.jsonl").write_text(lines, encoding="utf-8")
            now = history[-1]
            values = {name: now[name] for name in ("loss", "rate", "dice") if name in now}
            for label in sorted({s.label for s in scores}):
                mine = [s for s in scores if s.label == label]
                values[f"dice/{label}"] = sum(s.dice for s in mine) / len(mine)
            for name, value in values.items():
                self._writer.add_scalar(name, value, now["step"])
            self._mlflow.log(values, now["step"])
            self._ended = last
            start = time.monotonic()
            if last or start - self._drawn >= _DRAWING_SHARE * self._cost:
                self._draw(history, shown)
                self._drawn = time.monotonic()
                self._cost = self._drawn - start
        except (OSError, RuntimeError) as error:
            logger.warning("The report in %s is not complete: %s", self.folder, error)

    def close(self) -> None:
        """Close the file of events."""
        self._writer.close()
        self._mlflow.close(self._ended)

    def _draw(self, history: Sequence[Mapping[str, Any]], shown: Sequence[ShownCase]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # servers import this file, too
        from matplotlib.figure import Figure

        figure = Figure((8, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (name, title) in enumerate((("loss", "Loss"), ("dice", "Dice of the validation")), 1):
            axes = figure.add_subplot(1, 2, place, xlabel="epoch", title=title)
            known = [entry for entry in history if name in entry]
            axes.plot([e["epoch"] for e in known], [e[name] for e in known], marker=".")
            axes.grid(alpha=0.3)
        figure.savefig(self.folder / "curves.png", dpi=120)
        if shown:
            Image.fromarray(overlay_sheet(shown)).save(self.folder / "validation.png")
