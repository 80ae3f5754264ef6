"""LoRA-SAM: low-rank updates of all attention's queries and values; all organs are segmented at once.

Sources: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022); Zhang and Liu, Customized
Segment Anything Model for Medical Image Segmentation (2023).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from segmed.methods.base.method import Parts, Training
from segmed.methods.base.trainable import Recipe
from segmed.methods.sam.class_head import (
    ClassConfig,
    ClassSegmenter,
    TrainableClassSegmenter,
    head_names,
    learning_rate,
)
from segmed.methods.sam.sharing import encoder_layers, share_weights
from segmed.sam.stem import ConvStem

if TYPE_CHECKING:
    from transformers import SamModel

Decoder = Literal["lora", "all"]

_ENCODER = r"vision_encoder\.layers\.\d+\.attn\.qkv\.(q|v)"
_DECODER = r"mask_decoder\.transformer\..+\.(q_proj|v_proj)"
_TRANSFORMER = "mask_decoder.transformer."
_STEM = r"vision_encoder\.patch_embed\.(down\.\d+\.0|(down|up)\..+\.?conv[12]|lateral\.\d+|projection)"


@dataclass(frozen=True)
class LoraSamConfig(ClassConfig):
    """The classes and the low-rank updates.

    Attributes:
        rank: Rank of the updates; their scale is 1 for all ranks, so that ranks can be compared (4 in Zhang
            and Liu, 2023).
        decoder: How the transformer of the mask decoder learns: by low-rank updates as well (`lora`, the
            SAMed_s of Zhang and Liu), or with all of its weights (`all`, their SAMed).
        prompt_token: Whether token 0, which answers prompts, is among the tokens when classes are decoded;
            not in files of SAMed, where there is no such token.
    """

    rank: int = 4
    decoder: Decoder = "lora"
    prompt_token: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank is {self.rank!r}; allowed are whole numbers from 1. Take 1, 4 or 8.")
        if self.decoder not in get_args(Decoder):
            raise ValueError(
                f"decoder is {self.decoder!r}; allowed are {' and '.join(get_args(Decoder))}. Take 'lora'."
            )
        if not isinstance(self.prompt_token, bool):
            raise ValueError(f"prompt_token is {self.prompt_token!r}; allowed are true and false. Take true.")


class SplitQkv(nn.Module):
    """The query, key and value rows of a fused projection as separate layers that share its memory.

    Args:
        fused: A linear layer D → 3D.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        weights = fused.weight.detach().chunk(3)
        biases = fused.bias.detach().chunk(3) if fused.bias is not None else (None,) * 3
        self.q, self.k, self.v = (_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Project tokens, (…, D) → (…, 3D)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)

    def fuse(self) -> nn.Linear:
        """Join the rows to one layer, with memory of its own."""
        parts = (self.q, self.k, self.v)
        bias = None if self.q.bias is None else torch.cat([p.bias for p in parts])
        return _linear(torch.cat([p.weight for p in parts]), bias)


class LoraSam(TrainableClassSegmenter):
    """A SAM with low-rank updates W + B A of queries and values in encoder and decoder, and a trained head.

    The prompt encoder is trained as well. An encoder with a convolutional stem has low-rank updates of its
    convolutions, too.

    The low-rank layers are those of peft: `model.disable_adapters()`, `enable_adapters()`, `add_adapter()`,
    `set_adapter()` and `get_adapter_state_dict()` work as documented by peft.

    Args:
        model: Any SAM; it is not changed.
        config: The classes and the rank.
        version: Version of the weights.

    Raises:
        ValueError: If the rank exceeds the width of the narrowest projection of the model.
    """

    name = "lora"
    config: LoraSamConfig

    def __init__(self, model: SamModel, config: LoraSamConfig | None = None, version: str = "0") -> None:
        config = config or LoraSamConfig()
        super().__init__(model, config, version)
        if not config.prompt_token:
            self.decode_classes_alone()
        # Warm-up, weight decay, optimiser and epochs: Zhang and Liu (2023), who stop after 160 of 200 epochs.
        self.recipe = Recipe(
            {"": learning_rate(1)},
            "dice_ce",
            "adamw",
            weight_decay=0.1,
            schedule="poly",
            warmup=250,
            epochs=160,
            prompted=False,
            batch=12,
        )
        vision, decoder = self.model.config.vision_config, self.model.config.mask_decoder_config
        narrowest = vision.hidden_size
        if config.decoder == "lora":
            narrowest = min(narrowest, decoder.hidden_size // decoder.attention_downsample_rate)
        if config.rank > narrowest:
            raise ValueError(
                f"rank is {config.rank}; allowed are 1 to {narrowest}, the width of the narrowest projection "
                "of this model. Take 1, 4 or 8."
            )
        from peft import LoraConfig

        for layer in encoder_layers(self.model, self.name):
            layer.attn.qkv = SplitQkv(layer.attn.qkv)
        # Where the encoder is mostly a stem, its convolutions get low-rank updates as well.
        stem = isinstance(self.model.vision_encoder.patch_embed, ConvStem)
        targets = [_ENCODER]
        if config.decoder == "lora":
            targets.append(_DECODER)
        else:  # the weights are the base's up to here
            self.model.mask_decoder.transformer = copy.deepcopy(self.model.mask_decoder.transformer)
        if stem:
            targets.append(_STEM)
        self.model.add_adapter(
            LoraConfig(
                r=config.rank,
                lora_alpha=config.rank,
                lora_dropout=0.0,
                bias="none",
                target_modules="|".join(targets),
            )
        )
        self.prepare_training()

    def trained_names(self) -> list[str]:
        more = ".lora_", *([_TRANSFORMER] if self.config.decoder == "all" else [])
        names = [name for name, _ in self.named_parameters() if any(part in name for part in more)]
        return super().trained_names() + names

    def recipe_for(self, batch: int) -> Recipe:
        return replace(self.recipe, rates={"": learning_rate(batch)})

    @torch.no_grad()
    def merged(self) -> ClassSegmenter:
        """The method with the updates merged into its weights, at the cost of a plain SAM."""
        from peft.tuners.lora import LoraLayer

        model = share_weights(self.model, head_names(self.model))
        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge(safe_merge=True)  # into a copy, because the weights are shared
                model.set_submodule(name, module.get_base_layer())
        for layer in model.vision_encoder.layers:
            layer.attn.qkv = layer.attn.qkv.fuse()
        model.delete_adapter(list(model.peft_config))
        merged = ClassSegmenter(model, self.labels, self.version).train(self.training)
        if not self.config.prompt_token:
            merged.decode_classes_alone()
        return merged


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


PARTS = Parts(training=Training(LoraSam, LoraSamConfig, for_inference=LoraSam.merged))
