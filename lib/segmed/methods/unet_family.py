"""U-Net and its relatives: networks without a prompt and without SAM, which every other method is measured against.

The networks are those of segmentation_models_pytorch. Source of the encoder: Tan and Le, EfficientNet: Rethinking Model
Scaling for Convolutional Neural Networks (ICML 2019); of the box as a channel: Ma et al., Segment anything in medical
images (Nature Communications, 2024), whose DeepLabV3+ is prompted so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from segmed.data.augment import MEAN, STANDARD_DEVIATION
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.class_head import ClassConfig
from segmed.methods.method import Parts, Training
from segmed.methods.segmenter import Logits
from segmed.methods.trainable import LossName, Recipe, TrainableSegmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

_STRIDE = 32  # px of the input per step of the encoder's last map
_BESIDE = -14.0  # logit beside the box; those of float32 probabilities end there


def _library() -> ModuleType:
    """segmentation_models_pytorch, which is an extra, and takes a second to import.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ValueError(
            "The U-Nets need segmentation-models-pytorch, which is not installed: pip install 'segmed[baselines]', or "
            "-r requirements-baselines.txt in a checkout."
        ) from error
    return segmentation_models_pytorch


@dataclass(frozen=True)
class UnetFamilyConfig(ClassConfig):
    """What is told apart, by a network of which size.

    Attributes:
        labels: as of `ClassConfig`; none with `box_channel`, where the box says what is meant.
        encoder: any that segmentation_models_pytorch lists, such as efficientnet-b5 (Tan and Le, 2019) or, for laptops,
            resnet18.
        input_size: side in px of the square that slices are stretched to, a multiple of 32.
        pretrained: whether a training begins with an encoder that knows ImageNet. It is downloaded once; no image is
            sent anywhere.
        box_channel: whether the box of a prompt is a fourth channel of the input (Ma et al., 2024). The method answers
            boxes then, and labels nothing without one.
    """

    encoder: str = "efficientnet-b5"
    input_size: int = 256
    pretrained: bool = False
    box_channel: bool = False

    def __post_init__(self) -> None:
        if self.box_channel:
            object.__setattr__(self, "labels", ())
        else:
            super().__post_init__()
        if self.encoder not in _library().encoders.get_encoder_names():
            raise ValueError(
                f"The encoder {str(self.encoder)[:60]!r} is unknown. Take efficientnet-b5, resnet18, or another one of "
                "segmentation_models_pytorch 0.6.0."
            )
        size = self.input_size
        if isinstance(size, bool) or not isinstance(size, int) or size < _STRIDE or size % _STRIDE:
            raise ValueError(f"input_size is {size!r}; allowed are multiples of {_STRIDE}. Take 256, or 512 for more.")


class UnetFamily(TrainableSegmenter):
    """A network from pixels to classes, all of which trains.

    Without a prompt it gives the logits of background and classes. Asked with a box it gives the class that fills most
    of it, cut off at the box; with `box_channel` the network itself sees the box and gives what is meant.
    `encode` keeps the slices in 8 bit, so that one training prepares them once.

    AdamW at 1e-4 with weight decay 1e-4, the rate falling by a cosine, is usual for these networks, with batches of 16
    (Loshchilov and Hutter, SGDR, ICLR 2017; Decoupled Weight Decay Regularization, ICLR 2019). Classes are learnt by
    Dice and cross-entropy as in the other automatic methods, so that they compare; boxes by Dice + BCE, 1 : 1.

    Args:
        model: None, as there are no base weights.
        config: classes and size.
        version: names the weights.

    Raises:
        ValueError: the encoder does not fit the architecture, or the input is too small for it.
    """

    architecture: ClassVar[str]
    least: ClassVar[int] = _STRIDE
    config: UnetFamilyConfig
    keeps_slices = True
    mean: Tensor
    sd: Tensor

    def __init__(self, model: None = None, config: UnetFamilyConfig | None = None, version: str = "0") -> None:
        super().__init__()
        self.config = config or UnetFamilyConfig()
        self.labels, self.input_size, self.version = self.config.labels, self.config.input_size, version
        if self.input_size < self.least:
            raise ValueError(f"input_size is {self.input_size}; {self.name} takes multiples of 32 from {self.least}.")
        self.network: nn.Module = _library().create_model(
            self.architecture, self.config.encoder, None, 3 + self.config.box_channel, self.config.classes
        )
        prompted = self.config.box_channel
        loss: LossName = "dice_bce" if prompted else "dice_ce"
        self.recipe = Recipe(
            {"": 1e-4}, loss, "adamw", weight_decay=1e-4, schedule="cosine", epochs=30, prompted=prompted
        )
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor(STANDARD_DEVIATION)[:, None, None], persistent=False)

    @property
    def image_size(self) -> int:
        return self.config.input_size

    def begin(self) -> None:
        """Fetch the encoder's ImageNet weights if the config asks for them.

        Raises:
            ValueError: there are none of this encoder.
            FileNotFoundError: they cannot be fetched.
        """
        if not self.config.pretrained:
            return
        name = self.config.encoder
        try:
            knowing = _library().encoders.get_encoder(name, 3 + self.config.box_channel, weights="imagenet")
        except KeyError as error:
            raise ValueError(f"There are no ImageNet weights of {name}. Train it with pretrained=false.") from error
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise FileNotFoundError(
                f"The ImageNet weights of {name} cannot be fetched from Hugging Face (no network?). Train it with "
                "pretrained=false, or once on a machine with a network and copy that one's Hugging Face cache here."
            ) from error
        encoder = self.network.get_submodule("encoder")
        state = knowing.state_dict()
        encoder.load_state_dict({key: tensor.to(self.mean.device) for key, tensor in state.items()})

    def spare_memory(self) -> None:
        """Nothing: a network of this kind at 512 px takes less than a SAM at 256."""

    def trained_names(self) -> list[str]:
        return [f"network.{name}" for name, _ in self.network.named_parameters()]

    def extra_buffers(self) -> list[str]:
        kept = self.network.state_dict()
        return [f"network.{name}" for name, _ in self.network.named_buffers() if name in kept]

    def encode(self, images: Tensor) -> Embedding:
        """Keep the slices (B, 3, S, S) in 8 bit."""
        size = images.shape[-1]
        return Embedding((images * 255).round().to(torch.uint8), Frame(size, size, size))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Logits of background and classes (B, C, H, W), or of the objects in boxes (B, K, H, W).

        Raises:
            ValueError: a prompt without a box, or none where the box is a channel.
        """
        pictures = (embedding.features.float() / 255 - self.mean) / self.sd
        if prompts is None:
            if self.config.box_channel:
                raise ValueError(
                    f"This {self.name} was trained with box_channel: draw a box around the object. To label without "
                    "one, train it without box_channel."
                )
            return Logits(embedding.frame.restore(self._run(pictures), size))
        boxes = self._boxes(embedding, prompts)
        if self.config.box_channel:
            count, each = boxes.shape[:2]
            seen = torch.cat([pictures.repeat_interleave(each, 0), boxes.flatten(0, 1)[:, None].to(pictures)], 1)
            found = self._run(seen).view(count, each, *boxes.shape[2:])
        else:
            found = _fullest(self._run(pictures), boxes)
        return Logits(embedding.frame.restore(found, size))

    def _run(self, pictures: Tensor) -> Tensor:
        alone = self.network.training and len(pictures) == 1
        if alone:  # maps that are pooled to one value have no variance over one slice
            self.network.eval()
        logits: Tensor = self.network(pictures)
        if alone:
            self.network.train()
        return logits.float()

    def _boxes(self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]]) -> Tensor:
        """(B, K, S, S) boolean, true inside of each box; no box is lost between two pixels."""
        corners = [[prompt.box for prompt in row if prompt.box is not None] for row in prompts]
        if len(corners) != len(embedding) or any(len(row) != len(prompts[0]) for row in corners):
            raise ValueError(f"{self.name} answers boxes: give as many prompts for each slice, each with a box.")
        ends = np.array(corners, np.float32).reshape(len(corners), -1, 2, 2)
        ends[..., 1, :] += 1  # the last row and column belong to the box
        low, high = torch.from_numpy(embedding.frame.to_model(ends)).to(embedding.features.device).unbind(2)
        n = torch.arange(self.config.input_size, device=low.device)
        inside = (n >= low[..., None].floor()) & (n < high[..., None].ceil())  # (B, K, 2, S)
        return inside[..., 1, :, None] & inside[..., 0, None, :]


def _fullest(logits: Tensor, boxes: Tensor) -> Tensor:
    """The logits (B, K, S, S) of the class that fills most of each box, of classes (B, C, S, S)."""
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


class DeepLabV3Plus(UnetFamily):
    """Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (ECCV 2018)."""

    name = architecture = "deeplabv3plus"


class Pan(UnetFamily):
    """Li et al., Pyramid Attention Network for Semantic Segmentation (BMVC 2018)."""

    name = architecture = "pan"
    least = 128  # its pyramid halves the map at a sixteenth three times


UNET, UNETPP, DEEPLABV3, DEEPLABV3PLUS, PAN = (
    Parts(training=Training(kind, UnetFamilyConfig)) for kind in (Unet, UnetPlusPlus, DeepLabV3, DeepLabV3Plus, Pan)
)
