"""The actions of a user on a workspace: open, answer, replace, save. `server/segmenting` runs models."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.grid import Grid, image_grid, move_labels
from segmed.imaging.labels.provenance import Provenance
from segmed.imaging.labels.writing import write_labels
from segmed.imaging.picture import Picture
from segmed.server.datastores.studies import FINAL, ask_again
from segmed.server.http.errors import BadRequest
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.workspace.bodies import Client, LabelMapParams
from segmed.server.workspace.client_grid import parse_grid
from segmed.server.workspace.crossings import crossed_labels, crossing_note
from segmed.server.workspace.journal import image_identity
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.storage import label_info, load_final_label, stored_label_id
from segmed.server.workspace.stored_labels import Slices
from segmed.server.workspace.workspace import Workspace

if TYPE_CHECKING:
    from segmed.server.app import SegMedApp

_STALE = (
    "Your work on this image has changed in another tab, by another user of your name or by a restart of the "
    "server. It is shown again; nothing was done, so repeat the last action."
)
_REPLACES = "Another label of this image was saved since you began. Yours will replace it."
_LARGER = 8  # times the image that a sent label map may be


def workspace_key(login: str, client: str, user: str, image: str) -> tuple[str, str, str]:
    """The key of a workspace; the arguments are those of `WorkspaceActions`."""
    return login, client.strip() or user, image


class WorkspaceActions:
    """One request of one user on one image.

    Args:
        app: App with models, images and workspaces.
        image: Identifier of the image.
        client: Name that the user's program gives itself.
        login: Name of the user who has logged in.
        user: Name of the user in active learning.

    Attributes:
        path: Path of the image.
        picture: Image in the window of the settings.
        work: Workspace, while `open`.
        notes: Messages for the user.
        key: Key of the workspace.
        seconds: Time that parts of the request took, in seconds.
    """

    work: Workspace

    def __init__(self, app: SegMedApp, image: str, client: str, login: str, user: str) -> None:
        self.app, self.image, self.client, self.user = app, image, client, user
        self.engine, self.learning, self.workspaces = app.engine, app.learning, app.workspaces
        self.path = app.image_path(image)
        start = time.perf_counter()
        self.picture = self.show(None)
        self.seconds = {"open": round(time.perf_counter() - start, 4)}
        self.notes: list[str] = []
        self.key = workspace_key(login, client, user, image)

    @contextlib.contextmanager
    def open(self, returning: bool = False, belief: Client | None = None) -> Iterator[WorkspaceActions]:
        """Open the workspace for exclusive use.

        Args:
            returning: Whether the user begins or returns, so that labels saved meanwhile are loaded.
            belief: State that the client works on.

        Raises:
            BadRequest: (409) The client has another state, or (429) has sent too many requests.
        """
        with (
            self.app.turns.take("/".join(self.key[:2]), self.image),
            self.workspaces.use(self.key, self._begin, self._identity) as (self.work, lost),
        ):
            self.notes += lost
            if self.work.shape != self.picture.shape:
                self.work.shape = self.picture.shape
                self.work.identity = self._identity()
                self._reload(
                    "The image itself has been replaced, so your work on the former image was discarded."
                )
            elif returning and self.work.base != stored_label_id(self.app, self.image):
                if self.work.unsaved:
                    self.notes.append(_REPLACES)
                else:
                    self._reload("")
            if belief is not None:
                self._check(belief)
            if returning:
                self.learning.record_activity(self.image, self.user)
            self.work.touch()
            yield self

    def to_json(
        self, patches: Sequence[Patch], touched: Sequence[int] = (), replaced: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The answer to the client as JSON values.

        Args:
            patches: Changed rectangles.
            touched: Slices that were segmented, beside those that changed.
            replaced: Number of voxels, by label name, that other labels have lost to the object of this
                request.
        """
        work = self.work
        empty: dict[str, Any] = {"box": None, "foreground": [], "background": []}
        return {
            "changes": [patch.to_json() for patch in patches],
            **work.naming.to_json(),
            "can_undo": work.can_undo,
            "can_redo": work.can_redo,
            "prompt": work.opened.to_json() if work.opened else empty,
            "slices": sorted({*touched, *(patch.k for patch in patches)}),
            "replaced": dict(replaced or {}),
            "unsaved": work.unsaved,
            "revision": work.settle(),
            "boot": self.workspaces.boot,
            "warnings": list(dict.fromkeys(self.notes)),
            "seconds": self.seconds,
        }

    def replace(self, given: LabelMapParams, read: Callable[[int], bytes]) -> dict[str, Any]:
        """Replace the label map by that of a viewer, in one step of the history.

        Args:
            given: Grid and names of the viewer's label map.
            read: Function that returns its voxels, given their number of bytes.

        Raises:
            BadRequest: The grid is impossible.
            ValueError: The bytes do not fit the grid, or the grid does not fit the image.
        """
        work, size = self.work, tuple(given.size)
        count = math.prod(size)
        if min(size) < 1 or count > _LARGER * math.prod(work.shape):
            raise BadRequest(f"A label map of the size {list(size)} is not of this image. Check its size.")
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
            BadRequest: The studies cannot be reached; nothing is saved then.
        """
        work, store = self.work, self.app.datastore()
        ask_again(store)  # a PACS that was silent may be back
        segments = work.segments()
        flat = segments.flat()  # what the page shows of it, where segments overlap
        names = [segment.name for segment in segments.segments if segments.mask(segment).any()]
        info = label_info(work, segments, names) | {"client_id": self.client}
        notes = [] if names else ["The label map is empty; it was saved so, and there is no DICOM SEG of it."]
        if tag == FINAL and stored_label_id(self.app, self.image) != work.base:
            notes.append("Another label of this image was saved since you began; yours has replaced it.")
        with tempfile.TemporaryDirectory(prefix="save-") as folder:
            layered = work.stored.as_segmentation or len(segments.layers) > 1
            file = Path(folder) / f"label{SEGMENTATION if layered else '.nii.gz'}"
            write_labels(segments, self.picture.affine, file, like=self.path)
            label = store.save_label(self.image, str(file), tag, info)
        work.stored.keep(segments.segments)
        if tag == FINAL:
            work.unsaved, work.base = False, stored_label_id(self.app, self.image)
            self.app.on_save_label(self.image, label, self.user)
        stored_info = store.get_label_info(label, tag)
        notes += [str(stored_info["seg_note"])] if stored_info.get("seg_note") and names else []
        return {
            "label": label,
            "seg": stored_info.get("seg_sop"),
            "edition": stored_info.get("seg_edition", 0),
            "note": " ".join(notes),
            "voxels": {s.name: int((flat == s.value).sum()) for s in segments.segments if s.name in names},
            "revision": work.settle(),
            "boot": self.workspaces.boot,
        }

    def _check(self, belief: Client) -> None:
        boot = self.workspaces.boot
        if belief.revision not in (None, self.work.settle()) or belief.boot not in (None, boot):
            raise BadRequest(_STALE, 409)

    def _identity(self) -> str:
        return image_identity(Path(self.path))

    def task(self, model: str, kind: type[Any]) -> Any:
        """The model of a name.

        Raises:
            BadRequest: There is no such model, or it is of another kind.
        """
        task = self.app.task(model)
        if not isinstance(task, kind):
            wanted = "takes no prompts; segment with it" if kind is PromptInferTask else "needs prompts"
            raise BadRequest(f"The model {model} {wanted}, or choose another one.")
        return task

    def timed(self, run: Callable[[], Any]) -> Any:
        """The result of a model, for which work in the background waits; its time is noted in `seconds`."""
        start = time.perf_counter()
        try:
            with self.learning.user_request():
                return run()
        finally:
            self.seconds["segment"] = round(time.perf_counter() - start, 4)

    def crossed(self, masks: Slices, bare: Slices, own: Sequence[int], overwrite: bool) -> dict[str, int]:
        """Number of voxels, by label name, that other labels have lost; see `crossed_labels`."""
        crossed = crossed_labels(masks, bare, own, self.work.labels)
        self.notes += crossing_note(crossed, overwrite)
        return crossed if overwrite else {}

    def answered(
        self, task: Any, model: str, device: str | None, labels: Iterable[str], record: Provenance
    ) -> None:
        """Note the model and version that have answered, and how these labels came about."""
        self.work.records |= dict.fromkeys(labels, record.to_json())
        self.work.model = model
        self.work.version = task.engine.predictor(task.method, device).segmenter.version

    def show(self, window: str | None) -> Picture:
        """The image in an intensity window, that of the settings for None."""
        return self.engine.picture(self.path, window)

    @property
    def grid(self) -> Grid:
        """Grid of the image."""
        return image_grid(self.path, self.picture.shape, self.picture.affine)

    def _begin(self) -> Workspace:
        work = Workspace(self.picture.shape, self.engine.settings.labels)
        self.notes += load_final_label(self.app, self.image, self.grid, work)
        return work

    def _reload(self, note: str) -> None:
        self.work.load(np.zeros(self.work.shape, np.uint8), {})
        self.notes += load_final_label(self.app, self.image, self.grid, self.work)
        self.notes += [note] if note else []
