"""Volumes windowed to 8 bit, as the models take them; read once and cached while they fit in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segmed.imaging.intensity import resolve_window, stretch, window_range
from segmed.imaging.reading import fingerprint, read_volume
from segmed.imaging.store import ByteBoundedStore
from segmed.imaging.volume import Volume


@dataclass(frozen=True)
class Picture:
    """A windowed volume.

    Attributes:
        array: uint8, (I, J, K) or (I, J, K, 3).
        affine: (4, 4), voxel to RAS mm.
        key: Cache key of this image and window, which changes when the file does.
        window: Name of the window that was used, never `auto`.
        levels: Intensities that the window shows black and white.
        note: A sentence on sizes that the file does not state and that were assumed, or "".
    """

    array: np.ndarray
    affine: np.ndarray
    key: str
    window: str
    levels: tuple[float, float] = (0.0, 255.0)
    note: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.array.shape[:3]
        return i, j, k

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def slice(self, k: int) -> np.ndarray:
        """Slice k as (H, W) or (H, W, 3) with row y = j and column x = i."""
        return np.swapaxes(self.array[:, :, k], 0, 1)


def open_picture(path: str | os.PathLike[str], window: str = "auto") -> Picture:
    """Read and window an image. Raises what `read_volume` and `window_range` raise."""
    key = fingerprint(path) if os.path.exists(path) else ""  # noqa: PTH110 - path may be a str
    return windowed(read_volume(path), window, key)


def windowed(volume: Volume, window: str = "auto", key: str = "") -> Picture:
    """A volume in an intensity window.

    Args:
        volume: The image.
        window: Name of the window.
        key: What identifies the image in caches.

    Raises:
        ValueError: The window is unknown.
    """
    levels, shown = window_range(volume, window), resolve_window(volume, window)
    pixels = stretch(volume, *levels)
    return Picture(pixels, volume.affine, f"{key}:{window}", shown, levels, volume.note)


class PictureCache:
    """Pictures by file and window, least recently used first out; safe for threads.

    An image asked for by several threads at once is read by one of them.

    Args:
        max_bytes: Largest size of the cached pictures in bytes.
        read: Function that opens a picture, for instance in another process.
    """

    def __init__(
        self, max_bytes: int, read: Callable[[str | os.PathLike[str], str], Picture] = open_picture
    ) -> None:
        self._read = read
        self._store: ByteBoundedStore[Picture] = ByteBoundedStore(max_bytes)
        self._reading: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.reads = 0

    def get(self, path: str | os.PathLike[str], window: str = "auto") -> Picture:
        """The picture of the file as it is now.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The image is unreadable, or the window is unknown.
        """
        if not os.path.exists(path):  # noqa: PTH110
            read_volume(path)  # raises with the sentence for the user
        key = f"{fingerprint(path)}:{window}"
        with self._guard:
            lock = self._reading.setdefault(key, threading.Lock())
        try:
            with lock:
                picture = self._store.get(key)
                if picture is None:
                    picture = self._read(path, window)
                    self.reads += 1
                    self._store.put(key, picture, picture.nbytes)
                return picture
        finally:
            with self._guard:
                if not lock.locked():
                    self._reading.pop(key, None)

    def offer(self, volume: Volume, key: str, window: str = "auto") -> None:
        """Keep the picture of a volume that was read for another purpose, so that its file is not read again.

        Args:
            volume: The image.
            key: `fingerprint` of its file before it was read.
            window: Name of the window.

        Raises:
            ValueError: The window is unknown.
        """
        if self._store.get(f"{key}:{window}") is None:
            picture = windowed(volume, window, key)
            self._store.put(picture.key, picture, picture.nbytes)
