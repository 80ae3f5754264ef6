"""Fine-tuning of the default model on the user's labels, with simulated prompts in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import Parts, Training
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.segmed.losses import step_loss
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.segmenter import Segmed
from segmed.methods.segmed.views import View, is_lone_click, place, sample
from segmed.methods.segmed.weights import load_network, network_version
from segmed.sam.embedding import Embedding
from segmed.sam.sources import local_source
from segmed.sam.window import squares_around, windows_around
from segmed.simulation.window_annotator import Prompted, click_in, correct

Preset = Literal["decoder", "deep"]
_SIDE = 256  # longer side of the slices in training, px
_BOX_ZOOM = (1.3, 2.0)  # sides of windows around boxes, in sides of the box
_CLICK_ZOOM = (1.2, 6.0)  # sides of windows around clicks, in longer sides of the object's box
_CLICKS = 0.4  # share of objects prompted by a click instead of their box
_CORRECTED = 0.4  # share of objects with a corrected mask in the prompt


@dataclass(frozen=True)
class SegmedTuningConfig:
    """The tuned parts.

    Attributes:
        preset: `decoder` (decoder and prompt branch), or `deep` (these and the deep half of the encoder).
    """

    preset: Preset = "deep"

    def __post_init__(self) -> None:
        if self.preset not in get_args(Preset):
            raise ValueError(
                f"The preset {self.preset!r} is unknown. Choose from {', '.join(get_args(Preset))}."
            )


class SegmedTuning(Segmed, TrainableSegmenter):
    """`Segmed` in training: slices in a square, one window around each object.

    Prompts are simulated from the user's labels as in the training of the default model: boxes, clicks at all
    scales, and corrections of masks from the current weights.

    Args:
        network: The default model's network.
        config: The tuned parts.
        version: Version of the weights.
    """

    name: ClassVar[str] = "segmed"
    input_size = _SIDE
    keep_aspect = True
    segments_untrained = True

    def __init__(
        self, network: PromptNetwork, config: SegmedTuningConfig | None = None, version: str = "0"
    ) -> None:
        super().__init__(network, version)
        self.config = config or SegmedTuningConfig()
        # Chosen on MSD hippocampus and LGG, see docs/results.md.
        self.recipe = Recipe(
            {"": 4e-4, "network.encoder.": 1e-4}, weight_decay=0.01, schedule="cosine", epochs=12
        )

    @property
    def image_size(self) -> int:
        return self.look.size

    def spare_memory(self) -> None:
        """Do nothing: the network's activations are small."""

    def trained_names(self) -> list[str]:
        frozen = {id(p) for p in self.network.encoder.early_parameters()}
        if self.config.preset == "decoder":
            frozen = {id(p) for p in self.network.encoder.parameters()}
        return [name for name, p in self.named_parameters() if id(p) not in frozen]

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """Compute the loss in one window per object.

        Args:
            embedding: The slices, S × S px.
            prompts: B lists of K prompts with a box each.
            truth: Masks (B, K, S, S) in [0, 1].
            progress: Not used.

        Raises:
            ValueError: If a prompt has no box.
        """
        items = [(b, n, prompt) for b, row in enumerate(prompts or []) for n, prompt in enumerate(row)]
        if not items or any(prompt.box is None for _, _, prompt in items):
            raise ValueError(
                "The training of segmed needs boxes: give one list of prompts per slice, with a box in "
                "every prompt."
            )
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        wanted = [truth[b, n].float() for b, n, _ in items]
        views = [self._view(b, prompt, mask, rng) for (b, _, prompt), mask in zip(items, wanted, strict=True)]
        views = self._corrected(embedding, views, wanted, rng)
        side = self.look.size
        targets = torch.stack(
            [sample(m[None], v.window, side)[0] for m, v in zip(wanted, views, strict=True)]
        )
        masks, quality = self._look(embedding, views)
        lone = torch.tensor([_has_only_a_click(view) for view in views], device=masks.device)
        return step_loss(masks, quality, targets, lone)[0]

    def _view(self, b: int, prompt: SlicePrompt, mask: Tensor, rng: np.random.Generator) -> View:
        """A window around the object's box, or around a click in it."""
        box = torch.tensor(prompt.box, dtype=torch.float32)
        inside = mask.cpu().numpy() > 0.5
        if rng.random() >= _CLICKS or not inside.any():
            return View(b, windows_around(box[None], _between(rng, _BOX_ZOOM))[0], prompt, box)
        click = torch.tensor([click_in(inside, rng)], dtype=torch.float32)
        side = max(float((box[2:] - box[:2] + 1).max()) * _between(rng, _CLICK_ZOOM), 24.0)
        return View(
            b, squares_around(click, side)[0], SlicePrompt(points=click.numpy(), labels=np.ones(1, np.int64))
        )

    @torch.no_grad()
    def _corrected(
        self, embedding: Embedding, views: list[View], wanted: Sequence[Tensor], rng: np.random.Generator
    ) -> list[View]:
        """Add a previous mask from the current weights and a correcting click or box to some of the views."""
        chosen = [n for n in range(len(views)) if rng.random() < _CORRECTED]
        if not chosen:
            return views
        height, width = embedding.frame.height, embedding.frame.width
        masks, _ = self._chosen(
            *self._look(embedding, [views[n] for n in chosen]), [views[n] for n in chosen]
        )
        out = list(views)
        for n, mask in zip(chosen, masks, strict=True):
            view = views[n]
            x, y, *_ = view.window.tolist()
            step = (view.window[2:] / mask.shape[-1]).tolist()
            probability = mask.sigmoid().cpu().numpy()
            truth = sample(wanted[n][None], view.window, mask.shape[-1])[0].cpu().numpy() > 0.5
            correction = correct(Prompted(), probability, truth, rng) if truth.any() else None
            if correction is None or not correction.points:
                continue
            places = np.array(correction.points, np.float32)
            click = np.stack(
                [x + (places[:, 0] + 0.5) * step[0] - 0.5, y + (places[:, 1] + 0.5) * step[1] - 0.5], 1
            )
            points = np.concatenate([view.prompt.points, click.astype(np.float32)])
            labels = np.concatenate([view.prompt.labels, np.array(correction.labels, np.int64)])
            previous = None
            if correction.previous is not None:
                previous = place(mask[None], [view.window], (height, width), (height, width)).sigmoid()
            out[n] = replace(
                view, prompt=replace(view.prompt, points=points, labels=labels), previous=previous
            )
        return out


def _has_only_a_click(view: View) -> bool:
    return view.box is None and view.previous is None and is_lone_click(view.prompt)


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """A log-uniform draw between the ends."""
    return float(ends[0] * (ends[1] / ends[0]) ** rng.random())


def load_default(source: str, image_size: int | None, dtype: torch.dtype) -> tuple[PromptNetwork, str]:
    """Load the default model's network and the version of its weights.

    Args:
        source: A folder, or `segmed-default` for the weights that come with the app.
        image_size: Not used, because windows have one size.
        dtype: Not used, because the network is too small to gain from half precision.

    Raises:
        FileNotFoundError: If the folder or a file in it is missing.
        ValueError: If the files are damaged or of another architecture.
    """
    network = load_network(local_source(source))
    return network, network_version(network)


def _untrained(network: Any, version: str) -> Segmed:
    return Segmed(network, f"segmed-{version}")


def _served(tuned: SegmedTuning) -> Segmed:
    return Segmed(tuned.network, tuned.version)


PARTS = Parts(_untrained, load_default, Training(SegmedTuning, SegmedTuningConfig, _served))
