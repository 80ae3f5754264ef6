"""Denoised pictures, which the models segment when the option `denoise` is on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from segmed.imaging.picture import Picture

_KEPT = 8  # slices; embeddings are cached elsewhere, this is for what looks at a slice twice


@dataclass(frozen=True)
class Denoiser:
    """A way of removing noise.

    Attributes:
        name: Name that identifies the denoiser; part of the keys of caches.
        clean: Function that maps a slice, (H, W) or (H, W, 3) uint8, to the same slice without noise.
    """

    name: str
    clean: Callable[[np.ndarray], np.ndarray]

    def __call__(self, picture: Picture) -> Picture:
        """The picture, with each slice denoised when it is requested."""
        return DenoisedPicture(**{**vars(picture), "key": f"{picture.key}:{self.name}"}, denoiser=self)


@dataclass(frozen=True)
class DenoisedPicture(Picture):
    """A picture whose slices are returned without noise; `array` stays as it was."""

    denoiser: Denoiser = Denoiser("", lambda image: image)
    _slice: Callable[[int], np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        noisy = super().slice
        object.__setattr__(
            self, "_slice", functools.lru_cache(_KEPT)(lambda k: self.denoiser.clean(noisy(k)))
        )

    def slice(self, k: int) -> np.ndarray:
        """Slice k without its noise, (H, W) or (H, W, 3)."""
        return self._slice(k)


def gaussian(sigma: float = 1.0) -> Denoiser:
    """A Gaussian filter.

    Args:
        sigma: Standard deviation in px.

    Raises:
        ValueError: `sigma` is not above 0.
    """
    if not sigma > 0:
        raise ValueError(f"A Gaussian filter of {sigma} px is not possible. Give a width above 0, such as 1.")

    def clean(image: np.ndarray) -> np.ndarray:
        widths = (sigma, sigma, 0) if image.ndim == 3 else sigma
        return np.asarray(ndimage.gaussian_filter(image.astype(np.float32), widths).round().astype(np.uint8))

    return Denoiser(f"gaussian {sigma:g}", clean)
