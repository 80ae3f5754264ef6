"""Methods that are measured beside each other on the same objects."""

from __future__ import annotations

from dataclasses import dataclass

from segmed.methods import find_method
from segmed.methods.backbone import BackboneConfig
from segmed.methods.loading import Loader
from segmed.methods.segmenter import Segmenter


@dataclass(frozen=True)
class Peer:
    """A method and its weights.

    Attributes:
        name: as tables call it.
        segmenter: ready to be asked.
    """

    name: str
    segmenter: Segmenter


def load_peer(text: str, device: str = "cpu", loader: Loader | None = None) -> Peer:
    """A method by `METHOD` or `METHOD:WEIGHTS`, such as `medsam:medsam_vit_b.pth`.

    Args:
        text: method and weights; the method's own weights where none are given.
        device: where it runs.
        loader: shares weights between methods.

    Raises:
        ValueError: unknown method, or unusable weights.
        FileNotFoundError: no such weights.
    """
    method, _, weights = (part.strip() for part in text.partition(":"))
    find_method(method)  # what is wrong with its weights is of no interest where there is no such method
    return Peer(text.strip(), (loader or Loader()).get(method, BackboneConfig(weights), device))
