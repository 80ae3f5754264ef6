"""Saving of a method's SAM or SAM2 as transformers loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from segmed.methods.base.segmenter import Segmenter


def save_for_transformers(segmenter: Segmenter, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, with the memory of a SAM2 that has one.

    Raises:
        ValueError: If transformers has no class that computes the method.
    """
    from transformers import PreTrainedModel, Sam2Model, Sam2VideoModel

    model: Any = getattr(segmenter, "memory", None) or getattr(segmenter, "model", None)
    if not isinstance(model, PreTrainedModel):
        raise ValueError("transformers has no model of this kind.")
    if segmenter.no_graphs and not isinstance(model, Sam2Model | Sam2VideoModel):
        raise ValueError(f"The model alone is not the whole method: {segmenter.no_graphs}.")
    with torch.device("meta"):
        stock = type(model)(model.config)
    own, known = ({name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (model, stock))
    if other := sorted(set(own.items()) ^ set(known.items())):
        raise ValueError(f"It has layers that transformers does not know ({other[0][0]}).")
    model.save_pretrained(folder)
