"""The answers of the workspace API as types. Fields that this version does not know are left out."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def read_answer(kind: type[T], told: Mapping[str, Any]) -> T:
    """A JSON object as one of the types of this module, without the fields that it does not know.

    Raises:
        KeyError: A field is missing.
    """
    known = {f.name: told[f.name] for f in fields(kind) if f.name in told}  # type: ignore[arg-type]
    try:
        return kind(**known)
    except TypeError as error:
        raise KeyError(f"{kind.__name__}: {error}") from error


@dataclass(frozen=True)
class Model:
    """A model that the server offers.

    Attributes:
        name: Name to ask for.
        description: One sentence.
        type: `prompt`, or `automatic` for models that label the volume without a prompt.
        dimension: 2 for a slice, 3 for the volume.
        labels: Labels of an automatic model.
    """

    name: str
    description: str = ""
    type: str = "prompt"
    dimension: int = 3
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ServerState:
    """What the server offers.

    Attributes:
        version: Version of SegMed.
        api: Version of the workspace API.
        models: Models.
        labels: Names that the server was started with.
        studies: State of the studies.
        warning: Message for the user; "" for none.
        user: Who has logged in; "" where nobody has to.
        role: Role of that user.
    """

    version: str
    api: str = ""
    models: list[Model] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    studies: dict[str, Any] = field(default_factory=dict)
    warning: str | None = ""
    user: str = ""
    role: str = ""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> ServerState:
        return read_answer(
            cls, {**told, "models": [read_answer(Model, model) for model in told.get("models", [])]}
        )


@dataclass(frozen=True)
class ImageEntry:
    """An image of the studies.

    Attributes:
        id: Identifier.
        name: Name to show.
        modality: DICOM modality; "" where it is not known.
        date: Date of the study, YYYY-MM-DD; "" where it is not known.
        labelled: Whether it has a final label.
        unsaved: Whether the user has work on it that is not saved.
    """

    id: str
    name: str = ""
    modality: str = ""
    date: str = ""
    labelled: bool = False
    unsaved: bool = False


@dataclass(frozen=True)
class ImageInfo:
    """The grid of an image.

    Attributes:
        id: Identifier.
        name: Name to show.
        shape: Number of voxels along i, j, k.
        affine: Voxel indices to RAS mm, (4, 4).
        window: Grey values shown black and white.
        planes: Axis of the voxel grid across each plane, by the plane's name; empty where the server takes
            prompts in the stored slices only.
        study: StudyInstanceUID; None where the image is no DICOM series.
        series: SeriesInstanceUID, likewise.
    """

    id: str
    name: str
    shape: list[int]
    affine: list[list[float]]
    window: list[float] = field(default_factory=list)
    planes: dict[str, int] = field(default_factory=dict)
    study: str | None = None
    series: str | None = None


@dataclass(frozen=True)
class LabelChange:
    """Label values of a rectangle of one slice.

    Attributes:
        k: Index of the slice along `axis`.
        i: First column, and the one after the last, along the first of the two other axes.
        j: First row, and the one after the last, along the second.
        data: Values by rows, uint8, deflated (zlib), in base64.
        axis: Axis of the voxel grid across the slice.
    """

    k: int
    i: list[int]
    j: list[int]
    data: str
    axis: int = 2

    @classmethod
    def of(cls, k: int, i: int, j: int, values: np.ndarray) -> LabelChange:
        """The change that puts `values` (rows, columns) onto slice k, from column i and row j on."""
        plain = np.ascontiguousarray(values, np.uint8)
        packed = base64.b64encode(zlib.compress(plain.tobytes(), 1)).decode("ascii")
        return cls(k, [i, i + plain.shape[1]], [j, j + plain.shape[0]], packed)

    def put(self, labels: np.ndarray) -> None:
        """Write the values into a label map (I, J, K)."""
        values = np.frombuffer(zlib.decompress(base64.b64decode(self.data)), np.uint8)
        (i0, i1), (j0, j1) = self.i, self.j
        np.moveaxis(labels, self.axis, 2)[i0:i1, j0:j1, self.k] = values.reshape(j1 - j0, i1 - i0).T


@dataclass(frozen=True)
class OpenPrompt:
    """The prompt of the open object.

    Attributes:
        label: Name of its label.
        box: Box [i0, i1, j0, j1, k0, k1] in voxels.
        foreground: Clicks [i, j, k] on the object.
        background: Clicks beside it.
        axis: Axis of the voxel grid across its slices.
        strokes: Number of scribbles.
        lasso: Stored slices that a lasso covers.
        lines: Scribbles and lasso as they were drawn, to be shown again: `points` [p, q] on slice `k` along
            `axis`, `foreground`, and `closed` for a lasso.
    """

    label: str = ""
    box: list[float] | None = None
    foreground: list[list[float]] = field(default_factory=list)
    background: list[list[float]] = field(default_factory=list)
    axis: int = 2
    strokes: int = 0
    lasso: list[int] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class WorkAnswer:
    """What a request has changed.

    Attributes:
        changes: Changed rectangles.
        labels: Label values by name.
        can_undo: Whether there is a step to undo.
        can_redo: Whether there is an undone step.
        prompt: Prompt of the open object.
        slices: Slices that were segmented or changed.
        replaced: Number of voxels, by label name, that other labels have lost.
        unsaved: Whether anything has changed since the last save.
        revision: Number that grows with each change.
        boot: Run of the server.
        stopped: "kept" or "dropped" if the request was stopped, for what it had found; else "".
        warnings: Messages for the user.
        seconds: Time that parts of the request took.
    """

    changes: list[LabelChange]
    labels: dict[str, int]
    revision: int
    boot: str
    can_undo: bool = False
    can_redo: bool = False
    prompt: OpenPrompt = field(default_factory=OpenPrompt)
    slices: list[int] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=dict)
    unsaved: bool = False
    stopped: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> WorkAnswer:
        changes = [read_answer(LabelChange, change) for change in told["changes"]]
        prompt = read_answer(OpenPrompt, told.get("prompt") or {})
        return read_answer(cls, {**told, "changes": changes, "prompt": prompt})


@dataclass(frozen=True)
class Progress:
    """How far a request is.

    Attributes:
        done: Number of slices that are done.
        most: Largest number of slices that there can be.
        seconds: Time that it has taken.
        left: Estimated time that it will still take; None where that is not known.
    """

    done: int
    most: int
    seconds: float = 0.0
    left: float | None = None


@dataclass(frozen=True)
class SavedLabel:
    """A label that was saved.

    Attributes:
        label: Identifier of the label.
        seg: SOPInstanceUID of the DICOM SEG; None where none was written.
        edition: Which DICOM SEG of the series it is, from 1 on; 0 where they are not counted.
        note: Message for the user.
        voxels: Number of voxels by label name.
        revision: Number of the saved state.
        boot: Run of the server.
    """

    label: str
    revision: int
    boot: str
    seg: str | None = None
    edition: int = 0
    note: str = ""
    voxels: dict[str, int] = field(default_factory=dict)
