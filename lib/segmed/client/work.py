"""A user's work on an image: prompts and corrections, with a copy of the label map that follows the
server's."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from .answers import ImageInfo, LabelChange, SavedLabel, WorkAnswer, read_answer
from .errors import StaleWorkError
from .geometry import Lasso, Stroke
from .transport import Transport

Points = Sequence[Sequence[float]]


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
        self.told = self._load()
        self.on_change(self.told.changes)
        return self.told

    def prompt(
        self,
        model: str,
        label: str,
        box: Sequence[float] | None = None,
        foreground: Points = (),
        background: Points = (),
        strokes: Iterable[Stroke] = (),
        lasso: Lasso | None = None,
        **options: Any,
    ) -> WorkAnswer:
        """Add to the prompt of the open object, and segment it again.

        Args:
            model: Model that takes prompts.
            label: Name of the structure; another name than before begins another object.
            box: Box [i0, i1, j0, j1, k0, k1] in voxels.
            foreground: Clicks [i, j, k] on the object.
            background: Clicks beside it.
            strokes: Scribbles.
            lasso: Closed line around the object.
            options: Other fields of the request, such as `refine`, `overwrite`, `window` and `device`; see
                the interface of the server at `/docs`.

        Raises:
            SegMedError: The prompt is unusable, and nothing has changed.
        """
        body: dict[str, Any] = {"model": model, "label": label, **options}
        given = {"box": box, "foreground": foreground, "background": background}
        body.update(
            {key: _plain(points) for key, points in given.items() if points is not None and len(points)}
        )
        if drawn := [stroke.to_json() for stroke in strokes]:
            body["scribbles"] = drawn
        if lasso is not None:
            body["lasso"] = lasso.to_json()
        return self._do("prompt", **body)

    def segment(self, model: str, **options: Any) -> WorkAnswer:
        """Label the volume by an automatic model; `options` as in `prompt`."""
        return self._do("segment", model=model, **options)

    def accept(self) -> WorkAnswer:
        """Finish the open object; the next prompt begins another one."""
        return self._do("accept")

    def undo(self) -> WorkAnswer:
        """Undo the last step."""
        return self._do("undo")

    def redo(self) -> WorkAnswer:
        """Redo the last undone step."""
        return self._do("redo")

    def clear(self) -> WorkAnswer:
        """Empty the label map, which can be undone."""
        return self._do("clear")

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
        return self._do("paint", label=label, changes=changes)

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

    def download(self, kind: str = "nifti") -> bytes:
        """The label map as a file: `nifti`, `nrrd`, `names`, `seg` or `rtstruct`."""
        asked = {"client": self.name, "format": kind}
        return self._transport.ask("GET", f"{self._path}/download", params=asked).content

    def _belief(self) -> dict[str, Any]:
        return {"client": self.name, "revision": self.told.revision, "boot": self.told.boot}

    def _do(self, what: str, **body: Any) -> WorkAnswer:
        return self._send(what, json={**self._belief(), **body})

    def _send(self, what: str, **request: Any) -> WorkAnswer:
        self.told = self._take(self._ask(what, **request))
        self.on_change(self.told.changes)
        return self.told

    def _ask(self, what: str, **request: Any) -> Any:
        try:
            return self._transport.json("POST", f"{self._path}/{what}", **request)
        except StaleWorkError:
            self.reload()
            raise

    def _load(self) -> WorkAnswer:
        return self._take(self._transport.json("GET", f"{self._path}/work", params={"client": self.name}))

    def _take(self, told: Mapping[str, Any]) -> WorkAnswer:
        answer = WorkAnswer.read(told)
        for change in answer.changes:
            change.put(self.labels)
        return answer


def _plain(points: Any) -> Any:
    return np.asarray(points, float).tolist()
