"""What a user does at a workspace: prompt, segment, replace, save."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmed.imaging.grid import Grid, image_grid, move_labels
from segmed.imaging.label_writing import write_labels
from segmed.imaging.picture import Picture
from segmed.imaging.reading import fingerprint
from segmed.imaging.seg_nrrd import SEGMENTATION
from segmed.methods.predictor import Masks
from segmed.server.automatic import AutomaticInferTask
from segmed.server.crossings import crossed_labels, crossing_note
from segmed.server.errors import BadRequest
from segmed.server.infer import PromptInferTask
from segmed.server.journal import image_identity
from segmed.server.label_intake import noted, open_label
from segmed.server.open_object import OpenObject
from segmed.server.patches import Patch
from segmed.server.sent_grid import parse_grid
from segmed.server.studies import FINAL, label_map
from segmed.server.workspace import Workspace, label_name
from segmed.server.workspace_bodies import Client, LabelMapParams, PromptBody, SegmentBody

if TYPE_CHECKING:
    from segmed.server.app import SegMedApp

_STALE = (
    "Your work on this image has changed since this page last heard of it: in another tab, by another user of your "
    "name or by a restart of the server. It is shown anew; nothing was done, so do that again."
)
_LARGER = 8  # times the image that a sent label map may be


def workspace_key(login: str, client: str, user: str, image: str) -> tuple[str, str, str]:
    """Whose work it is and on what; arguments as those of `WorkspaceActions`."""
    return login, client.strip() or user, image


class WorkspaceActions:
    """One request of one user on one image.

    Args:
        app: has models, images and workspaces.
        image: id.
        client: what the user's program calls itself.
        login: whom the server knows the user as.
        user: whom active learning knows the user as.

    Attributes:
        path: of the image.
        picture: in the window of the settings.
        work: the workspace, while `open`.
        notes: sentences for the user.
        seconds: that parts of the request took.
    """

    work: Workspace

    def __init__(self, app: SegMedApp, image: str, client: str, login: str, user: str) -> None:
        self.app, self.image, self.client, self.user = app, image, client, user
        self.path = app.image_path(image)
        start = time.perf_counter()
        self.picture = self._show(None)
        self.seconds = {"open": round(time.perf_counter() - start, 4)}
        self.notes: list[str] = []
        self._key = workspace_key(login, client, user, image)

    @contextlib.contextmanager
    def open(self, returning: bool = False, belief: Client | None = None) -> Iterator[WorkspaceActions]:
        """Take the workspace, for nobody else meanwhile.

        Args:
            returning: the user begins or comes back, so that what others saved meanwhile counts.
            belief: the state that the client works on.

        Raises:
            BadRequest: (409) the client believes in another state, or (429) it has asked too often.
        """
        with (
            self.app.turns.take("/".join(self._key[:2]), self.image),
            self.app.workspaces.use(self._key, self._begin, self._identity) as (self.work, lost),
        ):
            self.notes += lost
            if self.work.shape != self.picture.shape:
                self.work.shape = self.picture.shape
                self.work.identity = self._identity()
                self._reload("The image itself has been replaced, so your work on the former one is gone.")
            elif returning and self.work.base != self._stored():
                if self.work.unsaved:
                    self.notes.append("Another label of this image was saved since you began. Yours will replace it.")
                else:
                    self._reload("")
            if belief is not None:
                self._check(belief)
            if returning:
                self.app.learning.record_activity(self.image, self.user)
            self.work.touch()
            yield self

    def to_json(
        self, patches: Sequence[Patch], touched: Sequence[int] = (), replaced: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The answer to the client.

        Args:
            patches: what has changed.
            touched: slices that were looked at beside those that changed.
            replaced: voxels by name that other labels have lost to this request's object.
        """
        work = self.work
        empty: dict[str, Any] = {"box": None, "foreground": [], "background": []}
        return {
            "changes": [patch.to_json() for patch in patches],
            "labels": work.labels,
            "can_undo": work.can_undo,
            "can_redo": work.can_redo,
            "prompt": work.opened.to_json() if work.opened else empty,
            "slices": sorted({*touched, *(patch.k for patch in patches)}),
            "replaced": dict(replaced or {}),
            "unsaved": work.unsaved,
            "revision": work.settle(),
            "boot": self.app.workspaces.boot,
            "warnings": list(dict.fromkeys(self.notes)),
            "seconds": self.seconds,
        }

    def prompt(self, body: PromptBody) -> dict[str, Any]:
        """Add to the open object, or begin one, and segment it.

        Raises:
            BadRequest: no such model, or one without prompts.
            ValueError: an unusable prompt; nothing has changed then.
        """
        task = self._task(body.model, PromptInferTask)
        picture, work = self._show(body.window), self.work
        clean = self.app.engine.denoised(picture, body.denoise)
        opened = self._described(body)
        scribbles = opened.scribbles(picture.shape)
        corrected = not body.box and not body.lasso and task.corrects_masks(body.device)
        prompt = opened.prompt(picture.shape, scribbles, with_result=corrected)
        masks: Masks
        masks, notes = self._timed(lambda: task.segment(clean, prompt, body.device, finish=body.finish))
        self.notes += notes
        involved = sorted({*opened.under, *masks, *scribbles.foreground, *scribbles.background})
        bare = {k: opened.without_it(k, work.slice(k)) for k in involved}
        opened, slices = opened.painted(masks, scribbles, bare, body.overwrite)
        work.value_of(body.label)
        found = {k: patch.full(work.shape) for k, patch in opened.result.items()}
        replaced = self._crossed(found, bare, [opened.value], body.overwrite)
        patches = work.change(slices, opened)
        work.prompts += 1
        self._answered(task, body.model, body.device)
        if not body.trial:
            self.app.learning.record_activity(self.image, self.user, 1, body.model)
        return self.to_json(patches, sorted(masks), replaced)

    def segment(self, body: SegmentBody) -> dict[str, Any]:
        """Label the volume; labels that the model knows are replaced, others stay unless they are to be overwritten.

        Raises:
            BadRequest: no such model, or one that needs prompts.
        """
        task = self._task(body.model, AutomaticInferTask)
        work, clean = self.work, self.app.engine.denoised(self._show(body.window), body.denoise)
        labels: np.ndarray
        labels, names, notes = self._timed(lambda: task.segment(clean, body.device))
        self.notes += notes
        table = np.array([0, *(work.value_of(name) for name in names)], np.uint8)
        slices, found, bare = {}, {}, {}
        for k in {*work.filled(), *(int(k) for k in np.flatnonzero(labels.any(axis=(0, 1))))}:
            values, structures = work.slice(k), table[labels[:, :, k].T]
            bare[k], found[k] = values.copy(), structures > 0
            values[np.isin(values, table[1:])] = 0
            taken = found[k] & (body.overwrite | (values == 0))
            slices[k] = np.where(taken, structures, values)
        replaced = self._crossed(found, bare, table[1:].tolist(), body.overwrite)
        self._answered(task, body.model, body.device)
        return self.to_json(work.change(slices), replaced=replaced)

    def replace(self, given: LabelMapParams, read: Callable[[int], bytes]) -> dict[str, Any]:
        """The whole label map of a viewer in place of what is there, as one step.

        Args:
            given: its grid and names.
            read: gives its bytes, of a given number.

        Raises:
            BadRequest: an impossible grid.
            ValueError: other bytes, or a grid that is not that of the image.
        """
        work, size = self.work, tuple(given.size)
        count = math.prod(size)
        if min(size) < 1 or count > _LARGER * math.prod(work.shape):
            raise BadRequest(f"A label map of the size {list(size)} does not belong to this image. Check its size.")
        array = np.frombuffer(read(count), np.uint8).reshape(size, order="F")
        grid = self.grid
        moved = move_labels(array, parse_grid(given, grid), grid)
        table = np.zeros(256, np.uint8)
        for value in np.flatnonzero(np.bincount(moved.ravel(), minlength=256)):
            if value:
                table[value] = work.value_of(given.names.get(int(value)) or f"label {value}")
        filled = {*work.filled(), *(int(k) for k in np.flatnonzero(moved.any(axis=(0, 1))))}
        work.by_hand = True
        return self.to_json(work.change({k: table[moved[:, :, k].T] for k in filled}))

    def save(self, tag: str) -> dict[str, Any]:
        """Save into the studies.

        Raises:
            BadRequest: the studies cannot be reached; nothing is saved then.
        """
        work, store = self.work, self.app.datastore()
        found = work.segments()
        flat = found.flat()  # what the page shows of it, where segments overlap
        names = [segment.name for segment in found.segments if found.mask(segment).any()]
        info = {
            "label_info": [{"name": s.name, "idx": s.value} for s in found.segments if s.name in names],
            "segments": noted(found),
            "client_id": self.client,
            "model": work.model,
            "model_version": work.version,
            "automatic": bool(work.model) and not work.prompts and not work.by_hand,
            "prompts": work.prompts,
            "seconds": round(work.seconds, 3),
        }
        notes = [] if names else ["The label map is empty; it was saved so, and there is no DICOM SEG of it."]
        if tag == FINAL and self._stored() != work.base:
            notes.append("Another label of this image was saved since you began; yours has replaced it.")
        with tempfile.TemporaryDirectory(prefix="save-") as folder:
            layered = work.stored.as_segmentation or len(found.layers) > 1
            file = Path(folder) / f"label{SEGMENTATION if layered else '.nii.gz'}"
            write_labels(found, self.picture.affine, file, like=self.path)
            label = store.save_label(self.image, str(file), tag, info)
        work.stored.keep(found.segments)
        if tag == FINAL:
            work.unsaved, work.base = False, self._stored()
            self.app.on_save_label(self.image, label, self.user)
        told = store.get_label_info(label, tag)
        notes += [str(told["seg_note"])] if told.get("seg_note") and names else []
        return {
            "label": label,
            "seg": told.get("seg_sop"),
            "note": " ".join(notes),
            "voxels": {s.name: int((flat == s.value).sum()) for s in found.segments if s.name in names},
            "revision": work.settle(),
            "boot": self.app.workspaces.boot,
        }

    def _check(self, belief: Client) -> None:
        boot = self.app.workspaces.boot
        if belief.revision not in (None, self.work.settle()) or belief.boot not in (None, boot):
            raise BadRequest(_STALE, 409)

    def _crossed(
        self, found: Mapping[int, np.ndarray], bare: Mapping[int, np.ndarray], own: Sequence[int], overwrite: bool
    ) -> dict[str, int]:
        """Voxels by name that other labels have lost; see `crossed_labels`."""
        crossed = crossed_labels(found, bare, own, self.work.labels)
        self.notes += crossing_note(crossed, overwrite)
        return crossed if overwrite else {}

    def _identity(self) -> str:
        return image_identity(Path(self.path))

    def _described(self, body: PromptBody) -> OpenObject:
        """The open object, or a new one, with what the body adds."""
        work, name = self.work, label_name(body.label)
        opened = work.opened
        if opened is None or opened.label != name:
            opened = OpenObject(name, work.value_of(name, keep=False))
        shape = work.shape
        opened, warnings = opened.with_clicks(shape, body.box, body.foreground, body.background)
        self.notes += warnings
        opened = opened.with_strokes(shape, body.scribbles)
        if body.lasso:
            opened = opened.with_lasso(shape, body.lasso)
        named = opened.box or opened.foreground or opened.masks or any(into for into, _ in opened.strokes)
        if body.refine or (not named and (opened.background or opened.strokes)):
            masks = {k: work.slice(k) == opened.value for k in work.filled()}
            opened = replace(opened.with_masks({k: m for k, m in masks.items() if m.any()}), adopts=True)
            if not opened.masks and body.refine:
                self.notes.append(f"There is nothing of {name} yet that could be refined.")
        return opened

    def _answered(self, task: Any, model: str, device: str | None) -> None:
        self.work.model = model
        self.work.version = task.engine.predictor(task.method, device).segmenter.version

    def _task(self, model: str, kind: type[Any]) -> Any:
        task = self.app.task(model)
        if not isinstance(task, kind):
            wanted = "takes no prompts; segment the volume with it" if kind is PromptInferTask else "needs prompts"
            raise BadRequest(f"The model {model} {wanted}, or choose another one.")
        return task

    def _timed(self, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        with self.app.learning.throttle.request():
            found = run()
        self.seconds["segment"] = round(time.perf_counter() - start, 4)
        return found

    @property
    def grid(self) -> Grid:
        """Of the image."""
        return image_grid(self.path, self.picture.shape, self.picture.affine)

    def _show(self, window: str | None) -> Picture:
        return self.app.engine.pictures.get(self.path, window or self.app.engine.settings.window)

    def _begin(self) -> Workspace:
        work = Workspace(self.picture.shape, self.app.engine.settings.labels)
        self._load(work)
        return work

    def _reload(self, note: str) -> None:
        self.work.load(np.zeros(self.work.shape, np.uint8), {})
        self._load(self.work)
        self.notes += [note] if note else []

    def _load(self, work: Workspace) -> None:
        """Begin with the final label, if there is one and it can be read; else say why not."""
        work.base = self._stored()
        try:
            final = label_map(self.app.datastore(), self.image, FINAL, self.app.engine.settings.structures)
            if final is None:
                return
            found = open_label(final.file, self.grid, final.names)
            work.open(found, final.file.name.lower().endswith(SEGMENTATION))
        except BadRequest:  # such as of a PACS that does not answer
            raise
        except (OSError, ValueError) as error:
            self.notes.append(f"The finished label of this image cannot be opened: {error}")
            return
        read = self.app.datastore().get_label_info(self.image, FINAL).get("note")
        self.notes += [note for note in (str(read or ""), work.stored.sentence()) if note]

    def _stored(self) -> str:
        """Names the final label as it is in the studies now; "" without one, or with one that cannot be read."""
        try:
            final = label_map(self.app.datastore(), self.image, FINAL, {})
        except BadRequest:
            raise
        except ValueError:
            return ""
        return fingerprint(final.file) if final and final.file.exists() else ""
