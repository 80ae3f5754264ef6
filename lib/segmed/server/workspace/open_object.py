"""The object that a user is prompting: all of its prompts, and its present mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segmed.imaging.prompts import Box, Point, Prompt, parse_prompt
from segmed.imaging.scribbles import Scribbles, check_slice, draw_lasso, draw_stroke
from segmed.server.workspace.bodies import Lasso, Stroke
from segmed.server.workspace.drawn_lines import DrawnLine
from segmed.server.workspace.patches import Patch

_MOST_CLICKS = 500
_MOST_STROKES = 200
Slices = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class OpenObject:
    """An immutable state of the object, which the history can keep.

    Attributes:
        label: Name of the label.
        value: Value of the label.
        box: Box, or None.
        foreground: Clicks on the object.
        background: Clicks beside the object.
        strokes: Painted pixels in the order of painting, True for those of the object.
        masks: Mask prompts by slice: insides of lassos, or the label that is to be refined.
        adopts: Whether earlier voxels of the label belong to the object, and are replaced when it is
            segmented again.
        under: Label values on the slices before the object was painted.
        result: Mask of the object by slice.
        axis: Axis of the image across the plane in which it is prompted at present.
        settled: Mask of the object by slice, as it was when it was last prompted in another plane.
        lines: Strokes in the order of `strokes`, and the lasso, as they were drawn.
    """

    label: str
    value: int
    box: Box | None = None
    foreground: tuple[Point, ...] = ()
    background: tuple[Point, ...] = ()
    strokes: tuple[tuple[bool, Patch], ...] = ()
    masks: Mapping[int, Patch] = field(default_factory=dict)
    adopts: bool = False
    under: Mapping[int, Patch] = field(default_factory=dict)
    result: Mapping[int, Patch] = field(default_factory=dict)
    axis: int = 2
    settled: Mapping[int, Patch] = field(default_factory=dict)
    lines: tuple[DrawnLine, ...] = ()

    @property
    def nbytes(self) -> int:
        kept = (
            *self.masks.values(),
            *self.under.values(),
            *self.result.values(),
            *self.settled.values(),
            *(p for _, p in self.strokes),
        )
        clicks = 100 * (len(self.foreground) + len(self.background))
        return clicks + sum(200 + len(p.data) for p in kept) + sum(line.nbytes for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """The object as JSON values for clients."""
        box = [*self.box.i, *self.box.j, *self.box.k] if self.box else None
        return {
            "label": self.label,
            "box": box,
            "foreground": [list(point) for point in self.foreground],
            "background": [list(point) for point in self.background],
            **({} if self.axis == 2 else {"axis": self.axis}),
            **({"strokes": len(self.strokes)} if self.strokes else {}),
            **({"lasso": sorted(self.masks)} if self.has_outline else {}),
            **({"lines": [line.to_json() for line in self.lines]} if self.lines else {}),
        }

    def in_plane(self, axis: int) -> OpenObject:
        """The object for prompts in the plane across an axis.

        What was said in another plane has become part of the result and of the scribbles; only a box over
        several slices means the same in all planes.
        """
        if axis == self.axis:
            return self
        box = self.box
        thick = box is not None and all(low < high for low, high in (box.i, box.j, box.k))
        return replace(
            self,
            axis=axis,
            box=box if thick else None,
            foreground=(),
            background=(),
            masks=self.masks if self.adopts else {},
            settled=self.result,
            lines=self._strokes_drawn,
        )

    def with_clicks(
        self,
        shape: tuple[int, int, int],
        box: Sequence[float] | None,
        foreground: Sequence[Sequence[float]],
        background: Sequence[Sequence[float]],
    ) -> tuple[OpenObject, list[str]]:
        """The object with a new box and more clicks, and messages about clicks that were left out.

        Raises:
            ValueError: Coordinates are not numbers, all clicks lie outside the image, or there are too many
                clicks.
        """
        if not box and not foreground and not background:
            return self, []
        # with a mask nothing is missing yet; whether the object is named is asked later
        known = None if box or foreground else np.zeros(shape, bool)
        prompt, warnings = parse_prompt(shape, box, foreground, background, known, across=self.axis)
        added = replace(
            self,
            box=prompt.box or self.box,
            masks={} if prompt.box else self.masks,
            lines=self._strokes_drawn if prompt.box else self.lines,
            foreground=tuple(dict.fromkeys((*self.foreground, *prompt.foreground))),
            background=tuple(dict.fromkeys((*self.background, *prompt.background))),
        )
        if len(added.foreground) + len(added.background) > _MOST_CLICKS:
            raise ValueError(
                f"One object takes {_MOST_CLICKS} clicks. Accept it and begin another, or use scribbles."
            )
        return added, warnings

    def with_strokes(self, shape: tuple[int, int, int], strokes: Iterable[Stroke]) -> OpenObject:
        """The object with more scribbles on stored slices.

        Raises:
            ValueError: The scribbles lie outside the image, or there are too many.
        """
        drawn = []
        for stroke in strokes:
            check_slice(stroke.k, shape)
            pixels = draw_stroke(stroke.points, stroke.width, shape)
            patch = Patch.cut(stroke.k, pixels, pixels)
            assert patch is not None
            drawn.append((stroke.foreground, patch))
        return self.with_drawn(drawn)

    def with_drawn(self, strokes: Iterable[tuple[bool, Patch]]) -> OpenObject:
        """The object with more painted pixels, each True where they belong to the object.

        Raises:
            ValueError: There are too many strokes.
        """
        drawn = [*self.strokes, *strokes]
        if len(drawn) > _MOST_STROKES:
            raise ValueError(f"One object takes {_MOST_STROKES} strokes. Accept it and begin another.")
        return replace(self, strokes=tuple(drawn))

    def with_lasso(self, shape: tuple[int, int, int], lasso: Lasso) -> OpenObject:
        """The object with the inside of a closed line in place of the box.

        Raises:
            ValueError: The line encloses no voxel of the image.
        """
        box, inside = draw_lasso(lasso.k, lasso.points, shape)
        return self.with_masks({lasso.k: inside}, box)

    def with_masks(self, masks: Slices, box: Box | None = None) -> OpenObject:
        """The object with masks (H, W) by slice as prompt."""
        cut = {k: Patch.cut(k, mask, mask) for k, mask in masks.items()}
        masks_now = {k: patch for k, patch in cut.items() if patch}
        return replace(self, masks=masks_now, box=box or self.box, lines=self._strokes_drawn)

    @property
    def _strokes_drawn(self) -> tuple[DrawnLine, ...]:
        """The lines without the lasso."""
        return tuple(line for line in self.lines if not line.closed)

    def scribbles(self, shape: tuple[int, int, int]) -> Scribbles:
        """The scribbles; later strokes count where they cross earlier ones."""
        out = Scribbles()
        for foreground, patch in self.strokes:
            for k, pixels in patch.on_slices(shape).items():
                out = out.with_stroke(k, pixels, foreground)
        return out

    def prompt(
        self,
        shape: tuple[int, int, int],
        scribbles: Scribbles,
        with_result: bool = False,
        by_strokes: bool = True,
    ) -> Prompt:
        """The whole prompt for a model.

        Args:
            shape: Shape (I, J, K) of the image.
            scribbles: Scribbles of the object.
            with_result: Whether to include the present result as the mask to correct.
            by_strokes: Whether to include the masks of painted slices, corrected by the strokes, for methods
                that do not correct masks themselves.

        Raises:
            ValueError: No prompt shows the object.
        """
        masks = {k: patch.full(shape) for k, patch in self.masks.items()}
        present = masks | {k: patch.full(shape) for k, patch in self.result.items()}
        if with_result:
            masks = present
        if by_strokes:
            masks = masks | scribbles.mask_prompts(present)
        volume = None
        if masks:
            volume = np.zeros(shape, bool, order="F")
            for k, mask in masks.items():
                volume[:, :, k] = mask.T
        drawn = self.has_outline and not with_result
        return Prompt(self.box, self.foreground, self.background, volume, scribbles.maps(), drawn)

    @property
    def has_outline(self) -> bool:
        """Whether the masks are the insides of lassos."""
        return bool(self.masks) and not self.adopts

    def without_it(self, k: int, values: np.ndarray) -> np.ndarray:
        """Slice k (H, W) as it was before the object was painted; `values` is changed."""
        if k in self.under:
            self.under[k].put(values)
        return values

    def painted(
        self, masks: Slices, scribbles: Scribbles, slices: Slices, overwrite: bool = True
    ) -> tuple[OpenObject, dict[int, np.ndarray]]:
        """Paint the object again.

        Args:
            masks: Masks (H, W) by the model, boolean, by slice.
            scribbles: Scribbles, which override the model.
            slices: Label map without the object, (H, W) by slice, on all slices with its present or previous
                mask or scribbles.
            overwrite: Whether the object takes voxels of other labels.

        Returns:
            The object with its new result, and the slices with the object.
        """
        corrected = scribbles.correct(masks)
        new, under, result = {}, {}, {}
        for k, base in slices.items():
            values = base.copy()
            if k in masks and self.adopts:
                values[values == self.value] = 0
            if k in corrected:
                values[corrected[k] & (overwrite | np.isin(base, (0, self.value)))] = self.value
                if (patch := Patch.cut(k, corrected[k], corrected[k])) is not None:
                    result[k] = patch
            if k in scribbles.background:
                values[scribbles.background[k] & (values == self.value)] = 0
            if (patch := Patch.cut(k, base, base != values)) is not None:
                under[k] = patch
            new[k] = values
        return replace(self, under=under, result=result), new
