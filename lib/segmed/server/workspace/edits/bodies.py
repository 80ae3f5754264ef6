"""Bodies of the requests that change labels as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segmed.imaging.labels.segments import Colour
from segmed.server.workspace.bodies import ChangeBody, Client, Denoise, Locked, Name

_MOST_OBJECTS = 255


class LabelBody(Client):
    """A change of one label.

    Attributes:
        label: Name of the label.
        action: `rename` to the name `to`, `merge` into the label `to`, `recolour`, or `delete`.
        to: Another name.
        colour: Colour as #rrggbb.
        locked: Names of labels that are not to be deleted, merged, or merged into.
    """

    label: Name
    action: Literal["rename", "merge", "recolour", "delete"]
    to: str = Field(default="", max_length=256)
    colour: str = Field(default="", pattern=r"^(#[0-9A-Fa-f]{6})?$")
    locked: Locked = Field(default=[])

    @model_validator(mode="after")
    def _complete(self) -> LabelBody:
        if self.action in ("rename", "merge") and not self.to.strip():
            raise ValueError(f"To {self.action} a label, the request needs the other name as `to`.")
        if self.action == "recolour" and not self.colour:
            raise ValueError("To recolour a label, the request needs a `colour` such as #e69f00.")
        return self

    @property
    def rgb(self) -> Colour:
        """The colour, 0 to 255."""
        r, g, b = bytes.fromhex(self.colour[1:])
        return r, g, b


class ProposalsBody(Client):
    """A slice on which masks of all objects are to be proposed.

    Attributes:
        model: Model that takes clicks.
        k: Index of the slice.
        points: Clicks per side of the grid.
        window: Intensity window.
        device: Device, one of those in the model's `config`.
        denoise: Denoising of the slice.
    """

    model: Name
    k: int = Field(ge=0)
    points: int = Field(default=16, ge=2, le=64)
    window: str | None = None
    device: str | None = Field(default=None, max_length=256)
    denoise: Denoise = "nothing"


class ObjectBody(Client):
    """One object: its label, and its mask as rectangles in which any value above 0 belongs to it."""

    label: Name
    changes: Annotated[list[ChangeBody], Field(max_length=5000)]


class ObjectsBody(Client):
    """Several objects that are added in one step; see `PromptBody` on `overwrite` and `locked`."""

    objects: Annotated[list[ObjectBody], Field(min_length=1, max_length=_MOST_OBJECTS)]
    overwrite: bool = False
    locked: Locked = Field(default=[])
