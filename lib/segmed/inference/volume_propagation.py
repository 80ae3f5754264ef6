"""Propagation through a volume by a method that reads the neighbouring slice, or by a method's own memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.inference.cross_planes import CrossPlanes, views_across
from segmed.inference.neighbour_walk import NeighbourWalk
from segmed.inference.predictor_steps import has_box_or_clicks, has_thick_box, is_blank
from segmed.inference.progress import Masks, Progress
from segmed.inference.propagation import box_around
from segmed.inference.refinement.refinement import Refinement
from segmed.inference.three_planes import MOST_SLICES, ThreePlanes
from segmed.methods.base.segmenter import Logits, StackPrompt

if TYPE_CHECKING:
    from segmed.inference.predictor import Predictor

_TRIED = 5  # slices of a box that are tried before one of them is followed


def walk_neighbours(
    predictor: Predictor,
    picture: Picture,
    prompt: Prompt,
    progress: Progress | None,
    refine: Refinement | None,
) -> Masks:
    """Segment a volume with a method that reads neighbouring slices: masks (H, W) by slice index."""
    done, quality = 0, 1.0
    views = views_across(picture)
    # Refinements know no other planes.
    votes = prompt.mask is None and refine is None
    most = _most_slices(picture, prompt, len(views) if votes else 0)

    def read(logits: Logits) -> Tensor:
        nonlocal quality
        quality = 1.0 if logits.quality is None else float(logits.quality[0, 0])
        return logits.masks > 0

    def predict_on(
        seen: Picture, k: int, slice_prompt: SlicePrompt, counted: bool = True
    ) -> tuple[np.ndarray, float]:
        nonlocal done, quality
        if progress:
            progress(min(done, most), most, {})
        done, quality = done + counted, 1.0
        if refine and seen is picture:
            return predictor.segment(picture, {k: slice_prompt}, None, refine)[k], quality
        return predictor.predict(seen, {k: slice_prompt}, None, read)[k], quality

    def found(k: int, mask: np.ndarray) -> None:
        if progress:
            progress(min(done, most), most, {k: mask})

    walk = NeighbourWalk(
        prompt,
        picture.shape[2],
        picture.slice,
        partial(predict_on, picture),
        _thickness(picture),
        clean=not predictor.loose_parts,
    )

    def seen_across(seen: Picture, k: int, slice_prompt: SlicePrompt) -> np.ndarray:
        return predict_on(seen, k, slice_prompt, False)[0]

    planes = CrossPlanes(picture, views, seen_across)
    masks = replace(walk, found=found, course=planes.course).run()
    if not votes:
        return masks

    def follow(seen: Picture, shown: Prompt) -> Masks:
        return replace(
            walk,
            prompt=shown,
            depth=seen.shape[2],
            image=seen.slice,
            predict=partial(predict_on, seen),
            thickness=_thickness(seen),
        ).run()

    return ThreePlanes(picture, views, prompt, follow, not predictor.loose_parts).vote(masks)


def _most_slices(picture: Picture, prompt: Prompt, planes: int) -> int:
    """Number of slices that are expected at most, those of other planes included, for the progress."""
    box = prompt.box
    if box is None:
        return picture.shape[2]
    along = box.k[1] - box.k[0] + 1 + _TRIED if has_thick_box(prompt) else picture.shape[2]
    across = (box.i[1] - box.i[0] + 1, box.j[1] - box.j[0] + 1)
    return along + sum(min(side, MOST_SLICES) + _TRIED for side in across[:planes])


def _thickness(picture: Picture) -> float:
    """Distance of neighbouring slices in px of a slice."""
    steps = np.linalg.norm(picture.affine[:3, :3], axis=0)
    return float(steps[2] / max(np.sqrt(steps[0] * steps[1]), 1e-6)) or 1.0


def track_objects(
    predictor: Predictor,
    picture: Picture,
    prompts: Sequence[Prompt],
    progress: Progress | None,
    refine: Refinement | None,
) -> list[Masks]:
    """Track objects through a volume by the method's own memory.

    Returns:
        Masks (H, W) by slice index, for each object.
    """
    size, total = (picture.shape[1], picture.shape[0]), picture.shape[2] * len(prompts)
    found: list[Masks] = [{} for _ in prompts]
    stacks: dict[int, StackPrompt] = {}
    for n, stack in enumerate(map(StackPrompt.of, prompts)):
        found[n] = {k: np.zeros(size, bool) for k in stack.shown if is_blank(picture, k)}
        shown = {k: p for k, p in stack.shown.items() if k not in found[n]}
        if refine:
            masks = predictor.segment(picture, shown, None, refine)
            shown = {k: SlicePrompt(mask=mask) for k, mask in masks.items() if mask.any()}
        # A mask without a box or clicks is kept unchanged.
        found[n] |= {k: p.mask for k, p in shown.items() if p.mask is not None and not has_box_or_clicks(p)}
        if shown:
            stacks[n] = StackPrompt(shown, stack.excluded)
    if not stacks:
        return found
    for done, (n, k, probability) in enumerate(_tracked(predictor, picture, stacks, size), start=1):
        mask = (probability > 0.5) & (not is_blank(picture, k))
        if refine and mask.any() and k not in found[n]:
            mask = predictor.refined(picture, k, probability, box_around(mask, 0), refine)
        found[n].setdefault(k, mask)
        if progress:
            progress(min(done, total), total, {k: found[n][k]} if len(prompts) == 1 else {})
    return found


def _tracked(
    predictor: Predictor, picture: Picture, stacks: Mapping[int, StackPrompt], size: tuple[int, int]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Object, slice and probability (H, W), step by step; from the first step again if the CPU takes over."""
    objects = [*stacks]

    def begin() -> Iterator[tuple[int, int, Tensor]]:
        return predictor.segmenter.segment_stack(
            lambda k: predictor.embedding(picture, [k]), picture.shape[2], [*stacks.values()], size
        )

    def advance() -> tuple[int, int, np.ndarray] | None:
        step = next(steps, None)
        return None if step is None else (objects[step[0]], step[1], step[2].sigmoid().cpu().numpy())

    steps = begin()
    try:
        yield from iter(lambda: predictor.queue.run(advance), None)
    except torch.OutOfMemoryError as error:
        predictor.leave_device(error)
        steps = begin()
        yield from iter(lambda: predictor.queue.run(advance), None)
