"""What a method needs to be trained and kept: which parameters train, its recipe, and weights saved alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmenter import Segmenter
from segmed.methods.trained_facts import read_facts
from segmed.sam.embedding import Embedding

if TYPE_CHECKING:  # methods with other weights than SAM's do not wait for it
    from transformers import SamModel

LossName = Literal["dice_bce", "focal", "dice_ce"]


@dataclass(frozen=True)
class Recipe:
    """How a method is trained unless the user says otherwise; each method names the source of its values.

    Attributes:
        rates: learning rates by prefix of parameter names; the longest prefix that fits counts, "" fits all.
        loss: `dice_bce` (Dice of squared probabilities + BCE, 1 : 1), `focal` (gamma 2), or `dice_ce` (0.7 Dice + 0.3
            cross-entropy over classes, background among them).
        optimiser: `adam` or `adamw`.
        weight_decay: of all parameters.
        schedule: `constant`, `poly` (power 0.9 after a linear warm-up), `plateau` (halved after 5 epochs without gain),
            `linear` (to a thousandth), or `cosine` (half a wave, to 0).
        warmup: optimiser steps of `poly`.
        epochs: most passes over the data.
        prompted: whether objects are learned one by one, each shown by a prompt, instead of whole class maps.
    """

    rates: Mapping[str, float]
    loss: LossName = "dice_bce"
    optimiser: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.01
    schedule: Literal["constant", "poly", "plateau", "linear", "cosine"] = "constant"
    warmup: int = 0
    epochs: int = 100
    prompted: bool = True

    def rate(self, name: str) -> float:
        """The learning rate of a parameter. Raises ValueError if no prefix fits its name."""
        fitting = [prefix for prefix in self.rates if name.startswith(prefix)]
        if not fitting:
            raise ValueError(f"The recipe has no learning rate for {name!r}, only for {', '.join(self.rates)}.")
        return self.rates[max(fitting, key=len)]

    def loss_of(self, logits: Tensor, truth: Tensor) -> Tensor:
        """The loss of a batch, the mean of its slices' but for `dice_ce`.

        That has one Dice per class over the whole batch, so processes that train together put their parts of it
        together first.

        Args:
            logits: (B, K, H, W) of K objects, or of classes for `dice_ce`.
            truth: (B, K, H, W) in [0, 1], or (B, 1, H, W) class indices for `dice_ce`.
        """
        from segmed.monai_parts import DiceCELoss, DiceLoss, FocalLoss  # seconds that only a training has to wait

        logits = logits.float()
        if self.loss == "focal":
            return FocalLoss()(logits, truth.float())
        if self.loss == "dice_bce":
            dice = DiceLoss(sigmoid=True, squared_pred=True)(logits, truth.float())
            return dice + torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.float())
        logits, truth = _of_all_processes(logits), _of_all_processes(truth)
        both = DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True, batch=True, lambda_dice=0.7, lambda_ce=0.3)
        return both(logits, truth)


class TrainableSegmenter(Segmenter):
    """A Segmenter with parameters that train, on a SamModel unless its method needs none.

    Attributes:
        name: of the method, written beside its weights.
        config: the method's frozen dataclass.
        recipe: the default one.
        model: the SamModel, changed in place by methods that hook into it; frozen but for `trained_names`.
    """

    name: ClassVar[str]
    config: Any
    recipe: Recipe
    model: SamModel

    @property
    def image_size(self) -> int:
        """Side of the model input in px that saved weights belong to."""
        return int(self.model.config.vision_config.image_size)

    def begin(self) -> None:
        """Called once before a training that takes over no weights: the place to fetch some from elsewhere."""

    def spare_memory(self) -> None:
        """From now on, compute the encoder's activations twice instead of keeping them."""
        self.model.vision_encoder.activation_checkpointing_enable()

    def trained_names(self) -> list[str]:
        """Names, as in `named_parameters`, of what trains; nothing else is saved but `extra_buffers`."""
        raise NotImplementedError

    def extra_buffers(self) -> list[str]:
        """Names of buffers that training changes, such as running statistics."""
        return []

    def recipe_for(self, batch: int) -> Recipe:
        """The recipe for steps of `batch` slices; methods whose rates depend on it override this."""
        return self.recipe

    def prepare_training(self) -> None:
        """Let what trains require gradients, and nothing else; SAM's positional matrix never does."""
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
        """The loss of a batch, with gradients; methods override `loss_from` unless they need the images.

        Args:
            images: (B, 3, S, S) in [0, 1], as `prepare` gives.
            prompts: B lists of K prompts, or None for automatic methods.
            truth: as in `Recipe.loss_of`, H and W those of the slices.
            progress: share of the training that is done, for losses that change.
        """
        return self.loss_from(self.encode(images), prompts, truth, progress)

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """As `loss`, of B slices that are encoded: what frozen encoders are trained by, again and again."""
        size = (truth.shape[-2], truth.shape[-1])
        return self.recipe.loss_of(self.decode(embedding, prompts, size).masks, truth)


def _of_all_processes(part: Tensor) -> Tensor:
    """(B, …) of this process to the batch of all that train together, with gradients; B may differ by process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return part
    counts = [torch.zeros(1, dtype=torch.long, device=part.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(part)], device=part.device))
    most = max(int(n) for n in counts)
    padded = torch.cat([part, part.new_zeros((most - len(part), *part.shape[1:]))])
    parts = all_gather(padded)
    return torch.cat([whole[: int(n)] for whole, n in zip(parts, counts, strict=True)])


def save_trained(segmenter: TrainableSegmenter, folder: Path, backbone: str) -> None:
    """Write `config.json` and `weights.safetensors`: what was trained, never the base weights.

    Args:
        segmenter: the method.
        folder: made if need be.
        backbone: version of the base weights (`sam.weights.weights_version`) that these belong to, "" for none.

    Raises:
        OSError: they could not be written, for instance because the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {*segmenter.trained_names(), *segmenter.extra_buffers()}
    state = {k: v.detach().cpu().contiguous().clone() for k, v in segmenter.state_dict().items() if k in wanted}
    # save_file would tell of a full disk by an error of its own
    (folder / "weights.safetensors").write_bytes(save(state))
    facts = {
        "method": segmenter.name,
        "backbone": backbone,
        "image_size": segmenter.image_size,
        "config": asdict(segmenter.config),
    }
    (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def config_from(kind: type, values: Mapping[str, Any]) -> Any:
    """A method's config from what `config.json` holds; lists become tuples.

    Raises:
        ValueError: unknown settings, or values that the config refuses.
    """
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{kind.__name__} does not know {', '.join(unknown)}. Known are {', '.join(sorted(known))}.")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def load_trained(segmenter: TrainableSegmenter, folder: Path, backbone: str) -> None:
    """Put saved weights into a method built with the same config.

    Args:
        segmenter: the method, on any device.
        folder: as `save_trained` wrote it.
        backbone: version of the base weights in use, "" for none.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another method, backbone, image size, rank or class count, or a damaged file.
    """
    facts = read_facts(folder)
    for what, saved, here in (
        ("method", facts["method"], segmenter.name),
        ("backbone", facts["backbone"], backbone),
        ("image size", facts["image_size"], segmenter.image_size),
    ):
        if saved != here:
            raise ValueError(
                f"The weights in {folder.name} belong to the {what} {saved!r}, but {here!r} is in use. Train them anew "
                f"or serve them with the {what} that they were trained with."
            )
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{folder.name} has no weights.safetensors. Copy the whole folder again.")
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} in {folder.name} is cut off or damaged ({error}). Copy it again.") from error
    own = segmenter.state_dict()
    wanted = {*segmenter.trained_names(), *segmenter.extra_buffers()}
    wrong = sorted(wanted ^ set(state)) + sorted(
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in wanted & set(state)
        if state[k].shape != own[k].shape
    )
    if wrong:
        raise ValueError(
            f"The weights in {folder.name} do not fit {segmenter.name} as configured ({len(wrong)} differ, first: "
            f"{wrong[0]}). Use the rank, classes and variant that they were trained with."
        )
    segmenter.load_state_dict(state, strict=False)
