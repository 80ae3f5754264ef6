"""I-MedSAM: SAM with the image's spectrum as a second input and masks as a function of position.

Source: Wei et al., I-MedSAM: Implicit Medical Image Segmentation with Segment Anything (2024). Where paper
and published code differ, the paper is followed unless `reference` is set. One thing always differs from the
code: dropout stays on in inference (otherwise all pixels are equally certain, and the choice of pixels to
refine is arbitrary). Without `reference` it acts before the coarse head (after it, the logit itself would be
dropped, and the most certain pixels would vary most).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import Parts, Training
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.imedsam.frequency_adapter import FrequencyAdapters
from segmed.methods.imedsam.gated_lora import GatedLora
from segmed.methods.imedsam.imedsam_config import ImedsamConfig
from segmed.methods.imedsam.implicit_decoder import ImplicitDecoder, Refined
from segmed.methods.sam.sharing import encoder_layers, share_weights
from segmed.monai_parts import DiceCELoss
from segmed.sam.decoding import decode_low_resolution
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import SamModel

_SEED = 0  # seed of the dropout in inference, so that the same prompt gives the same mask
_RISE = 5  # epochs in which the weight moves from the coarse to the fine loss
_REVEALED = 20  # epochs until all of the position's encoding is shown, in the authors' code
_LEAST_COARSE = 0.1  # final weight of the coarse loss, because most pixels stay coarse


class Imedsam(TrainableSegmenter):
    """A segmenter by box or clicks whose mask is computed pixel by pixel, at any size, with its uncertainty.

    The input is the slice stretched to a square and divided by 255, without normalisation, as in the authors'
    code.

    Args:
        model: Any SAM; it is not changed, and frozen weights are shared with it.
        config: The settings.
        version: Version of the weights.
    """

    no_graphs = "its decoder looks up each pixel of the output by its coordinates"
    name = "imedsam"
    config: ImedsamConfig
    native_truth = True

    def __init__(self, model: SamModel, config: ImedsamConfig | None = None, version: str = "0") -> None:
        super().__init__()
        self.config = config or ImedsamConfig()
        self.version = version
        vision = model.config.vision_config
        self.input_size = int(vision.image_size)
        self.model = share_weights(model, _tuned(model))
        for layer in encoder_layers(self.model, self.name):
            layer.attn.qkv = GatedLora(layer.attn.qkv, self.config.rank, self.config.gate)
        self.frequency = FrequencyAdapters(
            vision.num_hidden_layers,
            vision.hidden_size,
            self.config.bottleneck,
            self.config.scale,
            learn_scale=not self.config.reference,
            variant=self.config.variant,
            first_channel=self.config.reference,
            eps=vision.layer_norm_eps,
        )
        self.decoder = ImplicitDecoder(
            self.model.mask_decoder.upscale_conv2.out_channels,
            vision.output_channels,
            self.config.classes,
            self.config.share,
            self.config.nodes and self.config.nodes * (vision.image_size // vision.patch_size),
            published=self.config.reference,
        )
        self.to(model.shared_image_embedding.positional_embedding.device)
        # Rates, decay and schedule: the authors' code, which trains 1000 epochs on some hundred slices. The
        # scale starts at zero and would hardly change at the adapters' rate.
        rates = {"": 5e-5, "decoder.": 1e-3, "frequency.scale": 1e-3}
        self.recipe = Recipe(rates, "dice_bce", "adamw", weight_decay=0.01, schedule="linear", epochs=100)
        self.segments_untrained = not self.config.implicit
        self.prepare_training()

    def trained_names(self) -> list[str]:
        fixed = {"frequency.scale"} if self.config.reference else set()
        lora = [n for n, _ in self.named_parameters() if ".qkv." in n and ".qkv.base." not in n]
        parts = ("frequency.",) if self.config.adapters else ()
        if self.config.implicit:
            parts += ("decoder.coarse_", *(("decoder.fine_",) if self.config.share else ()))
        else:
            lora += [n for n, _ in self.named_parameters() if ".output_hypernetworks_mlps.0." in n]
        own = [n for n, _ in self.named_parameters() if n.startswith(parts) and n not in fixed]
        return [*lora, *(f"model.{name}" for name in _tuned(self.model)), *own]

    def extra_buffers(self) -> list[str]:
        return [name for name, _ in self.decoder.named_buffers(prefix="decoder")]

    def encode(self, images: Tensor) -> Embedding:
        encoder = self.model.vision_encoder
        features = (
            self.frequency(encoder, images) if self.config.adapters else encoder(images).last_hidden_state
        )
        return Embedding(features.float(), Frame(images.shape[2], images.shape[3], images.shape[3]))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        logits, uncertainty = self.decode_with_uncertainty(embedding, prompts, size)
        return replace(logits, uncertainty=uncertainty)

    def decode_with_uncertainty(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> tuple[Logits, Tensor]:
        """Decode masks together with the uncertainty of the coarse network.

        Outside of training repeated calls return the same, because the dropout has a seed of its own.

        Args:
            embedding: Features of B slices.
            prompts: B lists of K prompts in pixels of the slice.
            size: Rows and columns (H, W) of the output.

        Returns:
            The masks, and the variance (B, K, H, W) of the coarse probability over the passes, from 0 to
            0.25, float32. Its square root is the standard deviation of the probability.

        Raises:
            ValueError: If there are no prompts, they do not fit the embedding, or there is not one prompt per
                class.
        """
        refined = self._refine(embedding, prompts, size)
        return Logits(refined.fine), refined.uncertainty

    def loss(
        self,
        images: Tensor,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """Compute cross-entropy and Dice of the coarse and the refined map; the weight moves to the latter.

        With w = min((epoch + 1) / 5, 0.9) the loss is (1 - w) L(coarse) + w L(refined).

        Args:
            images: Model inputs (B, 3, S, S) in [0, 1], as from `prepare`.
            prompts: B lists of K prompts.
            truth: Masks (B, K, H, W) in [0, 1].
            progress: Share of the training that is done, in [0, 1].
        """
        # As published, the encoding of positions is shown gradually, in 20 epochs.
        self.decoder.reveal((int(progress * self.recipe.epochs) + 1) / _REVEALED)
        refined = self._refine(self.encode(images), prompts, (truth.shape[-2], truth.shape[-1]))
        entropy = 0.2 if self.config.reference else 0.5
        both = DiceCELoss(sigmoid=True, squared_pred=True, lambda_ce=entropy, lambda_dice=1 - entropy)
        wanted = truth.flatten(0, 1)[:, None].float()
        coarse, fine = (both(m.flatten(0, 1)[:, None], wanted) for m in (refined.coarse, refined.fine))
        share = min((progress * self.recipe.epochs + 1) / _RISE, 1 - _LEAST_COARSE)
        return (1 - share) * coarse + share * fine

    def _refine(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Refined:
        """Decode coarse and refined maps and the uncertainty, (B, K, H, W) each."""
        if prompts is None:
            raise ValueError("I-MedSAM needs a prompt: draw a box or click on the object.")
        counts, classes = {len(p) for p in prompts}, self.config.classes
        if len(prompts) != len(embedding) or len(counts) != 1 or (classes > 1 and counts != {classes}):
            wanted = f"{classes} prompts, one per class," if classes > 1 else "the same number of prompts"
            raise ValueError(
                f"{len(prompts)} lists of {sorted(counts)} prompts do not fit {len(embedding)} slices; "
                f"allowed is one list per slice with {wanted} in each. Give one prompt per object."
            )
        if not self.config.implicit:
            low, _ = decode_low_resolution(self.model, embedding, prompts, choose_best=False)
            logits = embedding.frame.restore(low.float(), size)
            return Refined(logits, logits, torch.zeros_like(logits))
        source = self._source(embedding, prompts)
        position = self.model.get_image_wide_positional_embeddings()
        training = self.training
        generator = None if training else torch.Generator().manual_seed(_SEED)
        passes = self.config.passes_train if training else self.config.passes_test
        # Without gradients the networks run in the encoder's number format.
        encoder = self.model.vision_encoder.neck.conv1.weight.dtype
        dtype = torch.float32 if torch.is_grad_enabled() else encoder
        regions = self._regions(prompts, embedding.frame, size)
        maps = self.decoder(source, position, size, passes, generator, dtype, regions)
        return Refined(*(m.unflatten(0, (len(prompts), -1)) for m in maps))

    def _regions(
        self, prompts: Sequence[Sequence[SlicePrompt]], frame: Frame, size: tuple[int, int]
    ) -> Tensor | None:
        """First and last rows and columns of the pixels that may be refined, see `ImplicitDecoder`.

        In training these are all pixels: the fine network would learn too little from those of the box alone.
        """
        margin = self.config.margin
        if margin is None or self.training:
            return None
        rows, columns = size[0] / frame.height, size[1] / frame.width
        found = []
        for prompt in (prompt for row in prompts for prompt in row):
            region = (0.0, 0.0, float(size[0]), float(size[1]))
            if prompt.box is not None:
                left, top, right, bottom = prompt.box
                across, down = margin * (right - left), margin * (bottom - top)
                # At least the pixel of a box's corner, so that a box of any size has a pixel.
                region = (
                    min(math.floor((top - down) * rows), size[0] - 1),
                    min(math.floor((left - across) * columns), size[1] - 1),
                    max(math.ceil((bottom + down) * rows), 1),
                    max(math.ceil((right + across) * columns), 1),
                )
            found.append(region)
        return torch.tensor(found)

    def _source(self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]]) -> Tensor:
        """Image tokens after their attention to the prompts, upscaled: (B K, channels, 4t, 4t).

        The tokens are captured inside the decoder. Prompts of one kind are decoded together, and the rows are
        put back into the order of the prompts afterwards.
        """
        items = [(b, prompt) for b, row in enumerate(prompts) for prompt in row]
        kinds: dict[tuple[bool, int, bool], list[int]] = defaultdict(list)
        for n, (_, prompt) in enumerate(items):
            kinds[prompt.box is not None, len(prompt.labels), prompt.mask is not None].append(n)
        decoder, captured = self.model.mask_decoder, []
        handle = decoder.upscale_conv2.register_forward_hook(
            lambda _module, _given, out: captured.append(out)
        )
        try:
            for rows in kinds.values():
                part = Embedding(embedding.features[[items[n][0] for n in rows]], embedding.frame)
                decode_low_resolution(self.model, part, [[items[n][1]] for n in rows], choose_best=False)
        finally:
            handle.remove()
        order = [n for rows in kinds.values() for n in rows]
        upscaled = decoder.activation(torch.cat(captured))
        return upscaled[sorted(range(len(order)), key=order.__getitem__)]


def _tuned(model: SamModel) -> list[str]:
    """Names of SAM's own trained parameters: prompt encoder (without positional matrix) and upscaling."""
    return [
        name
        for name, _ in model.named_parameters()
        if name.startswith(("prompt_encoder.", "mask_decoder.upscale_"))
        and "positional_embedding" not in name
    ]


PARTS = Parts(training=Training(Imedsam, ImedsamConfig))
