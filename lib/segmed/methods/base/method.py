"""How methods are listed: what everybody may ask at once, and where their code is, which is imported when it
is used.

PyTorch and the libraries of the methods take seconds to import. The command line, the settings and the
registry of trained versions need names and a few facts only, so that nothing here, and in `segmed.methods`,
imports them.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from segmed.methods.base.segmenter import Segmenter


#: Metadata of a setting that names a file of this machine, so that clients of a server must not set it.
LOCAL = MappingProxyType({"local": True})

#: What can be done to a mask, see `segmed.inference.refinement.refinement`.
REFINEMENT_NAMES = ("outline", "crf", "level set")


@dataclass(frozen=True)
class Training:
    """How a method is built with weights that were trained.

    Attributes:
        kind: the `TrainableSegmenter`, called with a SamModel (None for methods that need no weights), a
            config and the version of the weights.
        config: class of that config; one with `labels` gets the names of the structures.
        for_inference: function that converts the trained method for inference, such as by merging weights.
    """

    kind: Callable[..., Any]
    config: type[Any]
    for_inference: Callable[[Any], Segmenter] = lambda segmenter: segmenter


@dataclass(frozen=True)
class Parts:
    """The code of a method.

    Attributes:
        build: makes the Segmenter of untrained weights from a SamModel (or what `read` gives) and their
            version; both are None and "" for methods that need no weights. None for methods that are of no
            use untrained.
        read: reads weights of another architecture than SAM's from a source, for an input size (None for
            their own) and a number format, and gives them with their version.
        training: None for methods that do not learn.
    """

    build: Callable[[Any, str], Segmenter] | None = None
    read: Callable[[str, int | None, torch.dtype], tuple[nn.Module, str]] | None = None
    training: Training | None = None


@dataclass(frozen=True)
class Method:
    """How a method is offered.

    Attributes:
        name: as in `--conf models` and in the viewers.
        title: one sentence for the viewers.
        place: of its `Parts`, as `module:NAME`.
        ready: whether it is of use before it was trained, which is to say that it has `Parts.build`.
        learns: whether it has `Parts.training`.
        needs_backbone: whether weights are required.
        own_format: whether these are of another architecture than SAM's, which `Parts.read` reads;
            `--conf backbone_<name>` alone names their source.
        example: a name of published weights that suit it, for messages; "" for those of SAM.
        weights: those that it brings along; `--conf backbone` does not replace them, `--conf backbone_<name>`
            does.
        automatic: whether it also labels whole volumes without a prompt.
        gives_uncertainty: whether it tells how unsure it is of each pixel.
        detects: whether it finds boxes, which are offered as a model of their own; the one with masks is
            `auto` then.
    """

    name: str
    title: str
    place: str
    ready: bool = False
    learns: bool = True
    needs_backbone: bool = True
    own_format: bool = False
    example: str = ""
    weights: str = ""
    automatic: bool = False
    gives_uncertainty: bool = False
    detects: bool = False

    @property
    def parts(self) -> Parts:
        """Its code, imported at the first call."""
        found = pkgutil.resolve_name(self.place)
        assert isinstance(found, Parts)
        return found

    @property
    def build(self) -> Callable[[Any, str], Segmenter] | None:
        """See `Parts`."""
        return self.parts.build

    @property
    def read(self) -> Callable[[str, int | None, torch.dtype], tuple[nn.Module, str]] | None:
        """See `Parts`."""
        return self.parts.read

    @property
    def training(self) -> Training | None:
        """See `Parts`."""
        return self.parts.training

    def offered_as(self) -> list[str]:
        """Names of the models in the viewers: the automatic one, with prompts on a slice, and through the
        volume.

        Of a detector: the one that outlines what was found, and the boxes alone.
        """
        if self.detects:
            return ["auto", self.name]
        prompted = f"{self.name}_prompt" if self.automatic else self.name
        return [*([self.name] if self.automatic else []), prompted, f"{prompted}_3d"]
