"""SAM or MedSAM whose mask decoder is tuned: what every other method is measured against.

Source: Ma et al., Segment anything in medical images (Nature Communications, 2024), training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn
from transformers import SamModel

from segmed.methods.medsam import MedSam
from segmed.methods.segmenter import Method, Training
from segmed.methods.trainable import Recipe, TrainableSegmenter
from segmed.sam.frame import Frame

Preset = Literal["brats", "segmed", "full"]

# `brats` and `full`: loss, optimiser and rate that MedSAM was trained with; `segmed` learns ten times faster and less
# stably, by the loss of Lin et al., Focal Loss for Dense Object Detection (ICCV 2017)
RECIPES: Mapping[Preset, Recipe] = MappingProxyType(
    {
        "brats": Recipe({"": 1e-4}, "dice_bce", "adamw", weight_decay=0.01, epochs=100),
        "segmed": Recipe({"": 1e-3}, "focal", "adam", weight_decay=0.0, epochs=7),
        "full": Recipe({"": 1e-4}, "dice_bce", "adamw", weight_decay=0.01, epochs=100),
    }
)


@dataclass(frozen=True)
class DecoderTuningConfig:
    """What is tuned and how.

    Attributes:
        preset: `brats` (mask decoder, AdamW), `segmed` (mask decoder, Adam, focal loss), or `full` (image encoder too).
    """

    preset: Preset = "brats"

    def __post_init__(self) -> None:
        if self.preset not in get_args(Preset):
            raise ValueError(f"The preset {self.preset!r} is unknown. Choose from {', '.join(get_args(Preset))}.")


class DecoderTuning(MedSam, TrainableSegmenter):
    """MedSAM's pipeline with a mask decoder that trains; the prompt encoder stays, as in the published training.

    The head that predicts the IoU is frozen: no loss here teaches it.

    Args:
        model: any SAM-shaped model.
        config: what trains.
        version: names the weights.
    """

    name: ClassVar[str] = "decoder_tuning"

    def __init__(self, model: SamModel, config: DecoderTuningConfig | None = None, version: str = "0") -> None:
        super().__init__(model, version)
        self.config = config or DecoderTuningConfig()
        self.recipe = RECIPES[self.config.preset]

    def trained_names(self) -> list[str]:
        return tuned_names(self, self.config.preset)

    def _restore(self, frame: Frame, low: Tensor, size: tuple[int, int]) -> Tensor:
        """As MedSAM; while it trains, logits are resampled, as probabilities have no gradient where they saturate."""
        return frame.restore(low.float(), size) if self.training else super()._restore(frame, low, size)


def tuned_names(method: nn.Module, preset: Preset) -> list[str]:
    """Parameters of the mask decoder, and with `full` of the encoder; the head that predicts the IoU is no part."""
    parts = ("model.mask_decoder.", *(("model.vision_encoder.",) if preset == "full" else ()))
    frozen = "model.mask_decoder.iou_prediction_head."
    return [n for n, _ in method.named_parameters() if n.startswith(parts) and not n.startswith(frozen)]


def _untrained(model: SamModel | None, version: str) -> MedSam:
    assert model is not None
    return MedSam(model, f"medsam-{version}")


METHOD = Method(
    "medsam",
    "MedSAM: a box, refined by clicks",
    _untrained,
    training=Training(DecoderTuning, DecoderTuningConfig),
    example="medsam-vit-base",
)
