"""How slices become model inputs, which is a property of the weights and not of the method that uses them.

The name of a preparation is part of a SAM's configuration (`SamConfig.preparation`), so that training,
benchmark and serving cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import SamModel

_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, in [0, 1]


@dataclass(frozen=True)
class Preparation:
    """The published steps from an 8-bit slice to the input of an encoder.

    Attributes:
        keep_aspect: Whether to scale both axes alike and pad at the bottom and right.
        mode: Interpolation, see `Frame.resample`.
        whole_values: Whether resampled values are 8-bit integers again: `truncated`, `rounded` or "" for no.
        own_range: Which slices are scaled to their own minimum and maximum: `all`, `grey` ones or "" for
            none; the others are divided by 255.
        standardised: Whether ImageNet's mean is then subtracted and its standard deviation divided by.
        restores_probabilities: Whether masks are resampled as probabilities rather than logits.
    """

    keep_aspect: bool
    mode: Literal["bilinear", "bicubic", "area", "nearest"]
    whole_values: Literal["truncated", "rounded", ""]
    own_range: Literal["all", "grey", ""]
    standardised: bool
    restores_probabilities: bool

    def fit(self, image: Tensor, frame: Frame) -> Tensor:
        """Convert a slice (C, H, W) in [0, 255] to a model input (3, S, S) in [0, 1].

        Padding becomes zero by `normalise`.
        """
        small = frame.resample(image, self.mode).clamp(0, 255)
        if self.whole_values == "truncated":
            small = (small + 1e-3).floor()  # 1e-3: values that are whole but for rounding errors
        elif self.whole_values == "rounded":
            small = small.round()
        if self.own_range == "all" or (self.own_range == "grey" and image.shape[0] == 1):
            low, high = small.amin(), small.amax()
            small = (small - low) / (high - low).clamp(min=1e-8)
        else:
            small = small / 255
        fill = _channels(_MEAN) if self.standardised else 0.0
        return frame.pad(small.expand(3, -1, -1), fill)

    def normalise(self, images: Tensor) -> Tensor:
        """Convert model inputs (B, 3, S, S) in [0, 1] to what the encoder reads."""
        return standardised(images) if self.standardised else images


#: Kirillov et al., Segment Anything (ICCV 2023); also MobileSAM and EfficientViT-SAM
SAM = Preparation(True, "bilinear", "", "", True, False)
#: Ravi et al., SAM 2: Segment Anything in Images and Videos (2024)
SAM2 = Preparation(False, "bilinear", "", "", True, False)
#: Ma et al., Segment anything in medical images (Nature Communications, 2024), inference
MEDSAM = Preparation(False, "bicubic", "truncated", "grey", False, True)
#: LiteMedSAM (Ma et al., 2024), inference at 256 px
LITE_MEDSAM = Preparation(True, "area", "rounded", "all", False, False)

#: Cheng et al., SAM-Med2D (2023), at 256 px
SAM_MED2D = Preparation(False, "nearest", "", "", True, False)

PREPARATIONS: Mapping[str, Preparation] = MappingProxyType(
    {"sam": SAM, "medsam": MEDSAM, "litemedsam": LITE_MEDSAM, "sam-med2d": SAM_MED2D}
)


def preparation_of(model: SamModel, otherwise: Preparation) -> Preparation:
    """The preparation that the weights declare, or another one if they declare none.

    Raises:
        ValueError: They declare one that SegMed does not know.
    """
    name = getattr(model.config, "preparation", "")
    if not name:
        return otherwise
    if name not in PREPARATIONS:
        raise ValueError(
            f"The weights were trained on slices prepared in the way {name!r}, which SegMed does not know. "
            f"It knows {', '.join(PREPARATIONS)}."
        )
    return PREPARATIONS[name]


def standardised(images: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1] without ImageNet's mean and by its standard deviation."""
    mean, sd = (_channels(values).to(images.device, images.dtype) for values in (_MEAN, _SD))
    return (images - mean) / sd


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]
