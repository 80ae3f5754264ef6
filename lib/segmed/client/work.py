"""A user's work on an image: prompts and corrections, with a copy of the label map that follows the
server's."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from .answers import ImageInfo, LabelChange, Progress, SavedLabel, WorkAnswer, read_answer
from .errors import SegMedError, StaleWorkError
from .geometry import Lasso, Stroke
from .transport import Transport

Points = Sequence[Sequence[float]]
OnProgress = Callable[[Progress], None]


class Work:
    """The work of one user on one image; `SegMedClient.open` returns it.

    Every request states the revision that this client knows. Where the work has changed elsewhere, the
    server refuses the request, the label map is loaded again, and the request raises StaleWorkError.

    Args:
        transport: Connection to the server.
        image: Grid of the image.
        name: Name that the user's program gives itself.

    Attributes:
        image: Grid of the image.
        labels: Label map (I, J, K), uint8, as the server has it. It is changed in place.
        told: Last answer, without its changes.
        on_change: Called with the changed rectangles after the label map was changed.
    """

    def __init__(self, transport: Transport, image: ImageInfo, name: str) -> None:
        self.image, self.name = image, name
        self.labels = np.zeros(image.shape, np.uint8)
        self.on_change: Callable[[Sequence[LabelChange]], None] = lambda changes: None
        self._transport = transport
        self._path = f"/api/images/{quote(image.id, safe='')}"
        self.told = self._load()

    def values(self) -> dict[str, int]:
        """Label values by name."""
        return dict(self.told.labels)

    def reload(self) -> WorkAnswer:
        """Load the whole work again."""
        self.labels[:] = 0
        return self._load()

    def prompt(
        self,
        model: str,
        label: str,
        box: Sequence[float] | None = None,
        foreground: Points = (),
        background: Points = (),
        strokes: Iterable[Stroke] = (),
        lasso: Lasso | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> WorkAnswer:
        """Add to the prompt of the open object, and segment it again.

        Args:
            model: Model that takes prompts.
            label: Name of the structure; another name than before begins another object.
            box: Box [i0, i1, j0, j1, k0, k1] in voxels; one that is a single voxel deep along i or j belongs
                to the plane across that axis.
            foreground: Clicks [i, j, k] on the object.
            background: Clicks beside it.
            strokes: Scribbles.
            lasso: Closed line around the object.
            on_progress: Called while the request is worked on, after `labels` shows what was found until
                then. It may call `stop`.
            options: Other fields of the request, such as `refine`, `overwrite`, `window` and `device`; see
                the interface of the server at `/docs`.

        Raises:
            ValueError: Lines lie in several planes, or in one in which the server takes none.
            SegMedError: The prompt is unusable, and nothing has changed.
        """
        strokes = list(strokes)
        body: dict[str, Any] = {"model": model, "label": label, **options}
        axes = {stroke.axis for stroke in strokes} | ({lasso.axis} if lasso is not None else set())
        if not axes and self.image.planes:
            axes = _across(box)
        if plane := self._plane(axes):
            body.setdefault("plane", plane)
        given = {"box": box, "foreground": foreground, "background": background}
        body.update(
            {key: _plain(points) for key, points in given.items() if points is not None and len(points)}
        )
        if drawn := [stroke.to_json() for stroke in strokes]:
            body["scribbles"] = drawn
        if lasso is not None:
            body["lasso"] = lasso.to_json()
        return self.do("prompt", on_progress, **body)

    def segment(self, model: str, on_progress: OnProgress | None = None, **options: Any) -> WorkAnswer:
        """Label the volume by an automatic model; `on_progress` and `options` as in `prompt`."""
        return self.do("segment", on_progress, model=model, **options)

    def stop(self, keep: bool = True) -> None:
        """Stop the running requests of this user on the image, from another thread or from `on_progress`.

        Args:
            keep: Whether what was found until then is kept.
        """
        self._transport.ask("POST", f"{self._path}/stop", json={"client": self.name, "keep": keep})

    def interpolate(self, label: str, **options: Any) -> WorkAnswer:
        """Fill the slices between those that show a label; `options` such as `plane` and `between`."""
        return self.do("interpolate", label=label, **options)

    def accept(self) -> WorkAnswer:
        """Finish the open object; the next prompt begins another one."""
        return self.do("accept")

    def undo(self) -> WorkAnswer:
        """Undo the last step."""
        return self.do("undo")

    def redo(self) -> WorkAnswer:
        """Redo the last undone step."""
        return self.do("redo")

    def clear(self, locked: Sequence[str] = ()) -> WorkAnswer:
        """Empty the label map, which can be undone; refused while one of the `locked` labels has voxels."""
        return self.do("clear", locked=list(locked))

    def paint(self, labels: np.ndarray, label: str = "") -> WorkAnswer:
        """Replace the label map by one that was edited here; only rectangles that differ are sent.

        Args:
            labels: Label map (I, J, K), uint8, with the values of `values`.
            label: Name of the painted label, which gets the next free value if it is new.

        Raises:
            ValueError: The label map has another shape than the image.
        """
        if labels.shape != self.labels.shape:
            raise ValueError(
                f"The label map has the shape {list(labels.shape)}, and the image "
                f"{list(self.labels.shape)}. Paint on "
                "the grid of the image."
            )
        changes = []
        differs = labels != self.labels
        for k in np.flatnonzero(differs.any(axis=(0, 1))):
            i, j = (np.flatnonzero(differs[:, :, k].any(axis=axis)) for axis in (1, 0))
            part = labels[i[0] : i[-1] + 1, j[0] : j[-1] + 1, k].T
            changes.append(vars(LabelChange.of(int(k), int(i[0]), int(j[0]), part)))
        return self.do("paint", label=label, changes=changes)

    def replace(
        self, labels: np.ndarray, affine: Sequence[Sequence[float]] | np.ndarray, names: Mapping[int, str]
    ) -> WorkAnswer:
        """Replace the label map by one on another grid, which the server brings onto that of the image.

        Args:
            labels: Label map (I, J, K), uint8.
            affine: Its voxel indices to RAS mm, (4, 4).
            names: Label names by value.
        """
        to_lps = np.diag([-1.0, -1.0, 1.0])
        matrix = np.asarray(affine, float)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        params = {
            **self._belief(),
            "size": list(labels.shape),
            "origin": (to_lps @ matrix[:3, 3]).tolist(),
            "spacing": spacing.tolist(),
            "direction": (to_lps @ (matrix[:3, :3] / spacing)).ravel().tolist(),
            "names": {str(value): name for value, name in names.items()},
        }
        packed = zlib.compress(np.asarray(labels, np.uint8).tobytes(order="F"), 1)
        return self._send("labelmap", data={"params": json.dumps(params)}, files={"file": ("labels", packed)})

    def save(self, tag: str = "final") -> SavedLabel:
        """Save the label map into the studies under a tag."""
        saved = read_answer(SavedLabel, self._ask("save", json={**self._belief(), "tag": tag}))
        self.told = read_answer(
            WorkAnswer,
            {**vars(self.told), "revision": saved.revision, "boot": saved.boot, "unsaved": tag != "final"},
        )
        return saved

    def do(self, what: str, on_progress: OnProgress | None = None, **body: Any) -> WorkAnswer:
        """Any request that changes the work, also one for which this class has no method.

        Args:
            what: Last part of the path, such as `interpolate`.
            on_progress: As in `prompt`.
            body: Fields of the request.
        """
        body = {**self._belief(), **body}
        if on_progress is None:
            return self._send(what, json=body)
        watch, shown = on_progress, False

        def show(line: Mapping[str, Any]) -> None:
            nonlocal shown
            shown = True
            self._put([read_answer(LabelChange, change) for change in line.get("changes", [])])
            watch(read_answer(Progress, line))

        try:
            told = self._transport.lines(f"{self._path}/{what}", body, show)
        except SegMedError as error:
            if shown or isinstance(error, StaleWorkError):
                self._reload_after(error)
            raise
        return self._answered(told)

    def download(self, kind: str = "nifti") -> bytes:
        """The label map as a file: `nifti`, `nrrd`, `names`, `seg` or `rtstruct`."""
        asked = {"client": self.name, "format": kind}
        return self._transport.ask("GET", f"{self._path}/download", params=asked).content

    def _belief(self) -> dict[str, Any]:
        return {"client": self.name, "revision": self.told.revision, "boot": self.told.boot}

    def _plane(self, axes: set[int]) -> str:
        """Name of the plane of lines across these axes; "" for the stored slices."""
        if axes <= {2}:
            return ""
        names = {axis: name for name, axis in self.image.planes.items()}
        if len(axes) == 1 and names:
            return names[axes.pop()]
        raise ValueError(
            "Lines of one request lie in one plane; send those of other planes in requests of their own."
            if names
            else "This server takes lines in the stored slices only. Draw there, or divide the line "
            "(planes=False of strokes_through)."
        )

    def _send(self, what: str, **request: Any) -> WorkAnswer:
        return self._answered(self._ask(what, **request))

    def _ask(self, what: str, **request: Any) -> Any:
        try:
            return self._transport.json("POST", f"{self._path}/{what}", **request)
        except StaleWorkError as error:
            self._reload_after(error)
            raise

    def _reload_after(self, error: SegMedError) -> None:
        """Load the work again, as the copy here differs from it; the error is raised in any case."""
        try:
            self.reload()
        except SegMedError as other:
            raise error from other

    def _answered(self, told: Mapping[str, Any]) -> WorkAnswer:
        self.told = WorkAnswer.read(told)
        self._put(self.told.changes)
        return self.told

    def _put(self, changes: Sequence[LabelChange]) -> None:
        for change in changes:
            change.put(self.labels)
        self.on_change(changes)

    def _load(self) -> WorkAnswer:
        asked = {"client": self.name}
        return self._answered(self._transport.json("GET", f"{self._path}/work", params=asked))


def _across(box: Sequence[float] | None) -> set[int]:
    """The axis along which a box has a single voxel; empty if that is k, or there is none."""
    if box is None or len(box) != 6 or box[4] == box[5]:
        return set()
    return {axis for axis in (0, 1) if box[2 * axis] == box[2 * axis + 1]}


def _plain(points: Any) -> Any:
    return np.asarray(points, float).tolist()
