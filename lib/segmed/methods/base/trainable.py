"""The interface of trainable methods, their recipes, and the storage of trained weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trained_facts import read_facts
from segmed.sam.embedding import Embedding

if TYPE_CHECKING:  # methods with other weights than SAM's do not wait for it
    from transformers import SamModel

LossName = Literal["dice_bce", "focal", "dice_ce"]


@dataclass(frozen=True)
class Recipe:
    """The default settings of a method's training; each method names the source of its values.

    Attributes:
        rates: Learning rates by prefix of parameter names; the longest matching prefix counts, and "" matches
            all.
        loss: `dice_bce` (Dice of squared probabilities + BCE, 1 : 1), `focal` (gamma 2), or `dice_ce` (0.7
            Dice + 0.3 cross-entropy over all classes with the background).
        optimiser: `adam`, `adamw`, or `sgd` with a Nesterov momentum of 0.937, as usual for YOLO.
        weight_decay: Weight decay of all parameters.
        schedule: `constant`, `poly` (power 0.9 after a linear warm-up), `plateau` (halved after 5 epochs
            without improvement), `linear` (to a thousandth), or `cosine` (half a period, to 0).
        warmup: Optimiser steps of the warm-up of `poly`.
        epochs: Largest number of passes over the data.
        prompted: Whether the method learns objects one by one from prompts instead of whole class maps.
        batch: Slices per optimiser step of the published training, or of one that fits its rates.
        augmented: Whether slices are changed at random in the published training.
    """

    rates: Mapping[str, float]
    loss: LossName = "dice_bce"
    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = 0.01
    schedule: Literal["constant", "poly", "plateau", "linear", "cosine"] = "constant"
    warmup: int = 0
    epochs: int = 100
    prompted: bool = True
    batch: int = 8
    augmented: bool = False

    def rate(self, name: str) -> float:
        """The learning rate of a parameter. Raises ValueError if no prefix fits its name."""
        fitting = [prefix for prefix in self.rates if name.startswith(prefix)]
        if not fitting:
            raise ValueError(
                f"The recipe has no learning rate for {name!r}, only for {', '.join(self.rates)}."
            )
        return self.rates[max(fitting, key=len)]

    def loss_of(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Compute the loss of a batch: the mean over its slices, except for `dice_ce`.

        Classes have one Dice each over the whole batch, so that processes that train together first gather
        their parts of the batch. Their `dice_bce` compares one map per class, background included, with the
        one-hot labels.

        Args:
            logits: Logits (B, K, H, W) of K objects, or of K classes.
            truth: Masks (B, K, H, W) in [0, 1], or class indices (B, 1, H, W), which are integers.
        """
        from segmed.monai_parts import (  # seconds that only a training has to wait
            DiceCELoss,
            DiceLoss,
            FocalLoss,
        )

        logits = logits.float()
        if self.loss == "focal":
            return FocalLoss()(logits, truth.float())
        classes = not truth.is_floating_point()
        if classes or self.loss == "dice_ce":
            logits, truth = _of_all_processes(logits), _of_all_processes(truth)
        if self.loss == "dice_bce":
            if classes:
                truth = torch.nn.functional.one_hot(truth[:, 0].long(), logits.shape[1]).movedim(-1, 1)
            truth = truth.float()
            dice = DiceLoss(sigmoid=True, squared_pred=True, batch=classes)(logits, truth)
            return dice + torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        both = DiceCELoss(
            softmax=True, to_onehot_y=True, squared_pred=True, batch=True, lambda_dice=0.7, lambda_ce=0.3
        )
        return both(logits, truth)


class TrainableSegmenter(Segmenter):
    """A segmenter with trained parameters, on a SamModel unless its method needs none.

    Attributes:
        name: Name of the method, stored with its weights.
        config: The method's frozen dataclass of settings.
        recipe: The default recipe.
        input_varies: Whether the method changes slices at random in training, so that their embeddings cannot
            be cached.
        native_truth: Whether masks are compared at the resolution of the slice instead of the model input.
        segments_untrained: Whether it finds objects before it is trained, as MedSAM does.
        model: The SamModel, changed in place by methods that hook into it; frozen except for `trained_names`.
    """

    name: ClassVar[str]
    config: Any
    recipe: Recipe
    input_varies: bool = False
    native_truth: bool = False
    segments_untrained: bool = False
    model: SamModel

    @property
    def image_size(self) -> int:
        """Side of the model input in px that saved weights belong to."""
        return int(self.model.config.vision_config.image_size)

    def begin(self) -> None:
        """Prepare a training that starts without trained weights, such as by downloading pretrained ones."""

    def spare_memory(self) -> None:
        """From now on, recompute the encoder's activations in the backward pass instead of storing them."""
        self.model.vision_encoder.activation_checkpointing_enable()

    def trained_names(self) -> list[str]:
        """Names of the trained parameters, which are saved together with `extra_buffers`."""
        raise NotImplementedError

    def extra_buffers(self) -> list[str]:
        """Names of buffers that training changes, such as running statistics."""
        return []

    def recipe_for(self, batch: int) -> Recipe:
        """The recipe for steps of `batch` slices; methods whose rates depend on it override this."""
        return self.recipe

    def prepare_training(self) -> None:
        """Set `requires_grad` for exactly the trained parameters, never for SAM's positional matrix."""
        wanted = set(self.trained_names())
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in wanted)

    def loss(
        self,
        images: Tensor,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """Compute the loss of a batch, with gradients; methods usually override `loss_from`.

        Args:
            images: Model inputs (B, 3, S, S) in [0, 1], as from `prepare`.
            prompts: B lists of K prompts, or None for automatic methods.
            truth: Masks or class indices as in `Recipe.loss_of`, with H and W of the slices.
            progress: Share of the training that is done, in [0, 1], for losses that change.
        """
        return self.loss_from(self.encode(images), prompts, truth, progress)

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """Compute the loss from embeddings of B slices, which frozen encoders compute only once."""
        size = (truth.shape[-2], truth.shape[-1])
        return self.recipe.loss_of(self.decode(embedding, prompts, size).masks, truth)


def _of_all_processes(part: Tensor) -> Tensor:
    """Gather the parts (B, …) of all processes that train together, with gradients; B may differ."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return part
    counts = [torch.zeros(1, dtype=torch.long, device=part.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(part)], device=part.device))
    most = max(int(n) for n in counts)
    padded = torch.cat([part, part.new_zeros((most - len(part), *part.shape[1:]))])
    parts = all_gather(padded)
    return torch.cat([whole[: int(n)] for whole, n in zip(parts, counts, strict=True)])


def save_trained(segmenter: TrainableSegmenter, folder: Path, backbone: str) -> None:
    """Write `config.json` and `weights.safetensors` with the trained weights, without the base weights.

    Args:
        segmenter: The method.
        folder: The folder, which is created if it does not exist.
        backbone: Version of the base weights (`sam.weights.weights_version`) that these belong to, "" for
            none.

    Raises:
        OSError: If the weights cannot be written, for instance because the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {*segmenter.trained_names(), *segmenter.extra_buffers()}
    state = {
        k: v.detach().cpu().contiguous().clone() for k, v in segmenter.state_dict().items() if k in wanted
    }
    # save_file reports a full disk by an error of its own
    (folder / "weights.safetensors").write_bytes(save(state))
    facts = {
        "method": segmenter.name,
        "backbone": backbone,
        "image_size": segmenter.image_size,
        "config": asdict(segmenter.config),
    }
    (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load_trained(segmenter: TrainableSegmenter, folder: Path, backbone: str) -> None:
    """Load saved weights into a method built with the same config.

    Args:
        segmenter: The method, on any device.
        folder: A folder from `save_trained`.
        backbone: Version of the base weights in use, "" for none.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the weights belong to another method, backbone, image size, rank or class count, or are
            damaged.
    """
    facts = read_facts(folder)
    for what, saved, here in (
        ("method", facts["method"], segmenter.name),
        ("backbone", facts["backbone"], backbone),
        ("image size", facts["image_size"], segmenter.image_size),
    ):
        if saved != here:
            raise ValueError(
                f"The weights in {folder.name} belong to the {what} {saved!r}, but {here!r} is in use. Train "
                f"them again, or use the {what} that they were trained with."
            )
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{folder.name} has no weights.safetensors. Copy the whole folder again.")
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path.name} in {folder.name} is cut off or damaged ({error}). Copy it again."
        ) from error
    own = segmenter.state_dict()
    wanted = {*segmenter.trained_names(), *segmenter.extra_buffers()}
    wrong = sorted(wanted ^ set(state)) + sorted(
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in wanted & set(state)
        if state[k].shape != own[k].shape
    )
    if wrong:
        raise ValueError(
            f"The weights in {folder.name} do not fit {segmenter.name} as configured ({len(wrong)} differ, "
            f"first: {wrong[0]}). Use the rank, classes and variant that they were trained with."
        )
    segmenter.load_state_dict(state, strict=False)
