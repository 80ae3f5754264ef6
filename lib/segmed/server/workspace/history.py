"""The history of a workspace: steps that can be undone and redone, bounded in bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from segmed.server.workspace.edits.names import Naming
from segmed.server.workspace.open_object import OpenObject
from segmed.server.workspace.patches import Patch


@dataclass(frozen=True)
class HistoryStep:
    """One entry of the history.

    Attributes:
        before: Contents of the changed rectangles before the step.
        after: Contents of the changed rectangles after the step.
        opened_before: Object that was open before the step.
        opened_after: Object that is open after the step.
        naming_before: What the values meant before the step; None where that does not change.
        naming_after: What the values mean after the step; None where that does not change.
    """

    before: tuple[Patch, ...]
    after: tuple[Patch, ...]
    opened_before: OpenObject | None
    opened_after: OpenObject | None
    naming_before: Naming | None = None
    naming_after: Naming | None = None

    @property
    def nbytes(self) -> int:
        """Size of the step in memory, in bytes."""
        opened = self.opened_after.nbytes if self.opened_after else 0
        return 200 + opened + sum(200 + len(patch.data) for patch in (*self.before, *self.after))


class WorkspaceHistory:
    """Steps that were done, and steps that were undone and can be redone.

    Args:
        max_bytes: Largest size of the history in bytes; the oldest steps are removed first, but not the last
            one.

    Attributes:
        nbytes: Size of the history in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.nbytes = 0
        self._max_bytes = max_bytes
        self._done: deque[HistoryStep] = deque()
        self._undone: list[HistoryStep] = []

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return bool(self._undone)

    def add(self, step: HistoryStep) -> None:
        """Add a step that was done; steps that were undone cannot be redone after it."""
        self.nbytes += step.nbytes - sum(undone.nbytes for undone in self._undone)
        self._undone.clear()
        self._done.append(step)
        while self.nbytes > self._max_bytes and len(self._done) > 1:
            self.nbytes -= self._done.popleft().nbytes

    def close_object(self) -> None:
        """Let the last step leave no object open, also after it is redone."""
        if self._done and self._done[-1].opened_after is not None:
            last = self._done.pop()
            self._done.append(replace(last, opened_after=None))
            self.nbytes += self._done[-1].nbytes - last.nbytes

    def undo(self) -> HistoryStep | None:
        """The last step, which is undone now; None if there is none."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self) -> HistoryStep | None:
        """The last undone step, which is done again; None if there is none."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]

    def clear(self) -> None:
        """Remove all steps."""
        self._done.clear()
        self._undone.clear()
        self.nbytes = 0
