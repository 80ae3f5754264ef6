"""A sheet of an encoder's features: channels, coarse and upsampled, and their principal components.

The layout follows Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from segmed.methods.base.segmenter import Segmenter
from segmed.methods.featup.featup import FeatUp
from segmed.methods.featup.featup_implicit import ImplicitConfig, upsample_implicitly
from segmed.methods.featup.jbu import load_jbu
from segmed.sam.frame import Frame

COLORMAPS = ("jet", "viridis", "plasma", "inferno", "magma")
CHANNELS = (0, 1, 2, 3, 4)
_CONTRAST, _BRIGHTNESS = 1.2, 1.1


def feature_sheet(
    segmenter: Segmenter,
    image: np.ndarray,
    path: Path,
    channels: Sequence[int] = CHANNELS,
    cmaps: Sequence[str] = COLORMAPS,
    jbu: Path | None = None,
    implicit: ImplicitConfig | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Encode a slice, upsample its features and draw both.

    A `FeatUp` uses its own upsampler, another method the given one; without either, a network is trained for
    this image, which takes minutes with a large encoder on a CPU.

    Args:
        segmenter: The method whose encoder is inspected.
        image: The slice, (H, W) or (H, W, 3), uint8.
        path: The PNG file to write.
        channels: The channels, one column each.
        cmaps: The colormaps of the columns, repeated if there are more channels.
        jbu: A file from `scripts/pretrain_jbu.py` for this encoder, or None.
        implicit: Settings of the network for this image.
        tell: Function called with the progress of that network, see `upsample_implicitly`.

    Raises:
        FileNotFoundError: If `jbu`, or the folder to write to, does not exist.
        ValueError: If a channel, a colormap or the name of the file is not allowed, the method has no
            features, or the upsampler belongs to another encoder.
    """
    _check_names(path, cmaps)
    device = next(segmenter.parameters(), torch.empty(0)).device
    pixels, frame = segmenter.prepare(image)
    pixels = pixels[None].to(device)
    with torch.no_grad():
        low = segmenter.encode(pixels).features
    if not low.is_floating_point() or low.shape[-1] >= pixels.shape[-1]:
        raise ValueError(
            f"The encoder of {type(segmenter).__name__} keeps slices, not features. Take medsam, sam or "
            "featup with a backbone."
        )
    _check_channels(channels, low.shape[1])
    upsampler = (
        load_jbu(jbu).to(device).eval() if jbu else segmenter.jbu if isinstance(segmenter, FeatUp) else None
    )
    if upsampler is None:
        high = upsample_implicitly(pixels, lambda x: segmenter.encode(x).features, implicit, tell)
    elif upsampler.channels != low.shape[1]:
        raise ValueError(
            f"The upsampler takes {upsampler.channels} channels, but this encoder gives {low.shape[1]}. Make "
            "another with scripts/pretrain_jbu.py and this backbone."
        )
    else:
        with torch.no_grad():
            high = upsampler(low, pixels)
    draw_feature_sheet(image, _content(low, frame), _content(high, frame), channels, cmaps, path)


def draw_feature_sheet(
    image: np.ndarray,
    low: Tensor,
    high: Tensor,
    channels: Sequence[int],
    cmaps: Sequence[str],
    path: Path,
) -> None:
    """Draw channels of coarse and of fine features, and the image beside both as colours.

    Coarse and fine features share limits and principal components, so that they can be compared.

    Args:
        image: The slice, (H, W) or (H, W, 3), uint8.
        low: Coarse features (C, h, w).
        high: Fine features (C, H', W').
        channels: The channels, one column each.
        cmaps: The colormaps of the columns, repeated if there are more channels.
        path: The PNG file to write.

    Raises:
        ValueError: If a channel, a colormap or the name of the file is not allowed.
    """
    _check_names(path, cmaps)
    _check_channels(channels, low.shape[0])
    columns = max(len(channels), 3)
    figure = Figure(figsize=(2.2 * columns, 7.2), layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, columns, squeeze=False)
    extent = (0.0, float(image.shape[1]), float(image.shape[0]), 0.0)
    for axis in axes.flat:
        axis.axis("off")
    coarse, fine = low.float().cpu().numpy(), high.float().cpu().numpy()
    for column, channel in enumerate(channels):
        name = cmaps[column % len(cmaps)]
        for row, (title, maps) in enumerate((("low", coarse), ("high", fine))):
            shown = enhance(maps[channel], coarse[channel])
            axes[row, column].imshow(shown, name, vmin=0, vmax=1, extent=extent, interpolation="nearest")
            axes[row, column].set_title(f"{title}, channel {channel}, {name}", fontsize=7)
    axes[2, 0].imshow(image, "gray", extent=extent)
    axes[2, 0].set_title("image", fontsize=7)
    for column, (title, colours) in enumerate(
        zip(("low", "high"), principal_colours(coarse, fine), strict=True), 1
    ):
        axes[2, column].imshow(colours, extent=extent, interpolation="nearest")
        axes[2, column].set_title(f"{title}, principal components", fontsize=7)
    figure.savefig(path, dpi=120)


def enhance(maps: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scale maps (…, H, W) by the percentiles 1 and 99 of a reference, and raise their contrast."""
    low, high = np.percentile(reference, (1, 99), axis=(-2, -1), keepdims=True)
    stretched = np.clip((maps - low) / np.maximum(high - low, 1e-8), 0, 1)
    mean = stretched.mean((-2, -1), keepdims=True)
    return np.clip((mean + _CONTRAST * (stretched - mean)) * _BRIGHTNESS, 0, 1)


def principal_colours(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first three principal components as red, green and blue, of coarse and fine features.

    Args:
        low: Coarse features (C, h, w), to which the components are fitted.
        high: Fine features (C, H, W).

    Returns:
        Colours (h, w, 3) and (H, W, 3) in [0, 1].
    """
    # With tokens f (C, h w), the basis (C, 3) has the eigenvectors of cov(f) with the largest eigenvalues,
    # and the colours are basis^T (f - mean f).
    tokens = low.reshape(len(low), -1)
    mean = tokens.mean(1)
    basis = np.linalg.eigh(np.cov(tokens))[1][:, -3:][:, ::-1]
    projected = [np.einsum("chw,cd->dhw", maps - mean[:, None, None], basis) for maps in (low, high)]
    coarse, fine = (enhance(maps, projected[0]).transpose(1, 2, 0) for maps in projected)
    return coarse, fine


def _content(features: Tensor, frame: Frame) -> Tensor:
    """Remove the padding of the model input from features, (1, C, h, w) → (C, h', w')."""
    rows, columns = (max(1, round(n * features.shape[-1] / frame.size)) for n in frame.content)
    return features[0, :, :rows, :columns]


def _check_names(path: Path, cmaps: Sequence[str]) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"A sheet is written as .png, not as {path.name!r}. Change the name.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist. Make it first.")
    unknown = [name for name in cmaps if name not in colormaps]
    if unknown or not cmaps:
        raise ValueError(
            f"There is no colormap {unknown!r}. Choose from those of matplotlib, such as "
            f"{', '.join(COLORMAPS)}."
        )


def _check_channels(channels: Sequence[int], count: int) -> None:
    if not channels or not all(0 <= c < count for c in channels):
        raise ValueError(
            f"The channels {list(channels)} cannot be drawn; allowed are 0 to {count - 1}. Choose from these."
        )
