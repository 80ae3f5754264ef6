#!/usr/bin/env python
"""Fit the choice among the masks that clicks may mean, and print what it is worth.

    python scripts/fit_click_choice.py MODEL --pack FOLDER

Objects of the labelled images are clicked, at their deepest pixel or anywhere in them, and then twice more on
the largest error of one of the masks. After each click the default model's masks from all windows are
described by numbers (methods/segmed/click_hypotheses.py). A small network learns to give the highest score to
the mask with the highest Dice: it maximises sum over n of softmax(s)_n Dice_n. Objects of held-out sources
are only measured. The result is written beside the weights in MODEL; with `--keep` the described masks are
stored and used again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.data.datasets.training_pack import TrainingPack
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmed.click_choice import ClickChoice, mean_of_present, save_choice
from segmed.methods.segmed.click_hypotheses import FEATURES, Hypotheses, hypotheses_of
from segmed.methods.segmed.network import MASKS
from segmed.methods.segmed.segmenter import Segmed
from segmed.methods.segmed.views import CLICK_SIDES, around_clicks
from segmed.methods.segmed.weights import load_network
from segmed.pretraining.objects import ObjectConfig, ObjectSource, Shown
from segmed.simulation.slice_annotator import deepest, with_click
from train_default import HELD_OUT

# Besides the sources that training has not seen, some that it has, so that more kinds of images are judged
CHOICE_HELD_OUT = (*HELD_OUT, "hvsmr2", "kidney-t2w", "nlm-cxr", "isic")
_LONGEST = 512  # longer side in px of the images
_SMALLEST = 60  # smallest area of an object in px
_DEEPEST = 0.6  # share of clicks at the deepest pixel of the object
_CLICKS = 3  # per object
_HIDDEN, _BATCH, _RATE, _DECAY = 32, 128, 3e-3, 0.1


def clicked(shown: Shown, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, SlicePrompt] | None:
    """The image, the mask (H, W), and a click on the object; None for tiny objects."""
    image: Any = shown.image
    mask: Any = shown.mask
    scale = _LONGEST / max(mask.shape)
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        small = cv2.resize(mask.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_AREA)
        mask = np.asarray(small) > 0.5
    if mask.sum() < _SMALLEST:
        return None
    if rng.random() < _DEEPEST:
        x, y = deepest(mask)
    else:
        rows, columns = np.nonzero(mask)
        n = rng.integers(len(rows))
        x, y = int(columns[n]), int(rows[n])
    return image, mask, SlicePrompt(points=np.array([[x, y]], np.float32), labels=np.array([1], np.int64))


@torch.inference_mode()
def collected(model: Segmed, source: ObjectSource, count: int) -> tuple[Tensor, Tensor]:
    """Features (O, N, F) and Dice (O, N) of the masks after each click on `count` objects or a few less."""
    features, overlaps = [], []
    for n in track(range(count), "Clicking"):
        rng = np.random.default_rng((source.seed, 9, n))
        click = clicked(source.object(n), rng)
        if click is None:
            continue
        image, mask, prompt = click
        embedding = model.embed([image])
        for turn in range(1, _CLICKS + 1):
            views = around_clicks(0, prompt, max(mask.shape))
            found = hypotheses_of(embedding, 0, prompt, views, *model._look(embedding, views))
            told, dice = described(found, mask)
            features.append(told)
            overlaps.append(dice)
            # A mask that might have been shown: good ones more often than bad ones.
            shown = rng.choice(len(found.iou), p=found.agreement**2 / (found.agreement**2).sum())
            size = mask.shape[1], mask.shape[0]
            seen = np.asarray(cv2.resize(found.logits[shown], size, interpolation=cv2.INTER_LINEAR)) > 0
            if turn == _CLICKS or not found.agreement.any() or (seen == mask).all():
                break
            prompt = with_click(prompt, seen, mask)
    return torch.from_numpy(np.stack(features)), torch.from_numpy(np.stack(overlaps)).float()


def described(found: Hypotheses, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and Dice (N,) of masks; N is that of a single click, with empty masks at the end."""
    size = found.grey.shape[1], found.grey.shape[0]
    truth = np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0.5
    masks = found.logits > 0
    both = (masks & truth).sum((1, 2))
    dice = 2 * both / np.maximum(masks.sum((1, 2)) + truth.sum(), 1)
    count = len(CLICK_SIDES) * (MASKS - 1)
    features = np.zeros((count, len(FEATURES)), np.float32)
    features[:, -1] = 1
    features[: len(dice)] = found.features()
    return features, np.pad(dice, (0, count - len(dice)))


def fitted(features: Tensor, overlaps: Tensor, epochs: int, seed: int) -> dict[str, Tensor]:
    """Fit the tensors of a `ClickChoice` by AdamW with a cosine schedule."""
    torch.manual_seed(seed)
    present = features[features[..., -1] == 0]
    mean, deviation = present.mean(0), present.std(0) + 1e-3
    count = len(FEATURES)
    layers = nn.Sequential(nn.Linear(2 * count, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN), nn.Linear(_HIDDEN, 1))
    steps = epochs * max(1, len(features) // _BATCH)
    optimiser = torch.optim.AdamW(layers.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    x = (features - mean) / deviation
    empty = features[..., -1] > 0
    x = torch.cat([x, mean_of_present(x, empty[..., None]).expand_as(x)], -1)
    for _ in range(steps):
        rows = torch.randint(len(x), (_BATCH,))
        scores = layers[2](layers[1](layers[0](x[rows]).relu()).relu())[..., 0]
        loss = -(scores.masked_fill(empty[rows], -1e4).softmax(1) * overlaps[rows]).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    state = {"mean": mean, "deviation": deviation}
    for n, layer in enumerate(layers, 1):
        state |= {f"w{n}": layer.weight.detach(), f"b{n}": layer.bias.detach()}
    return state


def table(features: Tensor, overlaps: Tensor, choice: ClickChoice) -> str:
    """Mean Dice of the mask that each rule takes, after one and after more clicks."""
    rows = torch.arange(len(features))
    rules = {
        "highest predicted IoU": features[..., 0],
        "highest agreement": features[..., 1],
        "trained choice": choice(features),
        "best of all masks": overlaps,
    }
    alone = features[..., FEATURES.index("log of the number of clicks")].amax(1) == 0
    lines = []
    for name, score in rules.items():
        dice = overlaps[rows, score.argmax(1)]
        lines.append(f"| {name} | {dice[alone].mean():.3f} | {dice[~alone].mean():.3f} |")
    return "\n".join(["| choice | 1 click | 2 or 3 clicks |", "|---|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of the default model")
    parser.add_argument("--pack", type=Path, required=True, help="folder of labelled images")
    parser.add_argument("--objects", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to PyTorch")
    parser.add_argument("--keep", type=Path, help="file for the described masks, to fit them again")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.keep and options.keep.exists():
        sets = torch.load(options.keep, weights_only=True)
    else:
        model = Segmed(load_network(options.model))
        real = ObjectConfig(0.0, 0.0, 0.0, hollow_share=0.0)
        unseen = ObjectSource(TrainingPack(options.pack, only=CHOICE_HELD_OUT), real, options.seed + 1)
        seen = ObjectSource(TrainingPack(options.pack, without=CHOICE_HELD_OUT), real, options.seed)
        sets = [*collected(model, unseen, options.objects // 6), *collected(model, seen, options.objects)]
        if options.keep:
            torch.save(sets, options.keep)
    unseen_features, unseen_overlaps, features, overlaps = sets
    state = fitted(features, overlaps, options.epochs, options.seed)
    choice = ClickChoice(state)
    print(f"{len(features)} clicks that it was fitted on\n\n{table(features, overlaps, choice)}\n")
    judged = table(unseen_features, unseen_overlaps, choice)
    print(f"{len(unseen_features)} clicks on other sources\n\n{judged}\n")
    print(save_choice(state, options.model))


if __name__ == "__main__":
    main()
