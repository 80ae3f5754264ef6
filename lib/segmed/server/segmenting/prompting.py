"""The two requests that run a model: a prompt for the open object, and an automatic model on the volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.planes import SLICES, PlaneView, axis_across
from segmed.inference.progress import Masks
from segmed.server.segmenting.jobs import Job, Stopped
from segmed.server.segmenting.plane_prompts import model_prompt, recorded_prompt
from segmed.server.segmenting.preview import Preview
from segmed.server.tasks.automatic import AutomaticInferTask
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.workspace.actions import WorkspaceActions
from segmed.server.workspace.bodies import PromptBody, SegmentBody
from segmed.server.workspace.edits.labels import keep_locked, refuse_locked
from segmed.server.workspace.open_object import OpenObject
from segmed.server.workspace.prompt import described_object, merged_slices


def run_prompt(actions: WorkspaceActions, body: PromptBody, job: Job) -> dict[str, Any]:
    """Add to the open object, or begin one, and segment it in the plane of the prompt.

    Raises:
        BadRequest: There is no such model, or it takes no prompts.
        ValueError: The prompt is unusable, or the label is locked; nothing is changed then.
    """
    task: PromptInferTask = actions.task(body.model, PromptInferTask)
    picture, work = actions.show(body.window), actions.work
    refuse_locked(work, body.locked, [work.value_of(body.label, keep=False)])
    clean = actions.engine.denoised(picture, body.denoise)
    view = PlaneView.of(work.shape, picture.affine, axis_across(body.plane, picture.affine))
    opened, warnings = described_object(work, body, view)
    actions.notes += warnings
    scribbles = opened.scribbles(work.shape)
    itself = task.corrects_masks(body.device)
    corrected = itself and not body.box and not body.lasso
    asked = model_prompt(opened, view, scribbles, with_result=corrected, by_strokes=not itself)

    def paint(bare: np.ndarray, mask: np.ndarray) -> np.ndarray:
        taken = mask & (body.overwrite | np.isin(bare, (0, opened.value)))
        return np.where(taken, opened.value, bare).astype(np.uint8)

    preview = Preview(work, view, lambda k: opened.without_it(k, work.slice(k)), paint)
    labels = {**work.labels, opened.label: opened.value}
    found: Masks = {}

    def progress(done: int, most: int, masks: Mapping[int, np.ndarray]) -> None:
        found.update(masks)
        shown = {n: view.reduced(mask) for n, mask in masks.items()} if job.watched else {}
        job.report(done, most, preview.patches(shown), labels)

    job.begin()
    stopped = ""
    try:
        masks, notes = actions.timed(
            lambda: task.segment(
                view.picture(clean), asked, body.device, refinement=body.refinement, progress=progress
            )
        )
    except Stopped as ended:
        if not (ended.keep and found):
            return _dropped(actions, preview, ended)
        masks, notes, stopped = _present(asked.mask if corrected else None) | found, [ended.note], "kept"
    actions.notes += notes
    masks = {n: view.reduced(mask) for n, mask in masks.items()}
    opened, stored = _merged(opened, view, masks, task.volume and (corrected or bool(body.box or body.lasso)))
    involved = sorted({*opened.under, *stored, *scribbles.foreground, *scribbles.background})
    bare = {k: opened.without_it(k, work.slice(k)) for k in involved}
    opened, slices = opened.painted(stored, scribbles, bare, body.overwrite)
    slices, locked = keep_locked(work, body.locked, bare, slices)
    work.value_of(body.label)
    result = {k: patch.full(work.shape) for k, patch in opened.result.items()}
    replaced = actions.crossed(result, bare, [opened.value, *locked], body.overwrite)
    patches = work.change(slices, opened)
    work.prompts += 1
    record = task.provenance(
        actions.path,
        picture,
        recorded_prompt(opened, view, asked),
        body.device,
        {"refinement": body.refinement, "denoise": body.denoise, "stopped": stopped},
    )
    actions.answered(task, body.model, body.device, [body.label], record)
    if not body.trial:
        actions.learning.record_activity(actions.image, actions.user, 1, body.model)
    answer = actions.to_json([*patches, *preview.corrections()], sorted(stored), replaced)
    return answer | {"stopped": stopped}


def run_automatic(actions: WorkspaceActions, body: SegmentBody, job: Job) -> dict[str, Any]:
    """Label the volume; labels that the model knows are replaced, others only if `overwrite` is set.

    Raises:
        BadRequest: There is no such model, or it needs prompts.
    """
    task: AutomaticInferTask = actions.task(body.model, AutomaticInferTask)
    work, clean = actions.work, actions.engine.denoised(actions.show(body.window), body.denoise)
    known = dict(work.labels)
    names = task.engine.predictor(task.method, body.device).segmenter.labels
    table = np.array([0, *(work.value_of(name) for name in names)], np.uint8)

    def paint(bare: np.ndarray, found: np.ndarray) -> np.ndarray:
        values = np.where(np.isin(bare, table[1:]), 0, bare)
        return np.where((found > 0) & (body.overwrite | (values == 0)), table[found], values).astype(np.uint8)

    view = PlaneView.of(work.shape, clean.affine, SLICES)
    preview = Preview(work, view, work.slice, paint)
    labels_found: Masks = {}

    def progress(done: int, most: int, found: Mapping[int, np.ndarray]) -> None:
        labels_found.update({k: part.copy() for k, part in found.items()})
        job.report(done, most, preview.patches(found) if job.watched else [], work.labels)

    job.begin()
    stopped, labels = "", np.zeros(0, np.uint8)
    try:
        labels, names, notes = actions.timed(lambda: task.segment(clean, body.device, progress=progress))
    except Stopped as ended:
        if not (ended.keep and labels_found):
            work.labels = known
            return _dropped(actions, preview, ended)
        labels, notes, stopped = stack_slices(labels_found, work.shape), [ended.note], "kept"
    actions.notes += notes
    slices, masks, bare = merged_slices(work, labels, table, body.overwrite)
    slices, locked = keep_locked(work, body.locked, bare, slices)
    if stopped:
        slices, masks = ({k: one[k] for k in labels_found if k in one} for one in (slices, masks))
    replaced = actions.crossed(masks, bare, [*table[1:].tolist(), *locked], body.overwrite)
    options = {"denoise": body.denoise, "stopped": stopped}
    record = task.provenance(actions.path, clean, body.device, options)
    actions.answered(task, body.model, body.device, names, record)
    patches = work.change(slices)
    answer = actions.to_json([*patches, *preview.corrections()], replaced=replaced)
    return answer | {"stopped": stopped}


def _dropped(actions: WorkspaceActions, preview: Preview, ended: Stopped) -> dict[str, Any]:
    """The answer to a request that was stopped and has changed nothing."""
    actions.notes.append(f"{ended.note} Nothing had been found yet." if ended.keep else ended.note)
    return actions.to_json(preview.corrections()) | {"stopped": "dropped"}


def _present(mask: np.ndarray | None) -> Masks:
    """Masks (H, W) by slice of a volume (W, H, N)."""
    if mask is None:
        return {}
    return {int(n): mask[:, :, n].T for n in np.flatnonzero(mask.any(axis=(0, 1)))}


def _merged(opened: OpenObject, view: PlaneView, masks: Masks, whole: bool) -> tuple[OpenObject, Masks]:
    """New masks of a view together with what the object has in other planes.

    Args:
        opened: Object.
        view: View that was segmented.
        masks: Masks (Q, P) by slice of the view.
        whole: Whether the masks are the whole object, so that nothing of its earlier mask is kept.

    Returns:
        The object, and its masks (J, I) by stored slice.
    """
    adopted = opened.masks if opened.adopts and view.axis != SLICES else {}
    over = {} if whole else (opened.settled or adopted)
    stored = view.stored_masks(masks, {k: patch.full(view.shape) for k, patch in over.items()})
    for k in adopted:
        stored.setdefault(k, np.zeros((view.shape[1], view.shape[0]), bool))
    return replace(opened, settled={} if whole else opened.settled), stored
