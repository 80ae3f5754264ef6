"""What a client may send: every id, tag, extension and parameter is checked here before anything uses it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from monailabel.interfaces.datastore import DefaultLabelTag
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segmed.data.left_out import fault_of_id
from segmed.imaging.formats.text_headers import DETACHED_EXTENSIONS
from segmed.imaging.reading import EXTENSIONS, extension_of
from segmed.inference.refinement.refinement import RefinementName
from segmed.server.http.client_json import read_object
from segmed.server.http.errors import BadRequest

SENT_EXTENSIONS = tuple(e for e in EXTENSIONS if e not in DETACHED_EXTENSIONS)
_UID = re.compile(r"^[0-9.]{1,64}$")
_UUID = re.compile(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
# what viewers send beside what is read: who asks, and how they take the answer
_OF_VIEWERS = frozenset(
    {"client_id", "device", "image", "label_prompt", "model", "point_labels", "points", "reset_state"}
    | {"restore_label_idx", "result_dtype", "session_id", "slice"}
)
_TAG = re.compile(r"^(final|original|version_[0-9]{1,6})$")


class InferParams(BaseModel):
    """The keys of `params` that SegMed reads; viewers send more, which are ignored.

    Attributes:
        foreground: clicks into the object, voxel indices [i, j, k].
        background: clicks beside the object.
        roi: [i0, i1, j0, j1, k0, k1], ends in any order; empty for none.
        label: name of the structure being segmented.
        label_info: names of a sent label map, in the order of its values; 3D Slicer's scribbles are among
            them.
        selected_label_name: which of them is being segmented.
        window: intensity window.
        device: name out of the model's `config.device`.
        output: the mask, or a map of how unsure the model is, for models that list it.
        clean: what is done to each structure of an automatic segmentation.
        refinement: how the mask of each prompt is refined.
        denoise: what is done to slices before the model sees them.
        result_extension: of the mask file.
        result_compress: gzip inside `.nrrd`.
    """

    model_config = ConfigDict(extra="ignore")

    foreground: list[list[float]] = Field(default=[], max_length=10_000)
    background: list[list[float]] = Field(default=[], max_length=10_000)
    roi: list[float] | None = Field(default=None, max_length=6)
    label: str = Field(default="", max_length=256)
    label_info: list[dict[str, Any]] = Field(default=[], max_length=1000)
    selected_label_name: str = Field(default="", max_length=256)
    window: str | None = None
    device: str | None = Field(default=None, max_length=256)
    output: Literal["mask", "uncertainty"] = "mask"
    clean: Literal["nothing", "largest piece", "holes", "largest piece and holes"] = "nothing"
    refinement: RefinementName = "nothing"
    denoise: Literal["nothing", "gaussian", "dncnn"] = "nothing"
    result_extension: Literal[".nrrd", ".nii.gz", ".nii", ".seg.nrrd"] = ".nrrd"
    result_compress: bool = False

    def value_of(self, name: str) -> int | None:
        """The value of a name in the sent label map; None if it has none."""
        names = [str(item.get("name", "")) for item in self.label_info]
        return names.index(name) + 1 if name and name in names else None

    @field_validator("label", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return (value[0] if value else "") if isinstance(value, list) else value or ""

    @field_validator("foreground", "background", mode="before")
    @classmethod
    def _no_points(cls, value: Any) -> Any:
        return [] if value is None else value


def parse_params(text: str) -> InferParams:
    """The form field `params` of an inference.

    Raises:
        BadRequest: not a JSON object, or a value of the wrong kind.
    """
    raw = read_object(text, "The field params")
    try:
        return InferParams(**{key: value for key, value in raw.items() if key in InferParams.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"params.{where} is not usable: {first['msg']}.") from error


def unknown_params(text: str, labels: Iterable[str]) -> list[str]:
    """A sentence on the keys of the form field `params` that nothing reads; empty if there are none.

    Args:
        text: the field.
        labels: names of structures, which DeepEdit sends as keys.
    """
    known = {*InferParams.model_fields, *_OF_VIEWERS, *labels}
    unknown = [key[:60] for key in read_object(text, "The field params") if key not in known]
    if not unknown:
        return []
    read = ", ".join(InferParams.model_fields)
    return [f"Not known, and ignored: {', '.join(unknown[:10])}. Known are {read}."]


def check_id(name: str, what: str = "image") -> str:
    """An id of an image or label: a name, never a path.

    Raises:
        BadRequest: empty, too long, or with characters that could lead to another place.
    """
    if fault_of_id(name):
        raise BadRequest(
            f"The {what} id {name[:60]!r} cannot be used. Ids have 1 to 128 characters, do not start with a "
            "dot and hold no slashes, wildcards, quotes or two dots in a row. Rename it."
        )
    return name


def check_uid(name: str) -> str:
    """A DICOM UID. Raises BadRequest otherwise."""
    if not _UID.match(name) or ".." in name:
        raise BadRequest(f"{name[:70]!r} is not a DICOM UID (digits and dots, at most 64).")
    return name


def check_session(session_id: str) -> str:
    """A session id. Raises BadRequest otherwise."""
    if not _UUID.match(session_id):
        raise BadRequest(
            f"{session_id[:60]!r} is not a session id. Create a session by PUT /session/ first.", 404
        )
    return session_id


def check_tag(tag: object) -> str:
    """A label's tag, given as text or as MONAI Label's DefaultLabelTag. Raises BadRequest otherwise."""
    text = str(tag.value if isinstance(tag, DefaultLabelTag) else tag)
    if not _TAG.match(text):
        raise BadRequest(f"The tag {text[:60]!r} is not allowed. Use final, original or version_<number>.")
    return text


def check_upload(filename: str | None, allowed: tuple[str, ...] = SENT_EXTENSIONS) -> str:
    """The extension of an uploaded file, one of `allowed`. Raises BadRequest otherwise."""
    extension = extension_of(filename or "")
    if extension in DETACHED_EXTENSIONS:
        raise BadRequest(
            f"A {extension} file is a header whose voxels lie in another file. Save the image as one file "
            "(.nrrd, .mha or .nii.gz) and send that."
        )
    if extension not in allowed:
        raise BadRequest(
            f"Files of the kind {Path(filename or '').name[-40:]!r} are not taken. Send {', '.join(allowed)}."
        )
    return extension
