"""SAM-Adapter: small bottlenecks inside a frozen SAM learn the domain, and all organs are segmented at once.

Source: Wu et al., Medical SAM Adapter: Adapting Segment Anything Model for Medical Image Segmentation (2023).
Each encoder layer has two adapters, as in the 2-D form published there, and an optional third along depth for
stacks of slices. A convolutional stem, which the published encoder does not have, has one behind each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from segmed.methods.adapter.adapter_layers import (
    ACTIVATIONS,
    Activation,
    AdaptedAttention,
    AdaptedConvolutions,
    Adapter,
    ParallelMlp,
)
from segmed.methods.base.method import Parts, Training
from segmed.methods.base.trainable import Recipe
from segmed.methods.sam.class_head import ClassConfig, TrainableClassSegmenter, learning_rate
from segmed.methods.sam.sharing import encoder_layers
from segmed.sam.stem import ConvStem, Residual

if TYPE_CHECKING:
    from transformers import SamModel


@dataclass(frozen=True)
class AdapterSamConfig(ClassConfig):
    """The classes and the adapters.

    Attributes:
        ratio: Ratio of the bottleneck's channels to those of the layer; a quarter in Wu et al. (2023).
        activation: Activation in the bottleneck, `relu` or `gelu` (Wu et al., 2023).
        depth_adapter: Whether each encoder layer has a third adapter along a stack of slices.
        depth: Number of consecutive slices of a batch that are neighbours in a volume, for the depth adapter;
            1 does not use it.
        rate: Learning rate of the adapters, 1e-4 in Wu et al. (2023), who train 100 epochs on ViT-B; a few
            passes over few data need about 3e-3.
    """

    ratio: float = 0.25
    activation: Activation = "relu"
    depth_adapter: bool = False
    depth: int = 1
    rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float) or not 0 < self.ratio <= 1:
            raise ValueError(f"ratio is {self.ratio!r}; allowed are numbers above 0 and up to 1. Take 0.25.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {self.activation!r}; allowed are {', '.join(ACTIVATIONS)}. Take 'relu'."
            )
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or self.depth < 1:
            raise ValueError(
                f"depth is {self.depth!r}; allowed are whole numbers from 1. Take 1 for single slices."
            )
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 < self.rate <= 0.1:
            raise ValueError(f"rate is {self.rate!r}; allowed are numbers above 0 and up to 0.1. Take 1e-4.")
        if self.depth > 1 and not self.depth_adapter:
            raise ValueError(
                f"depth is {self.depth} without a depth adapter; allowed is only 1 then. "
                "Set depth_adapter, or take depth 1."
            )


class AdapterSam(TrainableClassSegmenter):
    """A SAM with trained adapters in encoder and decoder, and a trained head and prompt encoder.

    An encoder with a convolutional stem has adapters behind the blocks of the stem, too: most of such an
    encoder is its stem, and adapters in its few layers alone change little.

    With `depth` above 1 the features of a slice depend on its neighbours in the batch.

    Args:
        model: Any SAM; it is not changed.
        config: The classes and adapters.
        version: Version of the weights.
    """

    name = "adapter"
    config: AdapterSamConfig

    def __init__(self, model: SamModel, config: AdapterSamConfig | None = None, version: str = "0") -> None:
        config = config or AdapterSamConfig()
        super().__init__(model, config, version)
        self.recipe = self.recipe_for(1)
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

    def recipe_for(self, batch: int) -> Recipe:
        """The epochs and the default rate of Wu et al. (2023) for adapters; the head learns as in LoRA-SAM.

        The mask tokens of the classes start from random weights. At the adapters' rate they would hardly
        move, and the model would predict only background.
        """
        head = learning_rate(batch)
        rates = {"": self.config.rate, "model.mask_decoder.": head, "model.prompt_encoder.": head}
        rates["model.mask_decoder.transformer."] = self.config.rate
        return Recipe(rates, "dice_ce", "adamw", 0.01, "poly", warmup=250, epochs=100, prompted=False)

    def _adapt_encoder(self) -> None:
        vision = self.model.config.vision_config
        side = vision.image_size // vision.patch_size
        for layer in encoder_layers(self.model, self.name):
            windows = (-(-side // layer.window_size)) ** 2 if layer.window_size else 1
            depth = self._adapter(layer.attn.proj.weight, skip=False) if self.config.depth_adapter else None
            space = self._adapter(layer.attn.proj.weight, skip=True)
            layer.attn = AdaptedAttention(layer.attn, space, depth, self.config.depth, windows)
            layer.mlp = ParallelMlp(layer.mlp, self._adapter(layer.mlp.lin2.weight, skip=False))
        stem = self.model.vision_encoder.patch_embed
        for blocks in (*stem.down, stem.up) if isinstance(stem, ConvStem) else ():
            for n, block in enumerate(blocks):
                if isinstance(block, Residual):
                    blocks[n] = AdaptedConvolutions(block, self._adapter(block.conv2.weight, skip=True))

    def _adapt_decoder(self) -> None:
        for layer in self.model.mask_decoder.transformer.layers:
            layer.mlp = ParallelMlp(layer.mlp, self._adapter(layer.mlp.lin2.weight, skip=False))
            # The block normalises the sum of keys and attention, so an adapter before the norm adapts that
            # sum.
            layer.layer_norm4 = nn.Sequential(
                self._adapter(layer.layer_norm4.weight, skip=True), layer.layer_norm4
            )

    def _adapter(self, last: Tensor, skip: bool) -> Adapter:
        """An adapter for the output of a layer whose last weight (D, …) is `last`."""
        return Adapter(last.shape[0], self.config.ratio, self.config.activation, skip, last)


PARTS = Parts(training=Training(AdapterSam, AdapterSamConfig))
