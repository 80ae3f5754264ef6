"""SAM-Adapter: small bottlenecks inside a frozen SAM learn the domain, and all organs come out at once.

Source: Wu et al., Medical SAM Adapter: Adapting Segment Anything Model for Medical Image Segmentation (2023). Two
adapters per encoder layer as in the 2-D form published there, the third, along depth, for stacks of slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from segmed.methods.adapter_layers import ACTIVATIONS, Activation, AdaptedAttention, Adapter, ParallelMlp
from segmed.methods.class_head import ClassConfig, TrainableClassSegmenter
from segmed.methods.method import Parts, Training
from segmed.methods.trainable import Recipe

if TYPE_CHECKING:
    from transformers import SamModel


@dataclass(frozen=True)
class AdapterSamConfig(ClassConfig):
    """What is told apart, and the adapters.

    Attributes:
        ratio: channels of the bottleneck to those of the layer (Wu et al., 2023, take a quarter).
        activation: `relu` or `gelu` (Wu et al., 2023).
        depth_adapter: a third adapter per encoder layer, along a stack of slices.
        depth: slices of a batch that are neighbours in a volume, in order, for the depth adapter; 1 does not use it.
    """

    ratio: float = 0.25
    activation: Activation = "relu"
    depth_adapter: bool = False
    depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float) or not 0 < self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio!r}; allowed is above 0 up to 1. Take 0.25.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; allowed are {', '.join(ACTIVATIONS)}. Take 'relu'.")
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or self.depth < 1:
            raise ValueError(f"depth is {self.depth!r}; allowed are whole numbers from 1. Take 1 for single slices.")
        if self.depth > 1 and not self.depth_adapter:
            raise ValueError(
                f"depth is {self.depth} without a depth adapter; allowed is 1 then. Set depth_adapter, or take depth 1."
            )


class AdapterSam(TrainableClassSegmenter):
    """Adapters in encoder and decoder, the head and the prompt encoder train.

    With `depth` above 1 a slice's features depend on its neighbours in the batch.

    Args:
        model: any SAM; left as it is.
        config: classes and adapters.
        version: names the weights.
    """

    name = "adapter"
    config: AdapterSamConfig

    def __init__(self, model: SamModel, config: AdapterSamConfig | None = None, version: str = "0") -> None:
        config = config or AdapterSamConfig()
        super().__init__(model, config, version)
        # learning rate and epochs: Wu et al. (2023); loss and decay as of LoRA-SAM, so that the two compare
        self.recipe = Recipe(
            {"": 1e-4}, "dice_ce", "adamw", weight_decay=0.01, schedule="poly", epochs=100, prompted=False
        )
        self._adapt_encoder()
        self._adapt_decoder()
        self.prepare_training()

    def trained_names(self) -> list[str]:
        return super().trained_names() + [
            f"{prefix}.{name}"
            for prefix, module in self.named_modules()
            if isinstance(module, Adapter)
            for name, _ in module.named_parameters()
        ]

    def _adapt_encoder(self) -> None:
        vision = self.model.config.vision_config
        side = vision.image_size // vision.patch_size
        for layer in self.model.vision_encoder.layers:
            windows = (-(-side // layer.window_size)) ** 2 if layer.window_size else 1
            depth = self._adapter(layer.attn.proj.weight, skip=False) if self.config.depth_adapter else None
            space = self._adapter(layer.attn.proj.weight, skip=True)
            layer.attn = AdaptedAttention(layer.attn, space, depth, self.config.depth, windows)
            layer.mlp = ParallelMlp(layer.mlp, self._adapter(layer.mlp.lin2.weight, skip=False))

    def _adapt_decoder(self) -> None:
        for layer in self.model.mask_decoder.transformer.layers:
            layer.mlp = ParallelMlp(layer.mlp, self._adapter(layer.mlp.lin2.weight, skip=False))
            # the block normalises the sum of keys and attention, so what stands before the norm adapts that sum
            layer.layer_norm4 = nn.Sequential(self._adapter(layer.layer_norm4.weight, skip=True), layer.layer_norm4)

    def _adapter(self, last: Tensor, skip: bool) -> Adapter:
        """One as wide as what a layer gives, whose last weight (D, …) is told."""
        return Adapter(last.shape[0], self.config.ratio, self.config.activation, skip, last)


PARTS = Parts(training=Training(AdapterSam, AdapterSamConfig))
