"""GAFL-SAM: a learned filter of the image's spectrum in front of a frozen SAM encoder.

Source: Shipitsin, Bespalov, Dylov, GAFL: Global Adaptive Filtering Layer for Computer Vision (2022).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from segmed.methods.base.method import Parts, Training
from segmed.methods.base.trainable import Recipe
from segmed.methods.gafl.adaptive_filter import ACTIVATIONS, VARIANTS, Activation, AdaptiveFilter, Variant
from segmed.methods.sam.decoder_tuning import DecoderTuning, preset_recipe
from segmed.methods.sam.sharing import share_weights
from segmed.sam.embedding import Embedding
from segmed.sam.preparation import standardised

if TYPE_CHECKING:
    from transformers import SamModel

_LARGE = 512  # px; encoders with larger inputs need gigabytes for the activations of a backward pass


@dataclass(frozen=True)
class GaflConfig:
    """The settings of the filter.

    Attributes:
        variant: `spectrum`, `spectrum_log`, `phase` or `general_spectrum`, see `AdaptiveFilter`.
        activation: Activation of `general_spectrum`; with any but `relu` the untrained filter changes the
            image.
        strict_reference: Whether to use the filter as published, in which `phase` and the biases of
            `general_spectrum` cannot learn; False frees them, see `AdaptiveFilter`.
        normalise: Whether images are normalised by ImageNet's mean and standard deviation after the filter,
            as in the training of plain SAM.
        preset: `gafl` (Adam, 1e-3 for the filter, halved on plateaus), or `brats` or `segmed` as in
            `DecoderTuningConfig`.
    """

    variant: Variant = "spectrum"
    activation: Activation = "relu"
    strict_reference: bool = True
    normalise: bool = False
    preset: Literal["gafl", "brats", "segmed"] = "gafl"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"The variant {self.variant!r} is unknown. Choose from {', '.join(VARIANTS)}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"The activation {self.activation!r} is unknown. Choose from {', '.join(ACTIVATIONS)}."
            )
        _recipe(self.preset)


class Gafl(DecoderTuning):
    """A learned filter of slices, a frozen encoder and a tuned mask decoder, resampled as for MedSAM.

    Args:
        model: Any SAM-shaped model; it is not changed.
        config: The settings of the filter.
        version: Version of the weights.
    """

    no_graphs = "its filter works on complex numbers, which most runtimes do not have"
    name: ClassVar[str] = "gafl"

    def __init__(self, model: SamModel, config: GaflConfig | None = None, version: str = "0") -> None:
        decoder = [n for n, _ in model.named_parameters() if n.startswith("mask_decoder.")]
        super().__init__(share_weights(model, decoder), version=version)
        self.config = config = config or GaflConfig()
        self.recipe = _recipe(config.preset)
        side = int(model.config.vision_config.image_size)
        self.filter = AdaptiveFilter(
            config.variant, (3, side, side), config.activation, config.strict_reference
        )

    def trained_names(self) -> list[str]:
        frozen = "model.mask_decoder.iou_prediction_head."
        parts = ("filter.", "model.mask_decoder.")
        return [n for n, _ in self.named_parameters() if n.startswith(parts) and not n.startswith(frozen)]

    def prepare_training(self) -> None:
        """Prepare as other methods do; large encoders recompute activations for the backward pass."""
        super().prepare_training()
        if int(self.model.config.vision_config.image_size) >= _LARGE:
            self.model.activation_checkpointing_enable()

    def encode(self, images: Tensor) -> Embedding:
        filtered = self.filter(images)
        return self._encode(
            standardised(filtered) if self.config.normalise else self.preparation.normalise(filtered)
        )


def _recipe(preset: str) -> Recipe:
    """The recipe of a preset, without decay, which would pull coefficients to 0 and thus images to black."""
    rates = {"filter.": 1e-3}
    if preset == "gafl":
        # The filter's rate, schedule and epochs: Shipitsin et al. The decoder's rate: Ma et al. (2024).
        rates["model.mask_decoder."] = 1e-4
        return Recipe(rates, "dice_bce", "adam", weight_decay=0.0, schedule="plateau", epochs=25)
    return replace(preset_recipe(preset, rates, ("gafl", "brats", "segmed")), weight_decay=0.0)


PARTS = Parts(training=Training(Gafl, GaflConfig))
