"""SAM as a semantic segmenter: one mask token per class beside SAM's own, in one decoder.

Token 0 remains SAM's single-mask token for prompts. Tokens 1 … C are background and organs, decoded without a
prompt. Sources: Zhang and Liu, Customized Segment Anything Model for Medical Image Segmentation (2023), for
the head and the loss; Ma et al., FLARE22 (2024), for the organs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.methods.sam.mask_tokens import decode_tokens
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sharing import share_weights
from segmed.sam.decoding import decode_low_resolution
from segmed.sam.embedding import Embedding

if TYPE_CHECKING:
    from transformers import SamModel

FLARE22 = (
    "liver",
    "right kidney",
    "spleen",
    "pancreas",
    "aorta",
    "inferior vena cava",
    "right adrenal gland",
    "left adrenal gland",
    "gallbladder",
    "esophagus",
    "stomach",
    "duodenum",
    "left kidney",
)
_MAX_LABELS = 255  # label maps are uint8
_SMALL, _LARGE = (2, 5e-4), (12, 5e-3)  # batch size and learning rate


@dataclass(frozen=True)
class ClassConfig:
    """The classes.

    Attributes:
        labels: Names of the organs, class 1 first; class 0 is the background.
    """

    labels: tuple[str, ...] = FLARE22

    def __post_init__(self) -> None:
        names = self.labels
        if (
            not isinstance(names, tuple)
            or not 1 <= len(names) <= _MAX_LABELS
            or not all(isinstance(n, str) and n.strip() for n in names)
            or len({n.casefold() for n in (*names, "background")}) != len(names) + 1
        ):
            raise ValueError(
                f"labels is {names!r:.200}; allowed is a tuple of 1 to {_MAX_LABELS} different names without "
                "the background. Name each organ once, such as ('liver', 'spleen')."
            )

    @property
    def classes(self) -> int:
        """Number of classes: the organs and the background."""
        return len(self.labels) + 1


def learning_rate(batch: int) -> float:
    """Learning rate for a batch size: 5e-4 up to 2, 5e-3 (Zhang and Liu, 2023) from 12, and linear between.

    Raises:
        ValueError: If the batch has less than one slice.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; allowed are whole numbers from 1. Take 1 if memory is short.")
    share = min(max((batch - _SMALL[0]) / (_LARGE[0] - _SMALL[0]), 0.0), 1.0)
    return _SMALL[1] + share * (_LARGE[1] - _SMALL[1])


def head_names(model: SamModel) -> list[str]:
    """Names of the parameters of segmentation head and prompt encoder, without the positional matrix."""
    return [
        name
        for name, _ in model.named_parameters()
        if "positional_embedding" not in name
        and (
            name.startswith("prompt_encoder.")
            or (name.startswith("mask_decoder.") and ".transformer." not in name)
        )
    ]


def with_classes(base: SamModel, classes: int) -> SamModel:
    """Build a SAM with one mask token per class beside its single-mask token.

    Tokens 1 … C with their hypernetworks and rows of the IoU head are initialised again (PyTorch's
    initialisation, from its global generator); all other weights, those of token 0 among them, are the
    base's.

    Args:
        base: The original, which is not changed; frozen weights are shared with it.
        classes: Number C of classes, with the background.
    """
    from transformers.models.sam.modeling_sam import SamMaskDecoder

    # Rows of mask_tokens (C + 1, D) and of the IoU head's last layer belong to tokens; row 0 is copied from
    # the base.
    model = share_weights(base, head_names(base))
    config, decoder = model.config.mask_decoder_config, model.mask_decoder
    config.num_multimask_outputs = classes
    with torch.device("cpu"):
        fresh = SamMaskDecoder(config)
    fresh = fresh.to(decoder.mask_tokens.weight).requires_grad_(False)
    old_last, new_last = decoder.iou_prediction_head.proj_out, fresh.iou_prediction_head.proj_out
    for new, old in (
        (fresh.mask_tokens.weight, decoder.mask_tokens.weight),
        (new_last.weight, old_last.weight),
        (new_last.bias, old_last.bias),
    ):
        new[0].copy_(old[0])
    fresh.output_hypernetworks_mlps[0] = decoder.output_hypernetworks_mlps[0]
    decoder.mask_tokens = fresh.mask_tokens
    decoder.output_hypernetworks_mlps = fresh.output_hypernetworks_mlps
    decoder.iou_prediction_head.proj_out = new_last
    decoder.num_multimask_outputs, decoder.num_mask_tokens = classes, classes + 1
    return model


class ClassSegmenter(MedSam):
    """A segmenter of all classes without a prompt, and of one mask per prompt by token 0.

    Slices are prepared as for MedSAM.

    Args:
        model: A model from `with_classes`, with or without hooks.
        labels: Names of the organs, class 1 first.
        version: Version of the weights.
    """

    multimask = False  # tokens other than 0 are those of the classes

    def __init__(self, model: SamModel, labels: tuple[str, ...], version: str = "0") -> None:
        super().__init__(model, version)
        self.labels = labels
        self._alone = False

    def decode_classes_alone(self) -> None:
        """From now on, decode classes without token 0, as SAMed does; prompts are decoded as before."""
        self._alone = True
        self.no_graphs = "its classes are decoded without the token that answers prompts"

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Decode masks of prompts as MedSAM does, or class logits (B, C, H, W) with background first.

        Class logits are resampled before the softmax and have no predicted IoU, which no loss trains.
        """
        if prompts is not None:
            return super().decode(embedding, prompts, size)
        return Logits(embedding.frame.restore(self._class_logits(embedding), size))

    def _class_logits(self, embedding: Embedding) -> Tensor:
        if self._alone:
            return decode_tokens(self.model, embedding.features, slice(1, None)).float()
        out = self.model(image_embeddings=embedding.features, multimask_output=True)
        return out.pred_masks[:, 0].float()


class TrainableClassSegmenter(ClassSegmenter, TrainableSegmenter):
    """A `ClassSegmenter` whose head, prompt encoder and further parameters of subclasses are trained.

    Args:
        base: Any SAM; it is not changed.
        config: The classes.
        version: Version of the weights.
    """

    config: ClassConfig

    def __init__(self, base: SamModel, config: ClassConfig, version: str = "0") -> None:
        super().__init__(with_classes(base, config.classes), config.labels, version)
        self.config = config

    def trained_names(self) -> list[str]:
        return [f"model.{name}" for name in head_names(self.model)]

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """Compute the loss of a batch, with gradients.

        Classes are compared at the decoder's own resolution, to which the labels are resampled by nearest
        neighbour (Zhang and Liu, 2023). With prompts, token 0 is trained, and `dice_ce` becomes its form for
        single objects, `dice_bce`.

        Args:
            embedding: Features of B slices.
            prompts: B lists of K prompts, or None for the classes.
            truth: Masks (B, K, H, W) in [0, 1] with prompts, else class indices (B, 1, H, W).
            progress: Not used.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If a label has no class, or the loss does not take classes.
        """
        if prompts is not None:
            with self._without_gradients(classes=True):
                low, _ = decode_low_resolution(self.model, embedding, prompts, self.choose_best)
            recipe = replace(self.recipe, loss="dice_bce") if self.recipe.loss == "dice_ce" else self.recipe
            return recipe.loss_of(
                embedding.frame.restore(low.float(), (truth.shape[-2], truth.shape[-1])), truth
            )
        if self.recipe.loss != "dice_ce":
            raise ValueError(
                f"The loss is {self.recipe.loss!r}, but classes are trained with 'dice_ce' only. Take that, "
                "or train with prompts."
            )
        low_label, high_label = (int(v) for v in torch.aminmax(truth))
        if truth.shape[1] != 1 or low_label < 0 or high_label >= self.config.classes:
            raise ValueError(
                f"The labels have {truth.shape[1]} channels and values {low_label} to {high_label}; allowed "
                f"are one channel and values 0 to {self.config.classes - 1} (background, "
                f"{', '.join(self.labels)}). Name every label of the data set in `labels`, or map the labels "
                "to these classes."
            )
        with self._without_gradients(classes=False):
            logits = self._class_logits(embedding)
        small = F.interpolate(truth.float(), (logits.shape[-2], logits.shape[-1]), mode="nearest-exact")
        return self.recipe.loss_of(logits, small)

    @contextmanager
    def _without_gradients(self, classes: bool) -> Iterator[None]:
        """Exclude the hypernetworks of the classes, or that of token 0, from the graph.

        With gradients of zero instead of none, weight decay would shrink them to zero.
        """
        networks = self.model.mask_decoder.output_hypernetworks_mlps
        idle = [p for network in (networks[1:] if classes else networks[:1]) for p in network.parameters()]
        idle = [p for p in idle if p.requires_grad]
        for parameter in idle:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in idle:
                parameter.requires_grad_(True)
