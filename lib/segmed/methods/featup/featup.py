"""FeatUp-SAM: SAM whose mask decoder also gets image features at high resolution.

Source of the upsampling: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution (ICLR
2024). The way in which its features enter the decoder is this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import LOCAL, Parts, Training
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import Recipe
from segmed.methods.featup.jbu import JbuStack, load_jbu
from segmed.methods.sam.decoder_tuning import DecoderTuning, preset_recipe
from segmed.methods.sam.sharing import share_weights
from segmed.sam.embedding import Embedding
from segmed.sam.preparation import standardised

if TYPE_CHECKING:
    from transformers import SamModel

Variant = Literal["decoder", "hires"]

_STAGES: dict[Variant, int] = {"decoder": 2, "hires": 3}
_MOST_STAGES = 4


@dataclass(frozen=True)
class FeatUpConfig:
    """The resolution of the features and their use.

    Attributes:
        variant: `decoder` adds the features at the decoder's own resolution, four times that of the tokens;
            `hires` makes the masks as fine as the features, at four times the memory.
        stages: Doublings of the resolution; 0 for the default of the variant, 2 and 3.
        jbu: A file from `scripts/pretrain_jbu.py` or FeatUp's authors to start from, "" for random weights.
            It is not stored with trained weights, which hold the upsampler.
        freeze_jbu: Whether the upsampler stays as it starts; the convolution behind it is trained.
        normalise: Whether images are normalised by ImageNet's mean and standard deviation before the encoder,
            as in the training of plain SAM.
        preset: `brats`, where the upsampler learns at ten times the rate of the decoder, or `segmed`, see
            `DecoderTuningConfig`.
    """

    variant: Variant = "decoder"
    stages: int = 0
    jbu: str = field(default="", metadata=LOCAL)
    freeze_jbu: bool = False
    normalise: bool = False
    preset: Literal["brats", "segmed"] = "brats"

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ValueError(
                f"The variant {self.variant!r} is unknown. Choose from {', '.join(get_args(Variant))}."
            )
        _recipe(self.preset)
        fewest = 1 if self.variant == "decoder" else 3
        if self.stages != 0 and not fewest <= self.stages <= _MOST_STAGES:
            raise ValueError(
                f"stages is {self.stages}; allowed are {fewest} to {_MOST_STAGES} for {self.variant!r}. "
                f"Leave it at 0 for {_STAGES[self.variant]}."
            )

    @property
    def depth(self) -> int:
        """Number of doublings of the resolution."""
        return self.stages or _STAGES[self.variant]


class GuidedUpscale(nn.ConvTranspose2d):
    """The decoder's second upscaling with `guidance` (B, C, H, W), if there is any, added to its output.

    The output becomes as large as the guidance, and guidance is repeated for the prompts of a slice.
    """

    guidance: Tensor | None = None

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upscale (B P, C', h, w), P prompts per slice → (B P, C, 2h, 2w) or, guided, (B P, C, H, W)."""
        out = super().forward(x, output_size)
        if self.guidance is None:
            return out
        if out.shape[2:] != self.guidance.shape[2:]:
            out = F.interpolate(out, self.guidance.shape[2:], mode="bilinear", align_corners=False)
        return out + self.guidance.repeat_interleave(len(out) // len(self.guidance), 0)


class FeatUp(DecoderTuning):
    """A frozen encoder whose features are upsampled along the image's edges for the tuned mask decoder.

    The convolution before the addition starts at 0, so that the untrained variant `decoder` equals SAM.
    Slices and masks are resampled as for MedSAM. Upsampling is done once per slice, in `encode`, but while
    training in `decode`, so that embeddings have no gradient and can be cached.

    Args:
        model: Any SAM-shaped model; it is not changed.
        config: The resolution of the features and their use.
        version: Version of the weights.

    Raises:
        FileNotFoundError: If the upsampler of the config does not exist.
        ValueError: If the upsampler has fewer stages than the config needs, or is damaged.
    """

    no_graphs = "its decoder is guided by the pixels of each slice"
    name: ClassVar[str] = "featup"

    def __init__(self, model: SamModel, config: FeatUpConfig | None = None, version: str = "0") -> None:
        decoder = [n for n, _ in model.named_parameters() if n.startswith("mask_decoder.")]
        super().__init__(share_weights(model, decoder), version=version)
        config = config or FeatUpConfig()
        self.config = replace(config, jbu="")
        self.recipe = _recipe(config.preset)
        width = int(model.config.mask_decoder_config.hidden_size)
        self.jbu = JbuStack(width, config.depth)
        if config.jbu:
            self.jbu = _fitted(load_jbu(Path(config.jbu)), Path(config.jbu).name, width, config.depth)
        self.to_decoder = nn.Conv2d(width, self.model.mask_decoder.upscale_conv2.out_channels, 1)
        nn.init.zeros_(self.to_decoder.weight)
        nn.init.zeros_(self.to_decoder.bias)  # type: ignore[arg-type]
        from segmed.methods.featup.guided_decoder import GuidedDecoder

        self.model.mask_decoder.__class__ = GuidedDecoder
        self.model.mask_decoder.upscale_conv2.__class__ = GuidedUpscale

    def trained_names(self) -> list[str]:
        frozen = "model.mask_decoder.iou_prediction_head."
        parts: tuple[str, ...] = ("to_decoder.", "model.mask_decoder.")
        parts += () if self.config.freeze_jbu else ("jbu.",)
        return [n for n, _ in self.named_parameters() if n.startswith(parts) and not n.startswith(frozen)]

    def encode(self, images: Tensor) -> Embedding:
        """Encode images; the extra is the guidance or, in training, the guiding image (B, 3, 2ⁿh, 2ⁿw).

        Raises:
            ValueError: If the images have another size than the encoder's input.
        """
        side = int(self.model.config.vision_config.image_size)
        if images.shape[1:] != (3, side, side):
            raise ValueError(
                f"The encoder takes images of {(3, side, side)}, not {tuple(images.shape[1:])}. Prepare "
                "slices with `prepare`."
            )
        embedding = self._encode(
            standardised(images) if self.config.normalise else self.preparation.normalise(images)
        )
        fine = 2**self.config.depth * embedding.features.shape[-1]
        guide = F.adaptive_avg_pool2d(images.float(), fine)
        extra = guide if self.training else self._guidance(embedding.features, guide)
        return replace(embedding, extras=(extra,))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        return super().decode(self._guided(embedding), prompts, size)

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        return super().candidates(self._guided(embedding), prompts, size)

    def _guided(self, embedding: Embedding) -> Embedding:
        """Append the guidance, folded into channels, to the features, see `GuidedDecoder`."""
        guidance = (
            self._guidance(embedding.features, embedding.extras[0]) if self.training else embedding.extras[0]
        )
        folded = F.pixel_unshuffle(guidance, guidance.shape[-1] // embedding.features.shape[-1])
        return replace(embedding, features=torch.cat([embedding.features, folded], 1))

    def _guidance(self, features: Tensor, guide: Tensor) -> Tensor:
        """The guidance (B, C / 8, H, W), which is added to the decoder's upscaled features."""
        fine = self.jbu.projected(features, guide, self.to_decoder)
        own = 4 * features.shape[-1]  # resolution of SAM's masks
        if self.config.variant == "hires" or fine.shape[-1] == own:
            return fine
        return F.interpolate(fine, (own, own), mode="bilinear", align_corners=False, antialias=True)


def _recipe(preset: str) -> Recipe:
    """The recipe of a preset; the upsampler learns at the rate of Fu et al. (2024) also with `brats`.

    At the decoder's rate, a tenth, FeatUp would gain nothing over a bilinear upsampling.
    """
    return preset_recipe(preset, {"": 1e-3, "model.mask_decoder.": 1e-4}, ("brats", "segmed"))


def _fitted(jbu: JbuStack, name: str, channels: int, stages: int) -> JbuStack:
    """An upsampler for this backbone: stages do not depend on channels, the mixing behind them does.

    Raises:
        ValueError: It has fewer stages.
    """
    if len(jbu.stages) < stages:
        raise ValueError(
            f"{name} upsamples in {len(jbu.stages)} stages, but this config needs {stages}. Take one with "
            "more, or make one with scripts/pretrain_jbu.py and this backbone."
        )
    fitted = JbuStack(channels, stages)
    fitted.stages = jbu.stages[:stages]
    if jbu.channels == channels and len(jbu.stages) == stages:
        fitted.mix = jbu.mix
    else:  # no correction until it is trained
        nn.init.zeros_(fitted.mix.weight)
        nn.init.zeros_(fitted.mix.bias)  # type: ignore[arg-type]
    return fitted


PARTS = Parts(training=Training(FeatUp, FeatUpConfig))
