"""The progress of a prediction on the terminal, and what is left of it when the user stops it with Ctrl+C."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segmed.commands.prediction.options import console, say

if TYPE_CHECKING:  # numpy is imported late, so that --help answers at once
    import numpy as np

    from segmed.inference.progress import Masks


class Stopped(Exception):
    """The user has stopped the prediction and does not want the part that was done."""


class Following:
    """Progress bars for predictions that can be stopped.

    Args:
        keep: Whether the masks that were found before Ctrl+C are kept.

    Attributes:
        stopped: Whether the user has pressed Ctrl+C.
    """

    def __init__(self, keep: bool) -> None:
        self.keep, self.stopped = keep, False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs."""
        with self._bar:
            yield

    def run(self, name: str, predict: Callable[[Any], Any], partial: Callable[[Masks], Any]) -> Any:
        """The result of a prediction, or the part of it that was found before the user stopped it.

        Args:
            name: Name of what is predicted, for the bar.
            predict: Function that predicts, given a function that is told the progress.
            partial: Function that makes a result of the masks by slice that were found so far.

        Raises:
            Stopped: The user has stopped the prediction, and `keep` is not set.
        """
        task = self._bar.add_task(f"{name}, slices", total=None)
        masks: Masks = {}

        def advance(done: int, most: int, found: Mapping[int, np.ndarray]) -> None:
            self._bar.update(task, completed=done, total=most)
            masks.update(found)

        try:
            result = predict(advance)
        except KeyboardInterrupt:
            if not self.keep:
                raise Stopped from None
            self.stopped = True
            say(f"Stopped. {name}: what was found on {len(masks)} slices is kept.", "yellow")
            return partial(masks)
        done = max(int(self._bar.tasks[task].completed), 1)
        self._bar.update(task, total=done, completed=done)
        return result
