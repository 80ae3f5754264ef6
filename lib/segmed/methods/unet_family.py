"""U-Net and its relatives: networks without prompts and without SAM, as baselines of all other methods.

The networks are those of segmentation_models_pytorch. Source of the encoder: Tan and Le, EfficientNet:
Rethinking Model Scaling for Convolutional Neural Networks (ICML 2019); of the box as a channel: Ma et al.,
Segment anything in medical images (Nature Communications, 2024), whose DeepLabV3+ is prompted so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segmed.data.augment import MEAN, STANDARD_DEVIATION
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.graph import Graph, Run, RunNetwork
from segmed.methods.base.method import Parts, Training
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.imagenet_encoders import (
    EMBEDDED_ENCODERS,
    LITE_EPSILON,
    library,
    pretrained_state,
    published_name,
)
from segmed.methods.unet_config import STRIDE, DeepLabConfig, UnetFamilyConfig
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

_BESIDE = -14.0  # logit outside of the box; logits of probabilities clipped at 1e-6 end there


class UnetFamily(TrainableSegmenter):
    """A network from pixels to classes, of which all weights are trained.

    Without a prompt it returns the logits of background and classes. For a box it returns the class that
    fills most of it, cropped to the box; with `box_channel` the box is an input of the network, which
    segments the object in it. `encode` stores the slices in 8 bit, so that they are prepared only once per
    training.

    The loss is Dice + BCE, 1 : 1, on one map per class, with the augmentations of `data.augment`, as in the
    published comparison on LGG. AdamW at 1e-4 with weight decay 1e-4 and a cosine schedule, in batches of 16,
    is usual (Loshchilov and Hutter: SGDR, ICLR 2017; Decoupled Weight Decay Regularization, ICLR 2019).

    Args:
        model: Always None, because there are no base weights.
        config: The classes, and the size of the network.
        version: Version of the weights.

    Raises:
        ValueError: If the encoder does not fit the architecture, or the input is too small for it.
    """

    architecture: ClassVar[str]
    least: ClassVar[int] = STRIDE
    config_kind: ClassVar[type[UnetFamilyConfig]] = UnetFamilyConfig
    config: UnetFamilyConfig
    no_graphs = ""
    keeps_slices = describes_slices = True
    mean: Tensor
    sd: Tensor

    def __init__(
        self, model: None = None, config: UnetFamilyConfig | None = None, version: str = "0"
    ) -> None:
        super().__init__()
        self.config = config or self.config_kind()
        self.labels, self.input_size, self.version = self.config.labels, self.config.input_size, version
        if self.input_size < self.least:
            raise ValueError(
                f"input_size is {self.input_size}; allowed for {self.name} are multiples of 32 from "
                f"{self.least}."
            )
        self.network: nn.Module = library().create_model(
            self.architecture,
            published_name(self.config.encoder),
            None,
            3 + self.config.box_channel,
            self.config.classes,
            **self.architecture_settings(),
        )
        # Convolutions over few channels per group are a quarter faster in this layout on CPUs.
        self.network = self.network.to(memory_format=torch.channels_last)
        self.recipe = Recipe(
            {"": self.config.rate},
            weight_decay=1e-4,
            schedule="cosine",
            epochs=30,
            batch=16,
            augmented=True,
            prompted=self.config.box_channel,
        )
        lite = self.config.encoder in EMBEDDED_ENCODERS  # trained on images in [-1, 1]
        for module in self.network.get_submodule("encoder").modules() if lite else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = LITE_EPSILON
        mean, sd = ((0.5,) * 3, (0.5,) * 3) if lite else (MEAN, STANDARD_DEVIATION)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor(sd)[:, None, None], persistent=False)

    def architecture_settings(self) -> dict[str, Any]:
        """What this architecture is told beside its encoder and classes, by the library's names."""
        return {}

    @property
    def image_size(self) -> int:
        return self.config.input_size

    def begin(self) -> None:
        """Load the encoder's ImageNet weights if the config asks for them.

        Raises:
            ValueError: If there are no such weights for this encoder.
            FileNotFoundError: If the weights are not installed, or cannot be downloaded.
        """
        if self.config.pretrained:
            state = pretrained_state(self.config.encoder, 3 + self.config.box_channel)
            encoder = self.network.get_submodule("encoder")
            encoder.load_state_dict({key: tensor.to(self.mean.device) for key, tensor in state.items()})

    def spare_memory(self) -> None:
        """Do nothing: such a network at 512 px needs less memory than a SAM at 256 px."""

    def trained_names(self) -> list[str]:
        return [f"network.{name}" for name, _ in self.network.named_parameters()]

    def extra_buffers(self) -> list[str]:
        kept = self.network.state_dict()
        return [f"network.{name}" for name, _ in self.network.named_buffers() if name in kept]

    def encode(self, images: Tensor) -> Embedding:
        """Store slices (B, 3, S, S) in [0, 1] as uint8."""
        size = images.shape[-1]
        return Embedding((images * 255).round().to(torch.uint8), Frame(size, size, size))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Decode logits of background and classes (B, C, H, W), or of the objects in boxes (B, K, H, W).

        Raises:
            ValueError: If a prompt has no box, or there is no prompt although the box is a channel.
        """
        pictures = self._normalised(embedding)
        if prompts is None:
            if self.config.box_channel:
                raise ValueError(
                    f"This {self.name} was trained with box_channel: draw a box around the object. To label "
                    "without one, train it without box_channel."
                )
            return Logits(embedding.frame.restore(self._run(pictures), size))
        boxes = self._boxes(embedding, prompts)
        if self.config.box_channel:
            count, each = boxes.shape[:2]
            inputs = torch.cat(
                [pictures.repeat_interleave(each, 0), boxes.flatten(0, 1)[:, None].to(pictures)], 1
            )
            logits = self._run(inputs).view(count, each, *boxes.shape[2:])
        else:
            logits = _fullest(self._run(pictures), boxes)
        return Logits(embedding.frame.restore(logits, size))

    def described_features(self, embedding: Embedding) -> Tensor | None:
        """The last map of the encoder (B, C, S / 32, S / 32); None if another runtime holds the network."""
        encoder = getattr(self.network, "encoder", None)
        if encoder is None or self.config.box_channel:
            return None
        features: Tensor = encoder(self._normalised(embedding))[-1]
        return features

    def graphs(self) -> tuple[Graph, ...]:
        side = self.config.input_size
        pixels = torch.zeros(1, 3 + self.config.box_channel, side, side)
        free = {"pixel_values": {0: "slices"}, "logits": {0: "slices"}}
        return (Graph("network", self.network, {"pixel_values": pixels}, ("logits",), free),)

    def run_by(self, runs: Mapping[str, Run]) -> None:
        self.network = RunNetwork(runs["network"])

    def _normalised(self, embedding: Embedding) -> Tensor:
        return (embedding.features.float() / 255 - self.mean) / self.sd

    def _run(self, pictures: Tensor) -> Tensor:
        alone = self.network.training and len(pictures) == 1
        # Batch norm in training needs more than one value, which pooled maps of a single slice do not have.
        if alone:
            self.network.eval()
        logits: Tensor = self.network(pictures.contiguous(memory_format=torch.channels_last))
        if alone:
            self.network.train()
        return logits.float()

    def _boxes(self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]]) -> Tensor:
        """Boolean maps (B, K, S, S), true inside each box; every box covers at least one pixel."""
        corners = [[prompt.box for prompt in row if prompt.box is not None] for row in prompts]
        if len(corners) != len(embedding) or any(len(row) != len(prompts[0]) for row in corners):
            raise ValueError(
                f"{self.name} needs a box in every prompt: give one list per slice, with the same number of "
                "prompts."
            )
        ends = np.array(corners, np.float32).reshape(len(corners), -1, 2, 2)
        ends[..., 1, :] += 1  # the last row and column belong to the box
        low, high = torch.from_numpy(embedding.frame.to_model(ends)).to(embedding.features.device).unbind(2)
        n = torch.arange(self.config.input_size, device=low.device)
        inside = (n >= low[..., None].floor()) & (n < high[..., None].ceil())  # (B, K, 2, S)
        return inside[..., 1, :, None] & inside[..., 0, None, :]


def _fullest(logits: Tensor, boxes: Tensor) -> Tensor:
    """Logits (B, K, S, S) of the class that fills most of each box, from those of all classes (B, C, S, S).

    The class of box k is argmax over c > 0 of the sum of its probabilities in the box.
    """
    probability = logits.softmax(1)
    share = torch.einsum("bkhw,bchw->bkc", boxes.to(probability), probability[:, 1:])
    place = (share.argmax(2) + 1)[..., None, None].expand(-1, -1, *logits.shape[2:])
    return torch.logit(probability.gather(1, place), eps=1e-6).masked_fill(~boxes, _BESIDE)


class Unet(UnetFamily):
    """Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation (MICCAI 2015)."""

    name = architecture = "unet"


class UnetPlusPlus(UnetFamily):
    """Zhou et al., UNet++: A Nested U-Net Architecture for Medical Image Segmentation (DLMIA 2018)."""

    name, architecture = "unetpp", "unetplusplus"


class DeepLabV3(UnetFamily):
    """Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation (2017)."""

    name = architecture = "deeplabv3"
    config_kind = DeepLabConfig
    config: DeepLabConfig

    def architecture_settings(self) -> dict[str, Any]:
        return {"decoder_atrous_rates": tuple(self.config.atrous_rate * n for n in (1, 2, 3))}


class DeepLabV3Plus(DeepLabV3):
    """DeepLabV3+.

    Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (ECCV
    2018).
    """

    name = architecture = "deeplabv3plus"


class Pan(UnetFamily):
    """Li et al., Pyramid Attention Network for Semantic Segmentation (BMVC 2018)."""

    name = architecture = "pan"
    least = 128  # its pyramid halves the map at 1/16 of the input three times


UNET, UNETPP, DEEPLABV3, DEEPLABV3PLUS, PAN = (
    Parts(training=Training(kind, kind.config_kind))
    for kind in (Unet, UnetPlusPlus, DeepLabV3, DeepLabV3Plus, Pan)
)
