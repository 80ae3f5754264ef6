"""The settings of the U-Net family."""

from __future__ import annotations

from dataclasses import dataclass

from segmed.methods.imagenet_encoders import EMBEDDED_ENCODERS, library, published_name
from segmed.methods.sam.class_head import ClassConfig

STRIDE = 32  # px of the input per cell of the encoder's last map
_MOST_ATROUS = 64


@dataclass(frozen=True)
class UnetFamilyConfig(ClassConfig):
    """The classes, and the size of the network.

    Attributes:
        labels: Names of the structures as in `ClassConfig`; none with `box_channel`, where the box selects
            the object.
        encoder: An encoder of segmentation_models_pytorch, such as efficientnet-b5 (Tan and Le, 2019), or
            efficientnet-lite0, -lite1 or -lite2, whose ImageNet weights are in the extra `baselines`.
        input_size: Side in px of the square that slices are stretched to, a multiple of 32.
        pretrained: Whether the training starts with an encoder pretrained on ImageNet. The weights of the
            Lite encoders are installed; others are downloaded once, and no image is sent anywhere.
        rate: Learning rate of AdamW. A few passes over few data need 3e-4 to 1e-3.
        box_channel: Whether the box of a prompt is a fourth channel of the input (Ma et al., 2024). The
            method then needs a box for each object and does not label whole slices.
    """

    encoder: str = "efficientnet-b5"
    input_size: int = 256
    pretrained: bool = False
    rate: float = 1e-4
    box_channel: bool = False

    def __post_init__(self) -> None:
        if self.box_channel:
            object.__setattr__(self, "labels", ())
        else:
            super().__post_init__()
        if published_name(self.encoder) not in library().encoders.get_encoder_names():
            raise ValueError(
                f"The encoder {str(self.encoder)[:60]!r} is unknown. Take efficientnet-b5, resnet18, "
                f"{', '.join(EMBEDDED_ENCODERS)}, or another encoder of segmentation_models_pytorch 0.6.0."
            )
        size = self.input_size
        if isinstance(size, bool) or not isinstance(size, int) or size < STRIDE or size % STRIDE:
            raise ValueError(
                f"input_size is {size!r}; allowed are multiples of {STRIDE}. Take 256, or 512 for more."
            )
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate!r}; allowed are numbers between 0 and 1. Take 1e-4.")


@dataclass(frozen=True)
class DeepLabConfig(UnetFamilyConfig):
    """The settings of DeepLabV3 and DeepLabV3+.

    Attributes:
        atrous_rate: Smallest of the three atrous rates; the others are twice and three times as large. Chen
            et al. have 12 at an output stride of 8, as in DeepLabV3, and 6 at 16, as in DeepLabV3+.
    """

    atrous_rate: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        atrous = self.atrous_rate
        if isinstance(atrous, bool) or not isinstance(atrous, int) or not 1 <= atrous <= _MOST_ATROUS:
            raise ValueError(
                f"atrous_rate is {atrous!r}; allowed are whole numbers from 1 to {_MOST_ATROUS}. Take 6 or "
                "12."
            )
