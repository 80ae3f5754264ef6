"""Segmenters ready to serve: weights read once per backbone and device, shared by the methods that use them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from transformers import SamModel

from segmed.methods import METHODS
from segmed.methods.segmenter import Method, Segmenter
from segmed.sam.precision import encoder_dtype, prepare_encoder
from segmed.sam.weights import check_source, load_sam, weights_version


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
        source: folder, file or Hugging Face id; "" for none.
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
