"""Which base weights a method runs on, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from segmed.methods.base.method import Method
from segmed.sam.cpu.number_format import check_precision
from segmed.sam.sources import check_source, is_name
from segmed.weights.table import find

#: What can compute networks on a CPU.
RUNTIMES = ("torch", "openvino")


def check_runtime(runtime: str) -> None:
    """Raises ValueError if it is none of `RUNTIMES`, or is not installed."""
    if runtime not in RUNTIMES:
        raise ValueError(f"There is no runtime {runtime!r}. Choose one of {', '.join(RUNTIMES)}.")
    if runtime != "torch" and find_spec(runtime) is None:
        raise ValueError(
            f"The runtime {runtime!r} is not installed. Run `pip install 'segmed[{runtime}]'` (in a checkout "
            f"`pip install -r requirements-{runtime}.txt`), or choose the runtime torch."
        )


@dataclass(frozen=True)
class BackboneConfig:
    """Base weights and how to run them.

    Attributes:
        source: folder, file, name of published weights, Hugging Face id or `segmed-tiny`; "" for the method's
            own or none.
        image_size: input size in px, None for that of the weights.
        precision: `auto`, `bf16` or `fp32`, for the image encoder.
        runtime: what computes the networks on a CPU, one of `RUNTIMES`.
    """

    source: str = ""
    image_size: int | None = None
    precision: str = "auto"
    runtime: str = "torch"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        check_runtime(self.runtime)
        if self.source:
            check_source(self.source)
        if self.image_size is None and is_name(self.source):
            object.__setattr__(self, "image_size", find(self.source).image_size)


def missing_weights(method: Method) -> str:
    """The message for users who want a method without its base weights."""
    setting = f"backbone_{method.name}" if method.own_format else "backbone"
    example = method.example or "sam-vit-base"
    return (
        f"The model {method.name!r} needs {'weights of its own' if method.own_format else 'SAM weights'}. "
        f"Run `segmed weights get {example}` once and add --conf {setting} {example} (for other commands "
        f"than serve: --backbone {example}). A folder, a file or a Hugging Face id works too."
    )
