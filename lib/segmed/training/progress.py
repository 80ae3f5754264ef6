"""What a person sees of a training: numbers while it runs, and curves, events and overlays in its folder."""

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
from segmed.training.overlay import overlay_sheet
from segmed.training.validation import ShownCase

logger = logging.getLogger(__name__)
_REMEMBERED = 100  # steps
_DRAWING_SHARE = 20  # curves are drawn so seldom that this part of the time is the most that it takes


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        epoch: pass over the data, counted from 1.
        epochs: most passes.
        step: done.
        steps: most steps.
        loss: of the last step.
        best: mean Dice of the best validation, NaN before the first.
        seconds_left: until the last step if the pace stays, NaN before it is known.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    best: float
    seconds_left: float


class Pace:
    """Tells how long the rest takes by how long the last steps took, whatever was between them."""

    def __init__(self) -> None:
        self._times: deque[float] = deque([time.monotonic()], _REMEMBERED)

    def left(self, steps: int) -> float:
        """Seconds for so many more steps; called after each step."""
        self._times.append(time.monotonic())
        return steps * (self._times[-1] - self._times[0]) / (len(self._times) - 1)


class RunReport:
    """Files in the folder of a run: `log.jsonl`, `curves.png`, `validation.png` and TensorBoard events.

    What cannot be written is logged; reports never end a training.

    Args:
        folder: of the run.
        step: that the run goes on from; later events of an earlier attempt are void.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds to import

        self.folder = folder
        self._writer = SummaryWriter(str(folder / "events"), purge_step=step or None)
        self._drawn, self._cost = -math.inf, 0.0

    def epoch(
        self, history: Sequence[Mapping[str, Any]], scores: Sequence[CaseScore], shown: Sequence[ShownCase], last: bool
    ) -> None:
        """Report the last of the passes.

        Args:
            history: of all passes: epoch, step, loss, learning rate, and dice where there was a validation.
            scores: of the last validation.
            shown: likewise.
            last: whether there are no more.
        """
        try:
            lines = "".join(json.dumps(entry) + "\n" for entry in history)
            (self.folder / "log.jsonl").write_text(lines, encoding="utf-8")
            now = history[-1]
            for name in ("loss", "rate", "dice"):
                if name in now:
                    self._writer.add_scalar(name, now[name], now["step"])
            for label in sorted({s.label for s in scores}):
                mine = [s for s in scores if s.label == label]
                self._writer.add_scalar(f"dice/{label}", sum(s.dice for s in mine) / len(mine), now["step"])
            start = time.monotonic()
            if last or start - self._drawn >= _DRAWING_SHARE * self._cost:
                self._draw(history, shown)
                self._drawn = time.monotonic()
                self._cost = self._drawn - start
        except (OSError, RuntimeError) as error:
            logger.warning("The report in %s is not complete: %s", self.folder, error)

    def close(self) -> None:
        self._writer.close()

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
