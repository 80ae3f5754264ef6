"""What clients send to a workspace."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from segmed.methods.refinement import RefinementName

Name = Annotated[str, Field(min_length=1, max_length=256)]
Denoise = Literal["nothing", "gaussian", "dncnn"]
Points = Annotated[list[Annotated[list[FiniteFloat], Field(max_length=3)]], Field(max_length=10_000)]


class Client(BaseModel):
    """Who works, and on what as they believe; a request that believes in something else is refused with 409.

    Attributes:
        client: any text.
        revision: of the work in the last answer that the client has; None asks for no check.
        boot: of the server in that answer; likewise.
    """

    model_config = ConfigDict(extra="ignore")

    client: str = Field(default="", max_length=128)
    revision: int | None = None
    boot: str | None = Field(default=None, max_length=64)


class Stroke(BaseModel):
    """A scribble on slice `k`: points [i, j], `width` px wide, of the object or not."""

    k: int
    foreground: bool
    points: Points
    width: FiniteFloat = 3.0


class Lasso(BaseModel):
    """A closed line on slice `k`: points [i, j]."""

    k: int
    points: Points


class PromptBody(Client):
    """What is added to the prompt of the open object.

    Attributes:
        model: one with prompts.
        label: name of the structure.
        box: [i0, i1, j0, j1, k0, k1].
        foreground: clicks [i, j, k].
        background: likewise.
        scribbles: strokes.
        lasso: in place of a box.
        refine: whether what the label is now becomes a mask prompt.
        window: intensity window.
        device: out of the model's `config`.
        finish: what is done to each mask.
        denoise: what is done to the slices.
        overwrite: whether the object takes voxels of other labels; otherwise it leaves them as they are.
        trial: whether this is no work, such as a look at what another model would do; active learning leaves it out.
    """

    model: Name
    label: Name
    box: list[FiniteFloat] | None = Field(default=None, max_length=6)
    foreground: Points = []
    background: Points = []
    scribbles: list[Stroke] = Field(default=[], max_length=200)
    lasso: Lasso | None = None
    refine: bool = False
    window: str | None = None
    device: str | None = Field(default=None, max_length=256)
    finish: RefinementName = "nothing"
    denoise: Denoise = "nothing"
    overwrite: bool = False
    trial: bool = False


class SegmentBody(Client):
    """Which automatic model labels the volume, and how; see `InferParams` and `PromptBody`."""

    model: Name
    window: str | None = None
    device: str | None = Field(default=None, max_length=256)
    denoise: Denoise = "nothing"
    overwrite: bool = False


class ChangeBody(BaseModel):
    """A rectangle of slice `k`, see `Patch`; `data` in base64."""

    k: int
    i: list[int]
    j: list[int]
    data: str


class PaintBody(Client):
    """Rectangles of final label values, and the label that is painted with; a new name gets its value so."""

    label: str = Field(default="", max_length=256)
    changes: list[ChangeBody] = Field(default=[], max_length=5000)


class SaveBody(Client):
    """Under which tag the label is saved."""

    tag: str = "final"


class LabelMapParams(Client):
    """Where a label map lies, and what its values are called.

    Attributes:
        size: voxels along x, y, z.
        origin: of the first voxel, LPS mm.
        spacing: mm.
        direction: of the axes, LPS.
        names: by value.
    """

    size: list[int] = Field(min_length=3, max_length=3)
    origin: list[FiniteFloat] = Field(min_length=3, max_length=3)
    spacing: list[FiniteFloat] = Field(min_length=3, max_length=3)
    direction: list[FiniteFloat] = Field(min_length=9, max_length=9)
    names: dict[int, str] = {}
