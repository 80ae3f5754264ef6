"""Segmenters ready to serve: weights read once per backbone and device, shared by the methods that use them."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

import torch
from transformers import SamModel

from segmed.methods import METHODS
from segmed.methods.segmenter import Method, Segmenter
from segmed.sam.precision import encoder_dtype, prepare_encoder
from segmed.sam.weights import check_source, load_sam, weights_version

logger = logging.getLogger(__name__)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}. Choose from {', '.join(METHODS)}.")
    return METHODS[name]


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
        encoder_dtype(torch.device("cpu"), self.precision)  # refuses unknown ones
        if self.source:
            check_source(self.source)


class Loader:
    """Builds segmenters on first use, never at start; safe for threads."""

    def __init__(self) -> None:
        self._models: dict[tuple[BackboneConfig, str], tuple[SamModel, str]] = {}
        self._segmenters: dict[tuple[str, BackboneConfig, str], Segmenter] = {}
        self._lock = threading.Lock()

    def get(self, method: str, backbone: BackboneConfig, device: str = "cpu") -> Segmenter:
        """The segmenter of a method on a device.

        Args:
            method: name in `METHODS`.
            backbone: base weights.
            device: such as `cpu` or `cuda:0`.

        Raises:
            ValueError: unknown method, no backbone for a method that needs one, or unusable weights.
            FileNotFoundError: weights are not there.
        """
        chosen = find_method(method)
        if chosen.weights and not backbone.source:
            backbone = replace(backbone, source=chosen.weights)
        if not chosen.needs_backbone:
            backbone, device = BackboneConfig(), "cpu"
        elif not backbone.source:
            raise ValueError(
                f"{method!r} needs SAM weights. Start with --conf backbone FOLDER, a .pth FILE, or a Hugging Face id "
                "such as facebook/sam-vit-base."
            )
        with self._lock:
            key = (method, backbone, device)
            if key not in self._segmenters:
                model, version = self._model(backbone, device) if chosen.needs_backbone else (None, "")
                self._segmenters[key] = chosen.build(model, version).to(device).eval()
            return self._segmenters[key]

    def get_or_fallback(self, method: str, backbone: BackboneConfig, device: str = "cpu") -> tuple[Segmenter, str]:
        """As `get`, but a method whose embedded weights are missing or damaged gives way to `classical`.

        Returns:
            The segmenter, and what to tell the user: "" or why another method runs.
        """
        own = find_method(method).weights
        try:
            return self.get(method, backbone, device), ""
        except (ValueError, FileNotFoundError) as error:
            if not own or (backbone.source and backbone.source != own):
                raise
            logger.warning("%s falls back to classical: %s", method, error)
            return self.get("classical", BackboneConfig()), (
                f"{method} cannot run, so the simpler method 'classical' answers. {error} Restore the folder from the "
                "project's files."
            )

    def _model(self, backbone: BackboneConfig, device: str) -> tuple[SamModel, str]:
        key = (backbone, device)
        if key not in self._models:
            model = load_sam(backbone.source, backbone.image_size)
            version = weights_version(model)
            target = torch.device(device)
            model = model.requires_grad_(False).to(target)
            model.vision_encoder = prepare_encoder(model.vision_encoder, target, backbone.precision)
            self._models[key] = model, f"{version}-{backbone.precision}"
        return self._models[key]
