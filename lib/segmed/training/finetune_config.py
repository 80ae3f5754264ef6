"""The settings of fine-tuning that users may choose in addition to the recipe of a method."""

from __future__ import annotations

from dataclasses import dataclass, field

from segmed.methods.base.trainable import Recipe
from segmed.simulation.prompts import PromptConfig

MAX_STEPS = 10**6


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The settings of a training that a recipe does not determine.

    Attributes:
        steps: Optimiser steps, or None to use the epochs.
        epochs: Passes over the data, or None for those of the recipe.
        epoch_steps: Least steps of an epoch, which has several passes if there are few data: with a dozen
            slices and one step per epoch, training would end by patience before anything is learned.
        batch: Slices per step, summed over all processes.
        seed: Seed of the order of slices, the prompts and the random draws of the method.
        clip: Largest norm of the gradient.
        bf16: Whether to multiply matrices in bfloat16 by autocast with float32 weights; None for yes on GPUs
            with bfloat16.
        prompted: Whether objects are prompted by boxes; None for the choice of the method's recipe.
        one_label_share: Probability that a slice with several labels is prompted for one of them instead of
            all.
        cache_bytes: Largest size of the disk cache of embeddings from frozen encoders; 0 disables the cache.
        buffer_bytes: Memory for the slices from which batches are drawn, see `SliceOrder`.
        micro: Largest number of slices in one forward pass of a process, over which gradients are summed;
            None for all, which a single process reduces if memory runs out. The loss `dice_ce`, whose Dice is
            that of a whole batch, depends slightly on it.
        checkpointing: Whether to recompute the encoder's activations in the backward pass; None for yes from
            inputs of 512 px.
        patience: Epochs without a better validation after which training ends, or None for no such end.
        prompts: The jitter of the boxes.
    """

    steps: int | None = None
    epochs: int | None = None
    epoch_steps: int = 1
    batch: int = 8
    seed: int = 0
    clip: float = 1.0
    bf16: bool | None = None
    prompted: bool | None = None
    one_label_share: float = 0.5
    cache_bytes: int = 8 * 2**30
    buffer_bytes: int = 64 * 2**20
    micro: int | None = None
    checkpointing: bool | None = None
    patience: int | None = 10
    prompts: PromptConfig = field(default_factory=PromptConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "epoch_steps", "batch", "micro", "patience"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < MAX_STEPS:
                raise ValueError(f"{name} is {value}; give a number from 1 to {MAX_STEPS - 1}.")
        for name in ("seed", "cache_bytes", "buffer_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more.")
        if self.clip <= 0 or not 0 <= self.one_label_share <= 1:
            raise ValueError(
                f"clip is {self.clip}, which must be positive, and one_label_share is "
                f"{self.one_label_share}, which must be a share from 0 to 1."
            )

    def is_prompted(self, recipe: Recipe) -> bool:
        """Whether a method with this recipe is trained with prompted objects rather than class maps."""
        return recipe.prompted if self.prompted is None else self.prompted
