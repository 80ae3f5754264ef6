"""Stored intensities to 8-bit grey or colour, as MedSAM's published preprocessing does it.

Source: Ma et al., Segment anything in medical images (Nature Communications, 2024), preprocessing scripts.
"""

from __future__ import annotations

import numpy as np

from segmed.imaging.volume import Volume

# level and width in HU
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "ct-soft-tissue": (40, 400),
    "ct-lung": (-600, 1500),
    "ct-brain": (40, 80),
    "ct-bone": (400, 1800),
}
_SHOWN = 0.01  # of the voxels of a CT
WINDOWS: tuple[str, ...] = ("auto", *CT_WINDOWS, "percentile", "minmax")


def resolve_window(volume: Volume, window: str = "auto") -> str:
    """The window that `auto` stands for; any other known name stays.

    CT is recognised by the modality or, for files without one, by air: integers at or below -500 together
    with values above 200. Where next to nothing of a CT lies in the window of soft tissue, and for all else,
    percentiles are taken; 8-bit images keep their values (`minmax` of 0 to 255).

    Raises:
        ValueError: The name is unknown.
    """
    if window not in WINDOWS:
        raise ValueError(f"Unknown intensity window {window!r}. Choose one of {', '.join(WINDOWS)}.")
    if window != "auto":
        return window
    if volume.modality == "CT":
        return "ct-soft-tissue" if _shows(volume, "ct-soft-tissue") else "percentile"
    if volume.is_colour or volume.array.dtype == np.uint8:
        return "minmax"
    if not volume.modality and volume.array.min() <= -500 and volume.array.max() > 200:
        sample = _sample(volume)
        if np.array_equal(sample, np.rint(sample)):
            return "ct-soft-tissue"
    return "percentile"


def _shows(volume: Volume, window: str) -> bool:
    """Whether at least one in a hundred voxels is not black in a CT window."""
    level, width = CT_WINDOWS[window]
    return bool((_sample(volume) > level - width / 2).mean() >= _SHOWN)


def _sample(volume: Volume) -> np.ndarray:
    return volume.array[::4, ::4, :: max(1, volume.shape[2] // 8)]


def to_uint8(volume: Volume, window: str = "auto") -> np.ndarray:
    """Window the whole volume to 0..255.

    CT windows clip to level ± width/2 HU; `percentile` clips to the 0.5 and 99.5 percentiles of the voxels
    above zero, which leaves zeros zero (of all voxels where some are negative); `minmax` keeps 8-bit values
    and stretches others. A constant image becomes 0.

    Args:
        volume: Array (I, J, K) of grey values or (I, J, K, 3) of colours.
        window: One of `WINDOWS`.

    Returns:
        uint8 array of the volume's shape, Fortran order so that slices along k are contiguous.

    Raises:
        ValueError: The window is unknown.
    """
    low, high = window_range(volume, window)
    return stretch(volume, low, high)


def window_range(volume: Volume, window: str = "auto") -> tuple[float, float]:
    """The intensities that a window shows black and white; 0 and 255 where 8-bit values are kept.

    Raises:
        ValueError: The window is unknown.
    """
    name = resolve_window(volume, window)
    array = volume.array
    if array.dtype == np.uint8 and name == "minmax":
        return 0.0, 255.0
    if name in CT_WINDOWS:
        level, width = CT_WINDOWS[name]
        return max(level - width / 2, float(array.min())), min(level + width / 2, float(array.max()))
    if name == "percentile":
        values = array[array > 0] if array.min() >= 0 else array
        low, high = (float(p) for p in np.percentile(values, (0.5, 99.5))) if values.size else (0.0, 0.0)
        return low, high
    return float(array.min()), float(array.max())


def stretch(volume: Volume, low: float, high: float) -> np.ndarray:
    """The volume in 8 bit, `low` black and `high` white, in Fortran order; see `to_uint8`."""
    array = volume.array
    if array.dtype == np.uint8 and (low, high) == (0, 255):
        return np.asfortranarray(array)
    out = np.zeros(array.shape, dtype=np.uint8, order="F")
    if high <= low:
        return out
    for k in range(array.shape[2]):  # slice by slice: the float copy stays small
        grey = (np.clip(array[:, :, k].astype(np.float64), low, high) - low) / (high - low) * 255
        out[:, :, k] = grey.astype(np.uint8)
    return out
