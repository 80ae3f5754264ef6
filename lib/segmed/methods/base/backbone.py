"""Which base weights a method runs on, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from segmed.methods.base.method import Method
from segmed.sam.cpu.number_format import check_precision
from segmed.sam.sources import check_source


@dataclass(frozen=True)
class BackboneConfig:
    """Base weights and how to run them.

    Attributes:
        source: folder, file, Hugging Face id or `segmed-tiny`; "" for the method's own or none.
        image_size: input size in px, None for that of the weights.
        precision: `auto`, `bf16` or `fp32`, for the image encoder.
    """

    source: str = ""
    image_size: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.source:
            check_source(self.source)


def missing_weights(method: Method) -> str:
    """What to tell who wants a method without its base weights."""
    if method.own_format:
        return (
            f"The model {method.name!r} needs weights of its own: add --conf backbone_{method.name} FOLDER, "
            f"or a "
            f"Hugging Face id such as {method.example}."
        )
    return (
        f"The model {method.name!r} needs SAM weights: add --conf backbone FOLDER, a .pth FILE, or a Hugging "
        f"Face id "
        "such as facebook/sam-vit-base."
    )
