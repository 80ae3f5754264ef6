"""What the labels of a workspace are in files: their values, layers and colours there, and what lies beneath others.

A workspace shows one label a voxel. In a file segments may overlap; then the smaller one is shown, and the other one
goes on beneath it, as long as one of those that lay on it is shown there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from segmed.imaging.segments import Segments, StoredSegment

_LONGEST_NAME = 64  # letters that DICOM takes
Slices = Mapping[int, np.ndarray]


@dataclass
class StoredLabels:
    """The file that a workspace began with.

    Attributes:
        segments: of the file, by the names that they have in the workspace.
        general: what the file tells of itself.
        as_segmentation: whether it is a segmentation of 3D Slicer, which is to stay one.
        whole: all voxels (H, W) by slice of the segments that something lay on, by name.
        above: what lay on them, by name.
    """

    segments: dict[str, StoredSegment] = field(default_factory=dict)
    general: Mapping[str, str] = field(default_factory=dict)
    as_segmentation: bool = False
    whole: dict[str, Slices] = field(default_factory=dict)
    above: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Segments, as_segmentation: bool = False) -> StoredLabels:
        """Of a file on the grid of the image; two segments of one name become two labels."""
        names = unique_names(found.segments)
        own = cls({names[s.value]: s for s in found.segments}, found.general, as_segmentation)
        for upper, lower in found.overlaps():
            own.above[names[lower]] = own.above.get(names[lower], frozenset()) | {names[upper]}
        for name in own.above:
            mask = found.mask(own.segments[name])
            own.whole[name] = {int(k): mask[:, :, k].T.copy() for k in np.flatnonzero(mask.any(axis=(0, 1)))}
        return own

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for slices in self.whole.values() for part in slices.values())

    def keep(self, written: Iterable[StoredSegment]) -> None:
        """Remember what was written, so that a label has the same value the next time."""
        for segment in written:
            self.segments.setdefault(segment.name, segment)

    def sentence(self) -> str:
        """What the user should know of segments that overlap; "" if none do."""
        if not self.above:
            return ""
        told = [f"{', '.join(sorted(upper))} on {lower}" for lower, upper in sorted(self.above.items())]
        return f"Segments overlap: {'; '.join(told[:10])}. The one on top is shown, and both are saved whole."

    def beneath(self, name: str, k: int, shown: np.ndarray, values: Mapping[str, int]) -> np.ndarray | None:
        """Where on a slice a label goes on beneath others, (H, W) boolean; None if nowhere.

        Args:
            name: of the label.
            k: slice.
            shown: (H, W) values of the workspace.
            values: by name, of the workspace.
        """
        part = self.whole.get(name, {}).get(k)
        if part is None:
            return None
        return np.asarray(part & np.isin(shown, [values[n] for n in self.above[name] if n in values]))

    def in_files(self, values: Mapping[str, int], used: Iterable[str]) -> dict[str, StoredSegment]:
        """The segments to be written, by name: those of the file keep their values, new ones get what is free.

        Args:
            values: by name, of the workspace; a new label keeps it if nothing in the file has it.
            used: names of labels with voxels.
        """
        taken = {v for s in self.segments.values() for v in (s.value, s.layer_value)}
        out = {}
        with_voxels = set(used)
        fresh = {name for name in with_voxels if name not in self.segments}
        meant = set(values.values())
        for name in sorted(values, key=lambda n: values[n]):
            if name in self.segments and (name in with_voxels or self.as_segmentation):
                out[name] = self.segments[name]
            elif name in fresh:
                value = values[name]
                if value in taken:
                    value = next(v for v in range(1, 2**16) if v not in taken and v not in meant)
                taken.add(value)
                out[name] = StoredSegment(name, value, 0, value)
        ranks = {name: n for n, name in enumerate(self.segments)}
        ordered = sorted(out, key=lambda n: (ranks.get(n, len(ranks)), out[n].value))
        return {name: replace(out[name], name=name) for name in ordered}


def unique_names(segments: Iterable[StoredSegment]) -> dict[int, str]:
    """A name of its own for each value, such as viewers take; the second `lesion` is `lesion 2`."""
    listed = list(segments)
    plain = {s.value: _plain(s.name) or f"label {s.value}" for s in listed}
    taken = set(plain.values())
    out: dict[int, str] = {}
    for value, name in plain.items():
        if name in out.values():
            free = (f"{name[: _LONGEST_NAME - 4]} {n}" for n in range(2, len(listed) + 2))
            name = next(one for one in free if one not in taken)
            taken.add(name)
        out[value] = name
    return out


def _plain(name: str) -> str:
    return "".join(c for c in " ".join(name.split()) if c.isprintable())[:_LONGEST_NAME].strip()
