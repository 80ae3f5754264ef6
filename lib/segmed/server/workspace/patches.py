"""Rectangles of slices, deflated with their position, as they are sent and kept in the history."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_LEVEL = 1  # label maps are runs of equal bytes: higher levels take longer and save nothing


@dataclass(frozen=True)
class Patch:
    """Values of a rectangle of one slice.

    Attributes:
        k: Index of the slice.
        i: Columns, from the first to one beyond the last.
        j: Rows, from the first to one beyond the last.
        data: Values (rows, columns), uint8, deflated.
        axis: Axis of the volume across the slice; `i` and `j` are the ranges along the two others.
    """

    k: int
    i: tuple[int, int]
    j: tuple[int, int]
    data: bytes
    axis: int = 2

    @classmethod
    def cut(cls, k: int, values: np.ndarray, where: np.ndarray, axis: int = 2) -> Patch | None:
        """The smallest rectangle of `values` (H, W) around all of `where` (H, W); None if that is empty."""
        rows = np.flatnonzero(where.any(1))
        if not rows.size:
            return None
        j = int(rows[0]), int(rows[-1]) + 1
        columns = np.flatnonzero(where[j[0] : j[1]].any(0))
        i = int(columns[0]), int(columns[-1]) + 1
        part = np.ascontiguousarray(values[j[0] : j[1], i[0] : i[1]], np.uint8)
        return cls(k, i, j, zlib.compress(part.data, _LEVEL), axis)

    @classmethod
    def parse(cls, k: int, i: Sequence[int], j: Sequence[int], data: str, shape: Sequence[int]) -> Patch:
        """The patch of a client for an image of shape (I, J, K), with `data` deflated and in base64.

        Raises:
            ValueError: The patch does not lie on the image, or has another number of bytes.
        """
        if not 0 <= k < shape[2]:
            raise ValueError(f"There is no slice {k}; the image has the slices 0 to {shape[2] - 1}.")
        for name, ends, size in (("i", i, shape[0]), ("j", j, shape[1])):
            if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= size:
                raise ValueError(
                    f"The range {name} {list(ends)} does not lie on the image, whose {name} runs from 0 to "
                    f"{size}. Send the first voxel and the one after the last."
                )
        try:
            deflated = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("The data of a change is not base64. Encode the deflated bytes so.") from error
        inflate(deflated, (i[1] - i[0]) * (j[1] - j[0]))
        return cls(k, (i[0], i[1]), (j[0], j[1]), deflated)

    def values(self) -> np.ndarray:
        """The values (rows, columns), uint8."""
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(
            self.j[1] - self.j[0], self.i[1] - self.i[0]
        )

    def put(self, into: np.ndarray) -> None:
        """Write the values into a slice (H, W)."""
        into[self.j[0] : self.j[1], self.i[0] : self.i[1]] = self.values()

    def full(self, shape: Sequence[int]) -> np.ndarray:
        """The slice (H, W) boolean of size (W, H, …), true where the patch has values."""
        out = np.zeros((shape[1], shape[0]), bool)
        self.put(out)
        return out

    def on_slices(self, shape: Sequence[int]) -> dict[int, np.ndarray]:
        """The stored slices k (H, W) of an image of the shape (I, J, K) on which the patch has values."""
        if self.axis == 2:
            return {self.k: self.full(shape)}
        out = {}
        for k, row in enumerate(self.values() > 0, start=self.j[0]):
            if row.any():
                out[k] = np.zeros((shape[1], shape[0]), bool)
                line = out[k][self.k] if self.axis == 1 else out[k][:, self.k]
                line[self.i[0] : self.i[1]] = row
        return out

    def to_json(self) -> dict[str, Any]:
        """The patch as JSON values for clients."""
        return {
            "k": self.k,
            "i": list(self.i),
            "j": list(self.j),
            "data": base64.b64encode(self.data).decode("ascii"),
            **({} if self.axis == 2 else {"axis": self.axis}),
        }


def inflate(data: bytes, size: int) -> bytes:
    """Inflate data to `size` bytes.

    Raises:
        ValueError: The data are not deflated, or give another number of bytes.
    """
    machine = zlib.decompressobj()
    try:
        out = machine.decompress(data, size + 1)  # no more, whatever a client packed
    except zlib.error as error:
        raise ValueError(
            "The data is not deflated (zlib). Compress the bytes so, and encode them."
        ) from error
    if len(out) != size or not machine.eof:
        raise ValueError(
            f"The data holds {'more' if len(out) > size else 'less'} than the {size} bytes of its range."
        )
    return out
