"""Seeded augmentations of labelled slices, which can be replayed.

The list and the shares of the intensity changes follow what is common for U-Nets on the LGG set; mirrored and
rotated images are left out where labels distinguish left from right, because a mirrored right kidney is a
left one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from skimage.exposure import adjust_gamma, equalize_adapthist

from segmed.data.slices import LabelledSlice

# of ImageNet, as torchvision's weights expect them
MEAN, STANDARD_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEAST_TILE = 16  # px; the histogram of fewer is noise


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities and strengths of the augmentations.

    Attributes:
        crop: Probability of cropping the slice.
        least_side: Smallest share of each side that a crop keeps.
        flip: Probability of mirroring left to right, and independently of mirroring up to down.
        rotate: Probability of rotating by 90, 180 or 270 degrees.
        clahe: Probability of contrast-limited adaptive histogram equalisation (Zuiderveld, 1994).
        clip_limit: Range of the clip limit of `clahe`; 1 leaves the contrast unlimited.
        contrast: Probability of changing brightness and contrast.
        most_change: Largest change of the brightness as a share of the range of values, and of the contrast
            as a share of itself.
        gamma: Probability of raising the values to a power.
        powers: Range of these powers.
        normalise: Whether to return float32 with the mean and standard deviation of ImageNet instead of 8
            bit, for networks that do not scale their input themselves, as the SAM family does.
    """

    crop: float = 0.5
    least_side: float = 0.7
    flip: float = 0.5
    rotate: float = 0.5
    clahe: float = 0.3
    clip_limit: tuple[float, float] = (0.005, 0.02)
    contrast: float = 0.3
    most_change: float = 0.2
    gamma: float = 0.3
    powers: tuple[float, float] = (0.8, 1.25)
    normalise: bool = False

    def __post_init__(self) -> None:
        for name in ("crop", "flip", "rotate", "clahe", "contrast", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a chance: give 0 to 1.")
        for name in ("least_side", "most_change"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a share: give more than 0 and at most 1.")
        for name in ("clip_limit", "powers"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} {(low, high)} must be two rising numbers above 0.")


class Augmentation:
    """Changes slices at random; equal seeds give equal changes.

    Args:
        config: Probabilities and strengths of the augmentations.
        lateralised: Labels that distinguish sides, as `SliceDataset.lateralised` lists them; if there are
            any, nothing is mirrored or rotated.
    """

    def __init__(self, config: AugmentConfig | None = None, lateralised: tuple[str, ...] = ()) -> None:
        self.config = config or AugmentConfig()
        if lateralised:
            self.config = replace(self.config, flip=0.0, rotate=0.0)

    def __call__(self, sample: LabelledSlice, *seed: int) -> LabelledSlice:
        """An augmented copy; the labels are moved with the image, and their values do not change.

        Args:
            sample: Slice to augment, which is left as it is.
            seed: Integers of at least 0, such as a run's seed, the epoch and the number of the slice.
        """
        config, draw = self.config, np.random.default_rng(seed)
        # all draws come first and always, so that a change of one share leaves the other draws as they are
        crop, flips, turn, clahe, contrast, gamma = draw.random(), draw.random(2), *draw.random(4)
        quarter, sides, place = (
            int(draw.integers(1, 4)),
            draw.uniform(config.least_side, 1, 2),
            draw.random(2),
        )
        change, limit, power = draw.uniform(-1, 1, 2) * config.most_change, draw.random(), draw.random()
        image, labels, spacing = sample.image, sample.labels, sample.spacing
        if crop < config.crop:
            image, labels = _crop(image, labels, sides, place)
        for axis in (0, 1):
            if flips[axis] < config.flip:
                image, labels = np.flip(image, axis), np.flip(labels, axis)
        if turn < config.rotate:
            image, labels = np.rot90(image, quarter), np.rot90(labels, quarter)
            spacing = spacing[::-1] if quarter % 2 else spacing
        if clahe < config.clahe and image.min() < image.max():
            low, high = config.clip_limit
            tiles = [min(side, max(side // 8, _LEAST_TILE)) for side in image.shape[:2]]
            image = _to_uint8(equalize_adapthist(image, tiles, low + limit * (high - low)) * 255.0)
        if contrast < config.contrast:
            middle = image.mean()
            image = _to_uint8((image - middle) * (1 + change[0]) + middle + 255 * change[1])
        if gamma < config.gamma:
            low, high = config.powers
            image = adjust_gamma(image, low * (high / low) ** power)
        if config.normalise:
            image = normalised(image)
        return LabelledSlice(
            np.ascontiguousarray(image), np.ascontiguousarray(labels), sample.patient, spacing
        )


def normalised(image: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 to (H, W, 3) float32, normalised by the statistics of ImageNet."""
    colour = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image
    return ((colour / 255 - MEAN) / STANDARD_DEVIATION).astype(np.float32)


def _crop(
    image: np.ndarray, labels: np.ndarray, sides: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A part of the slice; the whole slice if its objects would be lost."""
    size = np.array(labels.shape)
    part = np.maximum(1, np.round(size * sides)).astype(int)
    y, x = np.floor(place * (size - part + 1)).astype(int)
    window = slice(y, y + part[0]), slice(x, x + part[1])
    if labels.any() and not labels[window].any():
        return image, labels
    return image[window], labels[window]


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
