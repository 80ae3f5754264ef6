"""What a user may choose when a method is fine-tuned, beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from segmed.methods.trainable import Recipe
from segmed.training.prompts import PromptConfig

MAX_STEPS = 10**6


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What a recipe leaves open.

    Attributes:
        steps: optimiser steps; None for the epochs.
        epochs: passes over the data; None for those of the recipe.
        epoch_steps: least steps of an epoch, which is several passes where the data are few: a dozen slices in a single
            step per epoch would be validated, and given up, before anything is learnt.
        batch: slices per step, all processes together.
        seed: of the order of slices, of prompts and of what the method draws itself.
        clip: largest norm of the gradient.
        bf16: multiply matrices in bfloat16 where autocast does, the weights stay float32; None on GPUs that can.
        prompted: whether objects are shown by boxes; None leaves it to the method's recipe.
        one_label_share: chance that a slice with several labels is prompted for one of them and not for all together.
        cache_bytes: embeddings kept on disk where training leaves the encoder as it is; 0 encodes always anew.
        buffer_bytes: slices held in memory to be drawn from, see `SliceOrder`.
        micro: most slices in one forward pass of a process, the gradients of a step are summed; None takes all, and
            fewer when memory runs out. One process alone goes on by itself then. The loss `dice_ce`, whose Dice is that
            of a whole batch, changes slightly with it.
        checkpointing: compute the encoder's activations twice instead of keeping them; None from inputs of 512 px on.
        patience: epochs without a better validation before training ends; None never ends it.
        prompts: how careless boxes are.
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
                raise ValueError(f"{name} is {value}; give 1 to {MAX_STEPS - 1}.")
        for name in ("seed", "cache_bytes", "buffer_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more.")
        if self.clip <= 0 or not 0 <= self.one_label_share <= 1:
            raise ValueError(
                f"clip {self.clip} must be positive and one_label_share {self.one_label_share} a share in [0, 1]."
            )

    def is_prompted(self, recipe: Recipe) -> bool:
        """Whether a method of this recipe learns objects from prompts here, and not class maps."""
        return recipe.prompted if self.prompted is None else self.prompted
