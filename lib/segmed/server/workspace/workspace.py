"""A user's work on an image: a label map, its history, and the object that is being prompted."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segmed.imaging.labels.segments import Segments
from segmed.server.workspace.edits.names import Naming, label_name
from segmed.server.workspace.history import HistoryStep, WorkspaceHistory
from segmed.server.workspace.open_object import OpenObject
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.stored_labels import LABELS, StoredLabels, check_number

HISTORY_BYTES = 64 * 2**20
_PAUSE = 120.0  # s between two signs of work that count at most
_KEPT = ("revision", "unsaved", "prompts", "seconds", "model", "version", "by_hand", "base")


class Workspace:
    """A label map in memory, of which only slices with labels are kept. Callers hold `lock`.

    Args:
        shape: Shape (I, J, K) of the image.
        names: Names of the offered structures, which get the values 1, 2, …
        history_bytes: Size of the history in bytes; the oldest steps are removed first.

    Attributes:
        lock: Lock that lets one request at a time work with the workspace.
        labels: Label values by name.
        opened: Object that the next prompt adds to.
        unsaved: Whether anything has changed since the last save.
        prompts: Number of answered prompts.
        seconds: Working time in seconds; of each pause, at most two minutes count.
        model: Model that answered last; "" for manual work.
        version: Version of the model.
        by_hand: Whether anything was drawn without a model.
        records: How the last answer of a model for each label came about, see `Provenance.to_json`.
        base: Identifier of the stored label that the work began with, or was saved as.
        stored: Labels as they are in that file.
        identity: Identity of the image's content; "" where it is not needed.
        revision: Number of the state; see `settle`.
    """

    def __init__(
        self, shape: tuple[int, int, int], names: Iterable[str] = (), history_bytes: int = HISTORY_BYTES
    ) -> None:
        self.lock = threading.RLock()
        self.shape = shape
        self.labels = {label_name(name): value for value, name in enumerate(list(names)[:LABELS], start=1)}
        self.opened: OpenObject | None = None
        self.unsaved, self.prompts, self.seconds = False, 0, 0.0
        self.model = self.version = ""
        self.records: dict[str, Any] = {}
        self.by_hand, self.base, self.identity = False, "", ""
        self.stored = StoredLabels()
        self.revision = 0
        self._changed = False
        self._packed: dict[int, bytes] = {}
        self._history = WorkspaceHistory(history_bytes)
        self._slices: dict[int, np.ndarray] = {}
        self._last = time.monotonic()

    @property
    def can_undo(self) -> bool:
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        return self._history.can_redo

    @property
    def nbytes(self) -> int:
        parts = [p.nbytes for p in list(self._slices.values())] + [*map(len, list(self._packed.values()))]
        return 10_000 + self._history.nbytes + sum(parts) + self.stored.nbytes

    def touch(self) -> None:
        """Note a sign of work."""
        now = time.monotonic()
        self.seconds += min(now - self._last, _PAUSE)
        self._last = now

    def settle(self) -> int:
        """The revision, which grows by one if anything has changed since the last call."""
        self.revision += self._changed
        self._changed = False
        return self.revision

    def facts(self) -> dict[str, Any]:
        """Everything but voxels, history and open object, as JSON values."""
        kept = {name: getattr(self, name) for name in (*_KEPT, "records")}
        return {"shape": list(self.shape), "labels": self.labels, "choices": self.stored.choices()} | kept

    def packed(self) -> dict[int, bytes]:
        """The slices with labels, deflated; only changed slices are deflated again."""
        for k in self._slices.keys() - self._packed.keys():
            self._packed[k] = zlib.compress(self._slices[k].tobytes(), 1)
        return dict(sorted(self._packed.items()))

    def restore(self, facts: Mapping[str, Any], packed: Mapping[int, bytes]) -> None:
        """Restore the workspace from `facts` and `packed`; if that fails, nothing is changed.

        Raises:
            KeyError: Facts are missing.
            ValueError: The slices do not fit this shape.
            zlib.error: The slices are not deflated.
        """
        size = self.shape[1], self.shape[0]
        slices = {
            k: np.frombuffer(zlib.decompress(data), np.uint8).reshape(size).copy()
            for k, data in packed.items()
        }
        if not all(0 <= k < self.shape[2] for k in slices):
            raise ValueError("it has slices outside of the image")
        kept = {name: type(getattr(self, name))(facts[name]) for name in _KEPT}
        labels = {str(name): int(value) for name, value in facts["labels"].items()}
        for name, value in kept.items():
            setattr(self, name, value)
        self._forget_history()
        self.stored = self.stored.chosen(facts.get("choices", {}), labels)
        self.records = dict(facts.get("records", {}))  # which older versions do not write
        self.labels, self._slices, self._packed, self._changed = labels, slices, dict(packed), False

    def slice(self, k: int) -> np.ndarray:
        """A copy of slice k, (H, W) uint8."""
        values = self._slices.get(k)
        return np.zeros((self.shape[1], self.shape[0]), np.uint8) if values is None else values.copy()

    def filled(self) -> list[int]:
        """Indices of the slices with labels."""
        return sorted(self._slices)

    def volume(self) -> np.ndarray:
        """The label map, (I, J, K) uint8."""
        out = np.zeros(self.shape, np.uint8, order="F")
        for k, part in self._slices.items():
            out[:, :, k] = part.T
        return out

    def used(self) -> dict[str, int]:
        """Values by name of the labels that have voxels, by rising value."""
        counts = sum(
            (np.bincount(part.ravel(), minlength=256) for part in self._slices.values()), np.zeros(256, int)
        )
        names = {value: name for name, value in self.labels.items()}
        return {names[int(value)]: int(value) for value in np.flatnonzero(counts) if value}

    def segments(self) -> Segments:
        """The segments to write: labels with the values and layers that they have in files."""
        shown = {k: self.slice(k) for k in self.filled()}
        return self.stored.in_layers(self.shape, self.labels, self.used(), shown)

    def value_of(self, name: str, keep: bool = True, wanted: int = 0) -> int:
        """The value of a label; for a new name `wanted`, or else the next free one, stored if `keep`.

        Raises:
            ValueError: The name is not allowed, or no value is free.
        """
        name = label_name(name)
        if name in self.labels:
            return self.labels[name]
        free = self.free_value(self.labels, wanted)
        if keep:
            self.labels[name], self._changed = free, True
        return free

    @property
    def naming(self) -> Naming:
        """What the values mean at this moment."""
        return Naming(dict(self.labels), self.stored)

    @staticmethod
    def free_value(labels: Mapping[str, int], wanted: int = 0) -> int:
        """A value that no label has, `wanted` if possible. Raises ValueError if there is none."""
        free = set(range(1, LABELS + 1)) - set(labels.values())
        if not free:
            raise ValueError(f"All {LABELS} labels that a label map holds have names. Use one of them.")
        return wanted if wanted in free else min(free)

    def open(self, found: Segments, as_segmentation: bool = False) -> None:
        """Begin with the segments of a file.

        Args:
            found: Segments on the grid of the image.
            as_segmentation: Whether the file is a `.seg.nrrd`, so that the work is saved as one too.

        Raises:
            ValueError: There are too many labels.
        """
        stored = StoredLabels.of(found, as_segmentation)
        check_number(len(stored.segments))
        if len({*self.labels, *stored.segments}) > LABELS:
            self.labels = {}  # those that are only offered make room
        for name, segment in stored.segments.items():
            self.value_of(name, wanted=segment.value)
        self.load(found.flat(), {segment.value: name for name, segment in stored.segments.items()})
        self.stored = stored

    def load(self, labels: np.ndarray, names: Mapping[int, str]) -> None:
        """Begin with a label map (I, J, K) of integers; the history is cleared.

        Raises:
            ValueError: There are too many labels.
        """
        counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        for part in np.moveaxis(labels, 2, 0):
            counts += np.bincount(part.ravel(), minlength=len(counts))
        table = np.zeros(len(counts), np.uint8)
        check_number(int(np.count_nonzero(counts[1:])))
        for value in np.flatnonzero(counts[1:]) + 1:
            table[value] = self.value_of(names.get(int(value)) or f"label {value}", wanted=int(value))
        self._forget_history()
        self._slices, self._packed, self.unsaved, self._changed = {}, {}, False, True
        self.stored = StoredLabels()
        for k in map(int, np.flatnonzero((labels > 0).any(axis=(0, 1)))):
            self._slices[k] = np.ascontiguousarray(table[labels[:, :, k].T])

    def change(
        self,
        new: Mapping[int, np.ndarray],
        opened: OpenObject | None = None,
        naming: Naming | None = None,
    ) -> list[Patch]:
        """Change slices in one step of the history.

        Args:
            new: New values (H, W), uint8, by slice.
            opened: Object that is open from then on.
            naming: What the values mean from then on, if that changes too.

        Returns:
            The rectangles that have changed.
        """
        before, after = [], []
        for k in sorted(new):
            old, values = self.slice(k), np.asarray(new[k], np.uint8)
            differs = old != values
            was, becomes = Patch.cut(k, old, differs), Patch.cut(k, values, differs)
            if was is not None and becomes is not None:
                before.append(was)
                after.append(becomes)
        names_before = self.naming if naming else None
        step = HistoryStep(tuple(before), tuple(after), self.opened, opened, names_before, naming)
        if not before and opened == self.opened and not naming:
            return []
        self._history.add(step)
        self._apply(step.after, opened, naming)
        return after

    def accept(self) -> None:
        """Finish the open object, also where redo would bring it back."""
        self._history.close_object()
        self._changed = self._changed or self.opened is not None
        self.opened = None

    def undo(self) -> list[Patch]:
        """Undo the last step, if there is one."""
        step = self._history.undo()
        if step is None:
            return []
        self._apply(step.before, step.opened_before, step.naming_before)
        return list(step.before)

    def redo(self) -> list[Patch]:
        """Redo the last undone step, if there is one."""
        step = self._history.redo()
        if step is None:
            return []
        self._apply(step.after, step.opened_after, step.naming_after)
        return list(step.after)

    def everything(self) -> list[Patch]:
        """Rectangles around all labels of the slices."""
        patches = (Patch.cut(k, part, part > 0) for k, part in sorted(self._slices.items()))
        return [patch for patch in patches if patch is not None]

    def _forget_history(self) -> None:
        self._history.clear()
        self.opened = None

    def _apply(self, patches: Iterable[Patch], opened: OpenObject | None, naming: Naming | None) -> None:
        if naming:
            self.records = naming.carried(self.records, self.labels)
            self.labels, self.stored, self.unsaved = dict(naming.labels), naming.stored, True
        for patch in patches:
            part = self.slice(patch.k)
            patch.put(part)
            if part.any():
                self._slices[patch.k] = part
            else:
                self._slices.pop(patch.k, None)
            self._packed.pop(patch.k, None)
            self.unsaved = True
        self.opened = opened
        self._changed = True
