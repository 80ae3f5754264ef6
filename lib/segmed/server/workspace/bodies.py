"""Bodies of the requests to a workspace."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from segmed.imaging.planes import PlaneName
from segmed.inference.refinement.refinement import RefinementName

Name = Annotated[str, Field(min_length=1, max_length=256)]
Locked = Annotated[list[Name], Field(max_length=255)]
Denoise = Literal["nothing", "gaussian", "dncnn"]
Points = Annotated[list[Annotated[list[FiniteFloat], Field(max_length=3)]], Field(max_length=10_000)]


class Client(BaseModel):
    """The client and the state that it has; a request for another state is refused with 409.

    Attributes:
        client: Any text that identifies the client.
        revision: Revision of the work in the last answer that the client has; None skips the check.
        boot: Server run in that answer; None skips the check.
    """

    model_config = ConfigDict(extra="ignore")

    client: str = Field(default="", max_length=128)
    revision: int | None = None
    boot: str | None = Field(default=None, max_length=64)


class Stroke(BaseModel):
    """A scribble on slice `k`: points [i, j], `width` px wide, of the object or not; see `PromptBody`."""

    k: int
    foreground: bool
    points: Points
    width: FiniteFloat = 3.0


class Lasso(BaseModel):
    """A closed line on slice `k`: points [i, j]; see `PromptBody`."""

    k: int
    points: Points


class PromptBody(Client):
    """An addition to the prompt of the open object.

    Attributes:
        model: Model that takes prompts.
        label: Name of the structure.
        box: Box [i0, i1, j0, j1, k0, k1] in voxels.
        foreground: Foreground clicks [i, j, k] in voxels.
        background: Background clicks [i, j, k] in voxels.
        scribbles: Strokes to add.
        lasso: Closed line in place of a box.
        refine: Whether the present label becomes a mask prompt.
        plane: Plane in which the prompt was drawn and the image is segmented; None for the stored slices. In
            another plane, a box may have a single voxel along the axis across that plane, `k` of scribbles
            and lassos is the index along that axis, and their points are voxel indices along the two other
            axes, in the order i, j, k. `GET /api/images/{image}` tells the axis across each plane.
        window: Intensity window.
        device: Device, one of those in the model's `config`.
        refinement: Refinement of each mask.
        denoise: Denoising of the slices.
        overwrite: Whether the object takes voxels of other labels; otherwise these stay as they are.
        trial: Whether the prompt is a trial, such as with another model for comparison, which active learning
            ignores.
        locked: Names of labels whose voxels stay even with `overwrite`.
    """

    model: Name
    label: Name
    box: list[FiniteFloat] | None = Field(default=None, max_length=6)
    foreground: Points = []
    background: Points = []
    scribbles: list[Stroke] = Field(default=[], max_length=200)
    lasso: Lasso | None = None
    refine: bool = False
    plane: PlaneName | None = None
    window: str | None = None
    device: str | None = Field(default=None, max_length=256)
    refinement: RefinementName = "nothing"
    denoise: Denoise = "nothing"
    overwrite: bool = False
    trial: bool = False
    locked: Locked = []


class SegmentBody(Client):
    """The automatic model that labels the volume, and its options; see `InferParams` and `PromptBody`."""

    model: Name
    window: str | None = None
    device: str | None = Field(default=None, max_length=256)
    denoise: Denoise = "nothing"
    overwrite: bool = False
    locked: Locked = []


class ChangeBody(BaseModel):
    """A rectangle of slice `k`, see `Patch`; `data` in base64."""

    k: int
    i: list[int]
    j: list[int]
    data: str


class PaintBody(Client):
    """Strokes of brush or eraser.

    Attributes:
        label: Painted label, so that a new name gets its value.
        changes: Rectangles of final label values.
        locked: Names of labels whose voxels stay; a request that changes them is refused.
    """

    label: str = Field(default="", max_length=256)
    changes: list[ChangeBody] = Field(default=[], max_length=5000)
    locked: Locked = []


class ClearBody(Client):
    """Names of labels whose voxels stay: if one of them has any, the request is refused."""

    locked: Locked = []


class SaveBody(Client):
    """The tag under which the label is saved."""

    tag: str = "final"


class LabelMapParams(Client):
    """Position of a label map, and the names of its values.

    Attributes:
        size: Number of voxels along x, y, z.
        origin: Position of the first voxel in LPS mm.
        spacing: Spacing of the voxels in mm.
        direction: Directions of the axes in LPS.
        names: Label names by value.
    """

    size: list[int] = Field(min_length=3, max_length=3)
    origin: list[FiniteFloat] = Field(min_length=3, max_length=3)
    spacing: list[FiniteFloat] = Field(min_length=3, max_length=3)
    direction: list[FiniteFloat] = Field(min_length=9, max_length=9)
    names: dict[int, str] = {}
