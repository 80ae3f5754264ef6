"""SAM or MedSAM with a tuned mask decoder: the baseline of all other trained methods.

Sources: Ma et al., Segment anything in medical images (Nature Communications, 2024), training; the studies of
SAM on LGG and of boxes for MedSAM on BraTS 2023, for the presets named after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from segmed.methods.base.method import Parts, Training
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import SamModel

Preset = Literal["brats", "segmed", "full"]

# `brats` and `full`: loss, optimiser and learning rate of MedSAM's training. `segmed`: a rate ten times as
# high, less stable, with the loss of Lin et al., Focal Loss for Dense Object Detection (ICCV 2017).
RECIPES: Mapping[Preset, Recipe] = MappingProxyType(
    {
        "brats": Recipe({"": 1e-4}, "dice_bce", "adamw", weight_decay=0.01, epochs=100),
        "segmed": Recipe({"": 1e-3}, "focal", "adam", weight_decay=0.0, epochs=7),
        "full": Recipe({"": 1e-4}, "dice_bce", "adamw", weight_decay=0.01, epochs=100),
    }
)


def preset_recipe(preset: str, own: Mapping[str, float], choices: Sequence[str]) -> Recipe:
    """The recipe of a preset for a method that trains further parameters beside the mask decoder.

    Args:
        preset: `brats`, where these parameters have rates of their own, or `segmed`, where all have one rate.
        own: Learning rates by prefix of these parameters' names.
        choices: The presets of the method.

    Raises:
        ValueError: If the method does not have the preset.
    """
    if preset not in choices:
        raise ValueError(f"The preset {preset!r} is unknown. Choose from {', '.join(choices)}.")
    recipe = RECIPES[preset]  # type: ignore[index]
    return replace(recipe, rates={**recipe.rates, **own}) if preset == "brats" else recipe


@dataclass(frozen=True)
class DecoderTuningConfig:
    """The tuned parts and the recipe.

    Attributes:
        preset: `brats` (mask decoder, AdamW), `segmed` (mask decoder, Adam, focal loss), or `full` (mask
            decoder and image encoder, AdamW).
        noise: Largest standard deviation of the Gaussian noise that is added to slices in training, as a
            share of the range of values; 0.1 (25 of 255) makes masks robust to noise, 0 adds none.
    """

    preset: Preset = "brats"
    noise: float = 0.0

    def __post_init__(self) -> None:
        preset_recipe(self.preset, {}, get_args(Preset))
        number = isinstance(self.noise, int | float) and not isinstance(self.noise, bool)
        if not number or not 0 <= self.noise <= 1:
            raise ValueError(f"noise is {self.noise!r}; allowed are shares from 0 to 1. Take 0.1, or 0.")


class SamDecoderTuning(Sam, TrainableSegmenter):
    """Plain SAM, with its own preparation of slices, and a trained mask decoder.

    As published for MedSAM, the prompt encoder is frozen. So is the head that predicts the IoU, because no
    loss here trains it; clicks therefore use the single-mask token as boxes do.

    Args:
        model: Any SAM-shaped model.
        config: The tuned parts and the recipe.
        version: Version of the weights.
    """

    name: ClassVar[str] = "sam"
    choose_best = False
    segments_untrained = True

    def __init__(
        self, model: SamModel, config: DecoderTuningConfig | None = None, version: str = "0"
    ) -> None:
        super().__init__(model, version)
        self.config = config or DecoderTuningConfig()
        self.recipe = RECIPES[self.config.preset]
        self.input_varies = self.config.noise > 0

    def trained_names(self) -> list[str]:
        return tuned_names(self, self.config.preset)

    def encode(self, images: Tensor) -> Embedding:
        return super().encode(_noisy(images, self.config.noise) if self.training else images)


class DecoderTuning(SamDecoderTuning, MedSam):
    """The same in MedSAM's pipeline."""

    name: ClassVar[str] = "decoder_tuning"

    def _restore(self, frame: Frame, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample as for inference, but logits while training: saturated probabilities have no gradient."""
        return frame.restore(low.float(), size) if self.training else super()._restore(frame, low, size)


def _noisy(images: Tensor, most: float) -> Tensor:
    """Add Gaussian noise, the same to all channels, with a random standard deviation up to `most`."""
    if not most:
        return images
    strength = most * torch.rand(len(images), 1, 1, 1, device=images.device)
    return (images + strength * torch.randn_like(images[:, :1])).clamp(0, 1)


def tuned_names(method: nn.Module, preset: Preset) -> list[str]:
    """Names of the mask decoder's parameters, without the IoU head, and with `full` those of the encoder."""
    parts = ("model.mask_decoder.", *(("model.vision_encoder.",) if preset == "full" else ()))
    frozen = "model.mask_decoder.iou_prediction_head."
    return [n for n, _ in method.named_parameters() if n.startswith(parts) and not n.startswith(frozen)]


def _untrained(model: SamModel | None, version: str) -> MedSam:
    assert model is not None
    return MedSam(model, f"medsam-{version}")


def _untrained_sam(model: SamModel | None, version: str) -> Sam:
    assert model is not None
    return Sam(model, f"sam-{version}")


PARTS = Parts(_untrained, training=Training(DecoderTuning, DecoderTuningConfig))
SAM_PARTS = Parts(_untrained_sam, training=Training(SamDecoderTuning, DecoderTuningConfig))
