"""Methods that are compared on the same objects."""

from __future__ import annotations

from dataclasses import dataclass

from segmed.inference.loading import Loader
from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.segmenter import Segmenter


@dataclass(frozen=True)
class Peer:
    """A method with its weights.

    Attributes:
        name: Name in tables.
        segmenter: The segmenter in evaluation mode.
    """

    name: str
    segmenter: Segmenter


def load_peer(text: str, device: str = "cpu", loader: Loader | None = None) -> Peer:
    """Load a method given as `METHOD` or `METHOD:WEIGHTS`, such as `medsam:medsam_vit_b.pth`.

    Args:
        text: Method and weights; without weights, the method's own are used.
        device: Device of the method.
        loader: Loader that shares weights between methods, or None.

    Raises:
        ValueError: If the method is unknown or the weights are unusable.
        FileNotFoundError: If the weights do not exist.
    """
    method, _, weights = (part.strip() for part in text.partition(":"))
    find_method(method)  # an unknown method is reported before any error of its weights
    return Peer(text.strip(), (loader or Loader()).get(method, BackboneConfig(weights), device))
