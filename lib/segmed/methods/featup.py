"""SAM whose mask decoder also sees the features at high resolution.

Source of the upsampling: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution (ICLR 2024); how
its features enter the decoder is this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.decoder_tuning import DecoderTuning
from segmed.methods.jbu import JbuStack, load_jbu
from segmed.methods.method import Parts, Training
from segmed.methods.segmenter import Logits
from segmed.methods.sharing import share_weights
from segmed.methods.trainable import Recipe
from segmed.sam.embedding import Embedding

if TYPE_CHECKING:
    from transformers import SamModel

Variant = Literal["decoder", "hires"]

_STAGES: dict[Variant, int] = {"decoder": 2, "hires": 3}
_MOST_STAGES = 4


@dataclass(frozen=True)
class FeatUpConfig:
    """How fine the features become and where they go.

    Attributes:
        variant: `decoder` adds them at the decoder's own resolution, four times that of the tokens; `hires` makes the
            masks as fine as the features, at four times the memory.
        stages: doublings of the resolution; 0 for those of the variant, 2 and 3.
        jbu: file of `scripts/pretrain_jbu.py` to start from, "" for random weights. It is not written beside trained
            weights, which hold the upsampler.
        normalise: whether ImageNet's mean and sd are taken out before the encoder, as plain SAM was trained.
    """

    variant: Variant = "decoder"
    stages: int = 0
    jbu: str = ""
    normalise: bool = False

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ValueError(f"The variant {self.variant!r} is unknown. Choose from {', '.join(get_args(Variant))}.")
        fewest = 1 if self.variant == "decoder" else 3
        if self.stages != 0 and not fewest <= self.stages <= _MOST_STAGES:
            raise ValueError(
                f"stages is {self.stages}; {self.variant!r} takes {fewest} to {_MOST_STAGES}. Leave it at 0 for "
                f"{_STAGES[self.variant]}."
            )

    @property
    def depth(self) -> int:
        """Doublings of the resolution."""
        return self.stages or _STAGES[self.variant]


class GuidedUpscale(nn.ConvTranspose2d):
    """The decoder's second upscaling with `guidance` (B, C, H, W), if there is any, added to its output.

    The output becomes as large as the guidance, and guidance is repeated for the prompts of a slice.
    """

    guidance: Tensor | None = None

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B P, C', h, w) → (B P, C, 2h, 2w), or (B P, C, H, W) with guidance."""
        out = super().forward(x, output_size)
        if self.guidance is None:
            return out
        if out.shape[2:] != self.guidance.shape[2:]:
            out = F.interpolate(out, self.guidance.shape[2:], mode="bilinear", align_corners=False)
        return out + self.guidance.repeat_interleave(len(out) // len(self.guidance), 0)


class FeatUp(DecoderTuning):
    """Frozen encoder → features upsampled along the image's edges → added inside the tuned mask decoder.

    The convolution that adds them starts at 0, so that untrained the variant `decoder` is SAM exactly. Slices and masks
    are resampled as by MedSAM. Upsampling is done once per slice, in `encode`; while training it is done in `decode`:
    then embeddings have no gradient and can be kept.

    Args:
        model: any SAM-shaped model; left as it is.
        config: how fine, and where to.
        version: names the weights.

    Raises:
        FileNotFoundError: the config's upsampler is not there.
        ValueError: it has other channels or stages than this model and config.
    """

    name: ClassVar[str] = "featup"

    def __init__(self, model: SamModel, config: FeatUpConfig | None = None, version: str = "0") -> None:
        decoder = [n for n, _ in model.named_parameters() if n.startswith("mask_decoder.")]
        super().__init__(share_weights(model, decoder), version=version)
        config = config or FeatUpConfig()
        self.config = replace(config, jbu="")
        # decoder: Ma et al. (2024); upsampler: Fu et al. (2024)
        rates = {"": 1e-3, "model.mask_decoder.": 1e-4}
        self.recipe = Recipe(rates, "dice_bce", "adamw", weight_decay=0.01, epochs=100)
        width = int(model.config.mask_decoder_config.hidden_size)
        self.jbu = JbuStack(width, config.depth)
        if config.jbu:
            self.jbu = _checked(load_jbu(Path(config.jbu)), Path(config.jbu).name, width, config.depth)
        self.to_decoder = nn.Conv2d(width, self.model.mask_decoder.upscale_conv2.out_channels, 1)
        nn.init.zeros_(self.to_decoder.weight)
        nn.init.zeros_(self.to_decoder.bias)  # type: ignore[arg-type]
        from segmed.methods.guided_decoder import GuidedDecoder

        self.model.mask_decoder.__class__ = GuidedDecoder
        self.model.mask_decoder.upscale_conv2.__class__ = GuidedUpscale

    def trained_names(self) -> list[str]:
        frozen = "model.mask_decoder.iou_prediction_head."
        parts = ("jbu.", "to_decoder.", "model.mask_decoder.")
        return [n for n, _ in self.named_parameters() if n.startswith(parts) and not n.startswith(frozen)]

    def encode(self, images: Tensor) -> Embedding:
        """Features, and as extra what the decoder adds; while training the image (B, 3, 2ⁿh, 2ⁿw) that guides it.

        Raises:
            ValueError: images of another size than the encoder's.
        """
        side = int(self.model.config.vision_config.image_size)
        if images.shape[1:] != (3, side, side):
            raise ValueError(
                f"The encoder takes images of {(3, side, side)}, not {tuple(images.shape[1:])}. Prepare slices with "
                "`prepare`."
            )
        embedding = self._encode((images - self.mean) / self.sd if self.config.normalise else images)
        fine = 2**self.config.depth * embedding.features.shape[-1]
        guide = F.adaptive_avg_pool2d(images.float(), fine)
        extra = guide if self.training else self._guidance(embedding.features, guide)
        return replace(embedding, extras=(extra,))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        return super().decode(self._guided(embedding), prompts, size)

    def candidates(self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]) -> Logits:
        return super().candidates(self._guided(embedding), prompts, size)

    def _guided(self, embedding: Embedding) -> Embedding:
        """With the guidance folded into channels, where it goes wherever the features of its slice go."""
        guidance = self._guidance(embedding.features, embedding.extras[0]) if self.training else embedding.extras[0]
        folded = F.pixel_unshuffle(guidance, guidance.shape[-1] // embedding.features.shape[-1])
        return replace(embedding, features=torch.cat([embedding.features, folded], 1))

    def _guidance(self, features: Tensor, guide: Tensor) -> Tensor:
        """What is added to the decoder's upscaled features (B, C / 8, H, W)."""
        fine = self.jbu.projected(features, guide, self.to_decoder)
        own = 4 * features.shape[-1]  # resolution of SAM's masks
        if self.config.variant == "hires" or fine.shape[-1] == own:
            return fine
        return F.interpolate(fine, (own, own), mode="bilinear", align_corners=False, antialias=True)


def _checked(jbu: JbuStack, name: str, channels: int, stages: int) -> JbuStack:
    if (jbu.channels, len(jbu.stages)) != (channels, stages):
        raise ValueError(
            f"{name} upsamples {jbu.channels} channels in {len(jbu.stages)} stages, but this backbone and config need "
            f"{channels} channels and {stages} stages. Make another with scripts/pretrain_jbu.py and this backbone."
        )
    return jbu


PARTS = Parts(training=Training(FeatUp, FeatUpConfig))
