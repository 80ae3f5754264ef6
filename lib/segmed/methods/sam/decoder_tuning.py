"""SAM or MedSAM with a tuned mask decoder: the baseline of all other trained methods.

Source: Ma et al., Segment anything in medical images (Nature Communications, 2024), training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from torch import Tensor, nn

from segmed.methods.base.method import Parts, Training
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.sam.medsam import MedSam
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


@dataclass(frozen=True)
class DecoderTuningConfig:
    """The tuned parts and the recipe.

    Attributes:
        preset: `brats` (mask decoder, AdamW), `segmed` (mask decoder, Adam, focal loss), or `full` (mask
            decoder and image encoder, AdamW).
    """

    preset: Preset = "brats"

    def __post_init__(self) -> None:
        if self.preset not in get_args(Preset):
            raise ValueError(
                f"The preset {self.preset!r} is unknown. Choose from {', '.join(get_args(Preset))}."
            )


class DecoderTuning(MedSam, TrainableSegmenter):
    """MedSAM's pipeline with a trained mask decoder and, as published, a frozen prompt encoder.

    The head that predicts the IoU is frozen, because no loss here trains it.

    Args:
        model: Any SAM-shaped model.
        config: The tuned parts and the recipe.
        version: Version of the weights.
    """

    name: ClassVar[str] = "decoder_tuning"

    def __init__(
        self, model: SamModel, config: DecoderTuningConfig | None = None, version: str = "0"
    ) -> None:
        super().__init__(model, version)
        self.config = config or DecoderTuningConfig()
        self.recipe = RECIPES[self.config.preset]

    def trained_names(self) -> list[str]:
        return tuned_names(self, self.config.preset)

    def _restore(self, frame: Frame, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample as for inference, but logits while training: saturated probabilities have no gradient."""
        return frame.restore(low.float(), size) if self.training else super()._restore(frame, low, size)


def tuned_names(method: nn.Module, preset: Preset) -> list[str]:
    """Names of the mask decoder's parameters, without the IoU head, and with `full` those of the encoder."""
    parts = ("model.mask_decoder.", *(("model.vision_encoder.",) if preset == "full" else ()))
    frozen = "model.mask_decoder.iou_prediction_head."
    return [n for n, _ in method.named_parameters() if n.startswith(parts) and not n.startswith(frozen)]


def _untrained(model: SamModel | None, version: str) -> MedSam:
    assert model is not None
    return MedSam(model, f"medsam-{version}")


PARTS = Parts(_untrained, training=Training(DecoderTuning, DecoderTuningConfig))
