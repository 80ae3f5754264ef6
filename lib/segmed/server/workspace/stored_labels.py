"""The labels of a workspace as stored in files: values, layers, colours, and voxels beneath other labels.

A workspace shows one label a voxel. In a file, segments may overlap; then the smaller one is shown, and the
other one continues beneath it, as long as one of the segments on top of it is shown there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segmed.imaging.labels.segments import Colour, Segments, StoredSegment

LABELS = 255  # that a label map of one byte per voxel holds

_LONGEST_NAME = 64  # letters that DICOM takes
Slices = Mapping[int, np.ndarray]


@dataclass
class StoredLabels:
    """The contents of the file that a workspace began with.

    Attributes:
        segments: Segments of the file, by their names in the workspace.
        general: Facts that the file states about the segmentation as a whole.
        as_segmentation: Whether the file is a segmentation of 3D Slicer and is to stay one.
        whole: All voxels (H, W), by slice, of the segments beneath others, by name.
        above: Names of the segments on top of them, by name.
        original: Names in the file, by present name, of the segments that the user has renamed.
        colours: Colours that the user has chosen, by name.
    """

    segments: dict[str, StoredSegment] = field(default_factory=dict)
    general: Mapping[str, str] = field(default_factory=dict)
    as_segmentation: bool = False
    whole: dict[str, Slices] = field(default_factory=dict)
    above: dict[str, frozenset[str]] = field(default_factory=dict)
    original: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[str, Colour] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Segments, as_segmentation: bool = False) -> StoredLabels:
        """The labels of a file on the grid of the image; segments of equal names become separate labels."""
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
        """Remember the written segments, so that each label keeps its value the next time."""
        for segment in written:
            self.segments.setdefault(segment.name, segment)

    def renamed(self, name: str, new: str) -> StoredLabels:
        """The same labels, one of which has another name."""

        def called(one: Mapping[str, Any]) -> dict[str, Any]:
            return {new if key == name else key: value for key, value in one.items()}

        original = called(self.original)
        if name in self.segments:
            original[new] = self.original.get(name, name)
        upper = {n: frozenset(new if u == name else u for u in on) for n, on in called(self.above).items()}
        return replace(
            self,
            segments=called(self.segments),
            whole=called(self.whole),
            above=upper,
            original=original,
            colours=called(self.colours),
        )

    def without(self, name: str) -> StoredLabels:
        """The labels without one of them, also without its voxels beneath others."""

        def left(one: Mapping[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in one.items() if key != name}

        return replace(
            self,
            segments=left(self.segments),
            whole=left(self.whole),
            above=left(self.above),
            original=left(self.original),
            colours=left(self.colours),
        )

    def coloured(self, name: str, colour: Colour) -> StoredLabels:
        """The same labels, one of which has another colour."""
        return replace(self, colours={**self.colours, name: colour})

    def shown_colours(self, names: Iterable[str]) -> dict[str, Colour]:
        """Colours by name of the labels that have one, by the user's choice or by the file."""
        of_file = {name: s.colour for name, s in self.segments.items() if s.colour}
        return {name: colour for name in names if (colour := self.colours.get(name) or of_file.get(name))}

    def choices(self) -> dict[str, Any]:
        """What the user has renamed and coloured, as JSON values."""
        return {"original": dict(self.original), "colours": {n: list(c) for n, c in self.colours.items()}}

    def chosen(self, choices: Mapping[str, Any], names: Collection[str]) -> StoredLabels:
        """The labels of a file with the `choices` that were made before a restart.

        Args:
            choices: Result of `choices`.
            names: Names of the labels of the workspace; others were deleted.
        """
        own = self
        original = {str(name): str(before) for name, before in choices.get("original", {}).items()}
        for n, before in enumerate(original.values()):  # in two steps, as names may have been exchanged
            own = own.renamed(before, f"\0{n}")
        for n, name in enumerate(original):
            own = own.renamed(f"\0{n}", name)
        for name in own.segments.keys() - set(names):
            own = own.without(name)
        colours = {str(n): (int(r), int(g), int(b)) for n, (r, g, b) in choices.get("colours", {}).items()}
        return replace(own, colours=colours)

    def sentence(self) -> str:
        """A message for the user about segments that overlap; "" if none do."""
        if not self.above:
            return ""
        overlaps = [f"{', '.join(sorted(upper))} on {lower}" for lower, upper in sorted(self.above.items())]
        return (
            f"Segments overlap: {'; '.join(overlaps[:10])}. The one on top is shown, and both are saved "
            f"whole."
        )

    def beneath(self, name: str, k: int, shown: np.ndarray, values: Mapping[str, int]) -> np.ndarray | None:
        """The part (H, W) of a slice where a label continues beneath others, boolean; None if nowhere.

        Args:
            name: Name of the label.
            k: Index of the slice.
            shown: Values (H, W) of the slice in the workspace.
            values: Label values of the workspace by name.
        """
        part = self.whole.get(name, {}).get(k)
        if part is None:
            return None
        return np.asarray(part & np.isin(shown, [values[n] for n in self.above[name] if n in values]))

    def in_layers(
        self,
        shape: tuple[int, int, int],
        values: Mapping[str, int],
        used: Collection[str],
        shown: Slices,
    ) -> Segments:
        """The segments to write, in layers.

        Args:
            shape: Shape (I, J, K) of the image.
            values: Label values of the workspace by name.
            used: Names of the labels that have voxels.
            shown: Values (H, W) of the workspace by slice.
        """
        under = {name: self._all_beneath(name, slices, shown, values) for name, slices in self.whole.items()}
        out = self.in_files(values, {*used, *(name for name, slices in under.items() if slices)})
        most = max((s.layer_value for s in out.values()), default=0)
        kind = np.uint8 if most < 256 else np.uint16
        depth = max((s.layer for s in out.values()), default=0) + 1
        layers = [np.zeros(shape, kind, order="F") for _ in range(depth)]
        for n, layer in enumerate(layers):
            # table (256,): value in this layer by value in the workspace, 0 for segments of other layers
            table = np.zeros(256, kind)
            for name, segment in out.items():
                if segment.layer == n:
                    table[values[name]] = segment.layer_value
            for k, part in shown.items():
                layer[:, :, k] = table[part].T
        for name, slices in under.items():
            for k, part in slices.items():
                layers[out[name].layer][:, :, k][part.T] = out[name].layer_value
        return Segments(tuple(layers), tuple(out.values()), self.general)

    def _all_beneath(
        self, name: str, slices: Collection[int], shown: Slices, values: Mapping[str, int]
    ) -> dict[int, np.ndarray]:
        """The non-empty parts (H, W) where a label continues beneath others, by slice."""
        parts = {k: self.beneath(name, k, shown[k], values) for k in slices if k in shown}
        return {k: part for k, part in parts.items() if part is not None and part.any()}

    def in_files(self, values: Mapping[str, int], used: Iterable[str]) -> dict[str, StoredSegment]:
        """The segments to write, by name: those of the file keep their values, new ones get free values.

        Args:
            values: Label values of the workspace by name; a new label keeps its value if it is free in the
                file.
            used: Names of the labels that have voxels.
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
        return {name: self._as_chosen(name, out[name]) for name in ordered}

    def _as_chosen(self, name: str, segment: StoredSegment) -> StoredSegment:
        """The segment under its present name and in the colour that the user has chosen."""
        if name not in self.colours:
            return replace(segment, name=name)
        fields = {key: value for key, value in segment.fields.items() if key != "Color"}
        return replace(segment, name=name, fields=fields).coloured(self.colours[name])


def unique_names(segments: Iterable[StoredSegment]) -> dict[int, str]:
    """A unique name for each value, as viewers need; the second `lesion` becomes `lesion 2`."""
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


def check_number(labels: int) -> None:
    """Raise ValueError if a file has more labels than the label map of a workspace can hold."""
    if labels > LABELS:
        raise ValueError(f"The label map holds {labels} labels; {LABELS} are the most. Split it.")
