"""One user's work on one image: a label map, its history, and the object that is being prompted."""

from __future__ import annotations

import threading
import time
import unicodedata
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segmed.imaging.segments import Segments
from segmed.server.open_object import OpenObject
from segmed.server.patches import Patch
from segmed.server.stored_labels import StoredLabels

HISTORY_BYTES = 64 * 2**20
_LONGEST_NAME = 64  # letters that DICOM takes
LABELS = 255
_PAUSE = 120.0  # s between two signs of work that count at most
_KEPT = ("revision", "unsaved", "prompts", "seconds", "model", "version", "by_hand", "base")


@dataclass(frozen=True)
class HistoryStep:
    """One entry of the history.

    Attributes:
        before: what was in the rectangles that the step changed.
        after: what is in them since.
        opened_before: the object that was open.
        opened_after: the one that is open since.
    """

    before: tuple[Patch, ...]
    after: tuple[Patch, ...]
    opened_before: OpenObject | None
    opened_after: OpenObject | None

    @property
    def nbytes(self) -> int:
        opened = self.opened_after.nbytes if self.opened_after else 0
        return 200 + opened + sum(200 + len(patch.data) for patch in (*self.before, *self.after))


class Workspace:
    """A label map in memory; only slices that hold something are kept. Users of it hold `lock`.

    Args:
        shape: (I, J, K) of the image.
        names: of the structures that are offered; they get the values 1, 2, …
        history_bytes: bound on what is remembered for undo and redo; the oldest steps go first.

    Attributes:
        lock: one request at a time works with it.
        labels: values by name.
        opened: the object that the next prompt adds to.
        unsaved: whether anything has changed since the last save.
        prompts: answered ones.
        seconds: of work; pauses count up to two minutes each.
        model: that answered last; "" for work by hand.
        version: of the model.
        by_hand: whether something was drawn without a model.
        base: names the stored label that the work began with, or was saved as.
        stored: what the labels are in the file that the work began with.
        identity: of the image's content, "" where nobody asks.
        revision: grows by one with each request that changed labels, voxels or the open object; see `settle`.
    """

    def __init__(
        self, shape: tuple[int, int, int], names: Iterable[str] = (), history_bytes: int = HISTORY_BYTES
    ) -> None:
        self.lock = threading.RLock()
        self.shape = shape
        self.labels = {label_name(name): value for value, name in enumerate(list(names)[:LABELS], start=1)}
        self.opened: OpenObject | None = None
        self.unsaved = False
        self.prompts = 0
        self.seconds = 0.0
        self.model = self.version = ""
        self.by_hand = False
        self.base = ""
        self.stored = StoredLabels()
        self.identity = ""
        self.revision = 0
        self._changed = False
        self._packed: dict[int, bytes] = {}
        self._history_bytes = history_bytes
        self._slices: dict[int, np.ndarray] = {}
        self._done: deque[HistoryStep] = deque()
        self._undone: list[HistoryStep] = []
        self._remembered = 0
        self._last = time.monotonic()

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    @property
    def nbytes(self) -> int:
        parts = sum(part.nbytes for part in list(self._slices.values())) + sum(map(len, list(self._packed.values())))
        return 10_000 + self._remembered + parts + self.stored.nbytes

    def touch(self) -> None:
        """Note a sign of work."""
        now = time.monotonic()
        self.seconds += min(now - self._last, _PAUSE)
        self._last = now

    def settle(self) -> int:
        """The revision, one more than before if anything has changed since it was last asked for."""
        self.revision += self._changed
        self._changed = False
        return self.revision

    def facts(self) -> dict[str, Any]:
        """All but voxels, history and open object, as JSON can hold it."""
        return {"shape": list(self.shape), "labels": self.labels} | {name: getattr(self, name) for name in _KEPT}

    def packed(self) -> dict[int, bytes]:
        """The slices that hold something, deflated; only those that have changed are deflated anew."""
        for k in self._slices.keys() - self._packed.keys():
            self._packed[k] = zlib.compress(self._slices[k].tobytes(), 1)
        return dict(sorted(self._packed.items()))

    def restore(self, facts: Mapping[str, Any], packed: Mapping[int, bytes]) -> None:
        """Be what `facts` and `packed` were taken from; nothing has changed if that fails.

        Raises:
            KeyError: facts are missing.
            ValueError: not of this shape.
            zlib.error: not deflated.
        """
        size = self.shape[1], self.shape[0]
        slices = {k: np.frombuffer(zlib.decompress(data), np.uint8).reshape(size).copy() for k, data in packed.items()}
        if not all(0 <= k < self.shape[2] for k in slices):
            raise ValueError("it has slices beside the image")
        kept = {name: type(getattr(self, name))(facts[name]) for name in _KEPT}
        labels = {str(name): int(value) for name, value in facts["labels"].items()}
        for name, value in kept.items():
            setattr(self, name, value)
        self._forget_history()
        self.labels, self._slices, self._packed, self._changed = labels, slices, dict(packed), False

    def slice(self, k: int) -> np.ndarray:
        """A copy of slice k, (H, W) uint8."""
        found = self._slices.get(k)
        return np.zeros((self.shape[1], self.shape[0]), np.uint8) if found is None else found.copy()

    def filled(self) -> list[int]:
        """The slices that hold something."""
        return sorted(self._slices)

    def volume(self) -> np.ndarray:
        """The label map, (I, J, K) uint8."""
        out = np.zeros(self.shape, np.uint8, order="F")
        for k, part in self._slices.items():
            out[:, :, k] = part.T
        return out

    def used(self) -> dict[str, int]:
        """Values by name of the labels that have voxels, by rising value."""
        counts = sum((np.bincount(part.ravel(), minlength=256) for part in self._slices.values()), np.zeros(256, int))
        names = {value: name for name, value in self.labels.items()}
        return {names[int(value)]: int(value) for value in np.flatnonzero(counts) if value}

    def segments(self) -> Segments:
        """What is to be written: labels with the values and in the layers that they have in files."""
        used, shown = self.used(), {k: self.slice(k) for k in self.filled()}
        under = {
            name: {k: part for k in slices if (part := self._beneath(name, k, shown)) is not None and part.any()}
            for name, slices in self.stored.whole.items()
        }
        out = self.stored.in_files(self.labels, {*used, *(name for name, slices in under.items() if slices)})
        most = max((s.layer_value for s in out.values()), default=0)
        kind = np.uint8 if most < 256 else np.uint16
        depth = max((s.layer for s in out.values()), default=0) + 1
        layers = [np.zeros(self.shape, kind, order="F") for _ in range(depth)]
        for n, layer in enumerate(layers):
            table = np.zeros(256, kind)
            for name, segment in out.items():
                if segment.layer == n:
                    table[self.labels[name]] = segment.layer_value
            for k, values in shown.items():
                layer[:, :, k] = table[values].T
        for name, slices in under.items():
            for k, part in slices.items():
                layers[out[name].layer][:, :, k][part.T] = out[name].layer_value
        return Segments(tuple(layers), tuple(out.values()), self.stored.general)

    def _beneath(self, name: str, k: int, shown: Mapping[int, np.ndarray]) -> np.ndarray | None:
        return self.stored.beneath(name, k, shown[k], self.labels) if k in shown else None

    def value_of(self, name: str, keep: bool = True, wanted: int = 0) -> int:
        """The value of a label; if the name is new, `wanted` or else the next free one, kept for the name if `keep`.

        Raises:
            ValueError: an impossible name, or no value is free.
        """
        name = label_name(name)
        if name in self.labels:
            return self.labels[name]
        free = next((v for v in (wanted, *range(1, LABELS + 1)) if self._is_free(v)), None)
        if free is None:
            raise ValueError(f"A label map holds {LABELS} labels, which all have names already. Use one of them.")
        if keep:
            self.labels[name] = free
            self._changed = True
        return free

    def _is_free(self, value: int) -> bool:
        return 1 <= value <= LABELS and value not in self.labels.values()

    def open(self, found: Segments, as_segmentation: bool = False) -> None:
        """Begin with the segments of a file.

        Args:
            found: on the grid of the image.
            as_segmentation: whether the file is a `.seg.nrrd`, and what is saved is to be one too.

        Raises:
            ValueError: too many labels.
        """
        stored = StoredLabels.of(found, as_segmentation)
        for name, segment in stored.segments.items():
            self.value_of(name, wanted=segment.value)
        self.load(found.flat(), {segment.value: name for name, segment in stored.segments.items()})
        self.stored = stored

    def load(self, labels: np.ndarray, names: Mapping[int, str]) -> None:
        """Begin with a label map (I, J, K) of whole numbers; the history is forgotten.

        Raises:
            ValueError: too many labels.
        """
        counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        for k in range(labels.shape[2]):
            counts += np.bincount(labels[:, :, k].ravel(), minlength=len(counts))
        table = np.zeros(len(counts), np.uint8)
        for value in np.flatnonzero(counts[1:]) + 1:
            table[value] = self.value_of(names.get(int(value)) or f"label {value}", wanted=int(value))
        self._forget_history()
        self._slices, self._packed, self.unsaved, self._changed = {}, {}, False, True
        self.stored = StoredLabels()
        for k in np.flatnonzero((labels > 0).any(axis=(0, 1))):
            self._slices[int(k)] = np.ascontiguousarray(table[labels[:, :, k].T])

    def change(self, new: Mapping[int, np.ndarray], opened: OpenObject | None = None) -> list[Patch]:
        """Give slices new values, as one step.

        Args:
            new: (H, W) uint8 by slice.
            opened: the object that is open from then on.

        Returns:
            The rectangles that differ from before.
        """
        before, after = [], []
        for k in sorted(new):
            old, values = self.slice(k), np.asarray(new[k], np.uint8)
            differs = old != values
            was, becomes = Patch.cut(k, old, differs), Patch.cut(k, values, differs)
            if was is not None and becomes is not None:
                before.append(was)
                after.append(becomes)
        step = HistoryStep(tuple(before), tuple(after), self.opened, opened)
        if not before and opened == self.opened:
            return []
        self._remembered += step.nbytes - sum(undone.nbytes for undone in self._undone)
        self._undone.clear()
        self._done.append(step)
        self._apply(step.after, opened)
        while self._remembered > self._history_bytes and len(self._done) > 1:
            self._remembered -= self._done.popleft().nbytes
        return after

    def accept(self) -> None:
        """The open object is finished, also where it comes back by redo."""
        if self._done and self._done[-1].opened_after is not None:
            last = self._done.pop()
            self._done.append(HistoryStep(last.before, last.after, last.opened_before, None))
            self._remembered += self._done[-1].nbytes - last.nbytes
        self._changed = self._changed or self.opened is not None
        self.opened = None

    def undo(self) -> list[Patch]:
        """Take the last step back; nothing happens if there is none."""
        if not self._done:
            return []
        step = self._done.pop()
        self._undone.append(step)
        self._apply(step.before, step.opened_before)
        return list(step.before)

    def redo(self) -> list[Patch]:
        """Do again what was taken back; nothing happens if there is nothing."""
        if not self._undone:
            return []
        step = self._undone.pop()
        self._done.append(step)
        self._apply(step.after, step.opened_after)
        return list(step.after)

    def everything(self) -> list[Patch]:
        """Rectangles around all that the slices hold."""
        patches = (Patch.cut(k, part, part > 0) for k, part in sorted(self._slices.items()))
        return [patch for patch in patches if patch is not None]

    def _forget_history(self) -> None:
        self._done.clear()
        self._undone.clear()
        self._remembered, self.opened = 0, None

    def _apply(self, patches: Iterable[Patch], opened: OpenObject | None) -> None:
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


def label_name(name: str) -> str:
    """A label's name as it is kept.

    Raises:
        ValueError: empty, too long, or not to be printed.
    """
    plain = unicodedata.normalize("NFC", name).strip()
    if not plain or len(plain) > _LONGEST_NAME or not plain.isprintable():
        raise ValueError(
            f"A label's name has 1 to {_LONGEST_NAME} printable letters, this one has {len(plain)}. Rename it."
        )
    return plain
