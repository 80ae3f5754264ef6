"""The settings of I-MedSAM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from segmed.methods.imedsam.frequency_adapter import Variant

_REFERENCE: dict[str, Any] = {"gate": True, "scale": 0.5, "nodes": None, "margin": None}


@dataclass(frozen=True)
class ImedsamConfig:
    """The settings of I-MedSAM.

    Attributes:
        rank: Rank of the low-rank updates in the encoder.
        gate: Whether the updates have a gate per sample.
        bottleneck: Channels inside a frequency adapter.
        variant: The used part of the spectrum, `amplitude` or `phase`.
        scale: Initial factor of the frequency adapters, learned per layer; with 0 the encoder starts as
            SAM's.
        nodes: Coarse values per token and axis, 1, 2 or 4; None for one at every pixel of the output, as
            published, which costs several times as much as the encoder.
        passes_train: Passes with dropout in training, at least 2.
        passes_test: Passes with dropout in inference, at least 2.
        share: Share of the pixels that the fine network refines; 0 keeps the coarse mask.
        margin: In inference, pixels are refined in the prompt's box and around it, up to this share of its
            sides, and `share` is that of this region; None for the whole slice, as published. Without a box
            it is the whole slice.
        adapters: Whether the encoder has frequency adapters.
        implicit: Whether masks are a function of position; if not, SAM's own decoder gives them.
        classes: Number of heads. With more than one, each slice has one prompt per class, in the order of the
            classes.
        reference: Whether to use the settings of the authors' code: gates, a fixed scale of 0.5, the first
            channel instead of the mean, pixels refined in the whole slice, 63 values of position that are
            shown gradually, coarse values at every pixel with a dropout per point and output, 0.2
            cross-entropy + 0.8 Dice. Other values of `gate`, `scale`, `nodes` and `margin` are refused then.
    """

    rank: int = 4
    gate: bool = False
    bottleneck: int = 4
    variant: Variant = "amplitude"
    scale: float = 0.0
    nodes: int | None = 2
    passes_train: int = 2
    passes_test: int = 8
    share: float = 0.125
    margin: float | None = 0.25
    adapters: bool = True
    implicit: bool = True
    classes: int = 1
    reference: bool = False

    def __post_init__(self) -> None:
        for name in ("gate", "reference", "adapters", "implicit"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; allowed are true and false. "
                    "Leave it out for the default."
                )
        if self.reference:
            self._take_reference()
        least = {"rank": 1, "bottleneck": 1, "passes_train": 2, "passes_test": 2, "classes": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(
                    f"{name} is {value!r}; allowed are whole numbers from {low}. "
                    "Leave it out for the default."
                )
        if self.variant not in get_args(Variant):
            raise ValueError(
                f"variant is {self.variant!r}; allowed are {', '.join(get_args(Variant))}. Take 'amplitude'."
            )
        if not _is_number(self.scale) or not math.isfinite(self.scale):
            raise ValueError(
                f"scale is {self.scale!r}; allowed are finite numbers. Take 0 to start from SAM."
            )
        if self.nodes is not None and (type(self.nodes) is not int or self.nodes not in (1, 2, 4)):
            raise ValueError(f"nodes is {self.nodes!r}; allowed are 1, 2, 4 and None. Take 2.")
        if not _is_number(self.share) or not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share!r}; allowed are numbers from 0 to 1. Take 0.125.")
        if self.margin is not None and not (
            _is_number(self.margin) and math.isfinite(self.margin) and self.margin >= 0
        ):
            raise ValueError(
                f"margin is {self.margin!r}; allowed are None and numbers from 0. Take 0.25, or None for the "
                "whole slice."
            )

    def _take_reference(self) -> None:
        for name, value in _REFERENCE.items():
            given = getattr(self, name)
            if given not in (value, getattr(type(self), name)):
                raise ValueError(
                    f"{name} is {given!r}, but reference=true sets it to {value!r}. Leave out {name} or "
                    "reference."
                )
            object.__setattr__(self, name, value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
