"""Requests as 3D Slicer sends them."""

from __future__ import annotations

from typing import Any

import nrrd
import numpy as np
from running import Server

SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz", "device": "cpu"}


def roi_of(mask: np.ndarray, k: tuple[int, int]) -> list[int]:
    """As 3D Slicer sends it for a volume stored left-posterior: i and j descending."""
    i, j = (np.flatnonzero(mask.any(axis=a)) for a in ((1, 2), (0, 2)))
    return [int(i[-1]), int(i[0]), int(j[-1]), int(j[0]), k[0], k[1]]


def infer(
    server: Server, model: str, params: dict[str, Any], image: str = "ct", **more: Any
) -> tuple[Any, Any, Any]:
    file, told = server.client.infer(model, image, {**SLICER, **params}, **more)
    array, header = nrrd.read(file)
    return array, header, told
