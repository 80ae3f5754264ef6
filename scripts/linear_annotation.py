#!/usr/bin/env python
"""Strategies of active learning with a linear model on a pretrained encoder: many seeds in minutes.

    python scripts/linear_annotation.py --dataset msd --root HIPPOCAMPUS --slices 12 --out runs/msd.jsonl
    python scripts/linear_annotation.py --dataset lgg --root LGG --slices 12 --out runs/lgg.jsonl
    python scripts/linear_annotation.py --report --out runs/msd.jsonl --plot curve.png

`simulate_annotation.py` trains a network for each round, which takes hours for a grid. Here the encoder,
EfficientNet-Lite0 with ImageNet weights, is frozen and encodes each slice once; pixels of a 24 × 24 grid are
classified by ridge regression on random features of them (Rahimi and Recht, Random Features for Large-Scale
Kernel Machines, NIPS 2007), whose solution is exact. The strategies, the clusters, the measures of
uncertainty, the archive, the simulated annotator and the report are those of the program. What differs: no
gate, no replay, no epochs. The question that is left is which images are worth a label.

`bald` is the disagreement of four heads on resampled labels, `tta` that with the mirrored slice. `jitter` and
`hybrid` score boxes around what was found, cut from the label map as models with classes do.
`predicted_iou` is left out: such models do not predict it, and the program chooses at random then. `hybrid
by entropy` ranks by the entropy of the classes within the clusters. A line of the file is one round; what is
there is not run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from segmed.active.scoring.proposals import box_of, class_objects
from segmed.active.scoring.strategies import CandidatePool, rank
from segmed.active.scoring.uncertainty import bald, predictive_entropy, prompt_disagreement, vote_entropy
from segmed.data.augment import MEAN
from segmed.methods.imagenet_encoders import LITE_EPSILON, library, pretrained_state, published_name
from segmed.simulation.slice_annotator import jittered
from simulate_annotation import read, write
from simulation import curves
from simulation.annotator import effort
from simulation.archive import Archive, Case, from_dataset
from simulation.loops import dice_of
from simulation.options import parser_of

ENCODER = "efficientnet-lite0"
SIDE, GRID = 96, 24  # px of the input, and of the grid that is classified
HIDDEN = 600  # random features of a pixel
RIDGE, SHARPNESS, HEADS = 10.0, 6.0, 4
BY_ENTROPY = "hybrid by entropy"
STRATEGIES = ("random", "sequential", "entropy", "bald", "tta", "jitter", "core_set", "typicality", "hybrid")


Sums = tuple[np.ndarray, np.ndarray]


class Encoder:
    """The frozen encoder."""

    def __init__(self) -> None:
        network = library().encoders.get_encoder(published_name(ENCODER), 3, weights=None)
        network.load_state_dict(pretrained_state(ENCODER, 3))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = LITE_EPSILON
        self._network = network.eval()
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, GRID),) * 2, indexing="ij")
        self._place = torch.stack([x, y, x**2, y**2])[None]

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, GRID², D) of pixels, and descriptors (N, 640) of slices."""
        batch = []
        for image in images:
            colour = image if image.ndim == 3 else np.repeat(image[..., None], len(MEAN), -1)
            batch.append(cv2.resize(colour, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
        maps = self._network(pixels)
        size = (GRID, GRID)
        parts = [F.adaptive_avg_pool2d(m, size) if m.shape[-1] > GRID else m for m in maps[:-1]]
        parts = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in parts]
        stacked = torch.cat([*parts, self._place.expand(len(batch), -1, -1, -1)], 1)
        last = maps[-1].flatten(2)
        return (
            stacked.flatten(2).transpose(1, 2).contiguous().numpy(),
            torch.cat([last.mean(2), last.amax(2)], 1).numpy(),
        )


class Learner:
    """Ridge regression on the grid, with the sums of each slice computed once.

    Args:
        archive: Slices; the labels of the pool are only used once they are handed in.
        encoder: Frozen encoder.
    """

    def __init__(self, archive: Archive, encoder: Encoder) -> None:
        self.archive, self.classes = archive, [0, *archive.classes]
        self._encoder = encoder
        pool, self.descriptors = _encoded(encoder, [case.image for case in archive.pool])
        test, _ = _encoded(encoder, [case.image for case in archive.test])
        sample = pool[:, :: GRID // 2].reshape(-1, pool.shape[-1])
        self._mean, self._sd = sample.mean(0), sample.std(0) + 1e-3
        rng = np.random.default_rng(0)
        self._hidden = rng.normal(0, pool.shape[-1] ** -0.5, (pool.shape[-1], HIDDEN)).astype(np.float32)
        self._offsets = rng.uniform(-0.5, 0.5, HIDDEN).astype(np.float32)
        self.pool, self.test = self._scaled(pool), self._scaled(test)
        self._sums = [self._sum(n, case) for n, case in enumerate(archive.pool)]

    @cached_property
    def mirrored(self) -> np.ndarray:
        """Random features of the mirrored slices of the pool."""
        turned = [np.ascontiguousarray(case.image[:, ::-1]) for case in self.archive.pool]
        return self._scaled(_encoded(self._encoder, turned)[0])

    def fit(self, labelled: Sequence[int]) -> np.ndarray:
        """Weights (HIDDEN + 1, C) of the labelled slices of the pool; repeated ones count repeatedly."""
        # structures are rare: their pixels weigh more, the more so the rarer they are
        shown = sum(self._sums[n][0] for n in labelled)
        weight = max((GRID**2 * len(labelled) - shown) / max(shown, 1), 1) ** 0.5
        gram, target = RIDGE * np.eye(HIDDEN + 1), np.zeros((HIDDEN + 1, len(self.classes)))
        for n in labelled:
            (there, of_there), (beside, of_beside) = self._sums[n][1:]
            gram += weight * there + beside
            target += weight * of_there + of_beside
        return np.asarray(np.linalg.solve(gram, target))

    def probabilities(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Probabilities (C, GRID, GRID) of a slice with random features (GRID², HIDDEN + 1)."""
        scores = SHARPNESS * (features @ weights.astype(np.float32))
        odds = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray((odds / odds.sum(1, keepdims=True)).T.reshape(-1, GRID, GRID))

    def labels(self, features: np.ndarray, weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Label map (H, W)."""
        found = self.probabilities(features, weights).transpose(1, 2, 0)
        larger = cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.array(self.classes, np.uint8)[larger.argmax(2)]

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        """Random features (N, GRID², HIDDEN + 1), of which the last one is a constant."""
        out = np.ones((*features.shape[:2], HIDDEN + 1), np.float32)
        for n, pixels in enumerate(features):
            hidden = (pixels - self._mean) / self._sd @ self._hidden + self._offsets
            out[n, :, :-1] = np.maximum(hidden, 0)
        return out

    def _sum(self, n: int, case: Case) -> tuple[int, Sums, Sums]:
        """Number of pixels with a structure, and the sums over these and over all others."""
        shares = np.stack([(case.truth == value).astype(np.float32) for value in self.classes], -1)
        target = cv2.resize(shares, (GRID, GRID), interpolation=cv2.INTER_AREA).reshape(GRID**2, -1)
        there = target[:, 0] < 1
        parts = [(self.pool[n][part], target[part]) for part in (there, ~there)]
        shown, beside = ((x.T @ x, x.T @ y) for x, y in parts)
        return int(there.sum()), shown, beside


def _encoded(encoder: Encoder, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    parts = [encoder(images[n : n + 16]) for n in range(0, len(images), 16)]
    return np.concatenate([p for p, _ in parts]), np.concatenate([d for _, d in parts])


def scores_of(
    learner: Learner, strategy: str, labelled: Sequence[int], seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores (N,) of the pool by quantity as the strategy needs them, and the weights of the model."""
    weights, rng = learner.fit(labelled), np.random.default_rng(seed)
    found = {name: np.full(len(learner.pool), np.nan) for name in ("entropy", "bald", "tta", "jitter")}
    heads = (
        [learner.fit(rng.choice(labelled, len(labelled)).tolist()) for _ in range(HEADS)]
        if strategy == "bald"
        else []
    )
    for n, features in enumerate(learner.pool):
        if strategy in ("entropy", BY_ENTROPY, "jitter", "hybrid", "tta"):
            own = learner.probabilities(features, weights)
            found["entropy"][n] = predictive_entropy(own)
        if strategy == "bald":
            found["bald"][n] = bald(np.stack([learner.probabilities(features, one) for one in heads]))
        elif strategy == "tta":
            other = learner.probabilities(learner.mirrored[n], weights)[:, :, ::-1].argmax(0)
            votes = [[m == c for m in (own.argmax(0), other)] for c in range(1, len(own))]
            found["tta"][n] = np.mean([vote_entropy(np.array(v)) for v in votes])
        elif strategy in ("jitter", "hybrid"):
            found["jitter"][n] = _jitter(own, rng)
    if strategy == BY_ENTROPY:
        found["jitter"] = found["entropy"]
    return found, weights


def _jitter(probabilities: np.ndarray, rng: np.random.Generator) -> float:
    """Disagreement of the masks of jittered boxes, cut from the label map; NaN where nothing is found."""
    found, values = probabilities.argmax(0), []
    for part in class_objects(found, 3):
        box, masks = box_of(part, (GRID, GRID)), []
        for corners in (box, *(jittered(box, 0.1, (GRID, GRID), rng) for _ in range(3))):
            x0, y0, x1, y1 = (round(v) for v in corners)
            inside = np.zeros_like(part)
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
            masks.append(inside & (found == found[part][0]))
        values.append(prompt_disagreement(np.array(masks)))
    return float(np.mean(values)) if values else float("nan")


def play(learner: Learner, strategy: str, seed: int, batch: int, rounds: int) -> Iterator[dict[str, Any]]:
    """One row per round, as `simulate_annotation.rounds` has them."""
    pool, test = learner.archive.pool, learner.archive.test
    full = strategy == curves.FULL
    labelled: list[int] = []
    clicks, minutes = 0, 0.0
    weights: np.ndarray | None = None
    for n in range(1 if full else rounds):
        if full:
            chosen = list(range(len(pool)))
        elif not n:
            chosen = np.random.default_rng([seed, 7]).permutation(len(pool))[:batch].tolist()
        else:
            scores, _ = scores_of(learner, strategy, labelled, seed)
            there = np.isin(np.arange(len(pool)), labelled)
            candidates = CandidatePool(
                [str(m) for m in range(len(pool))], ~there, scores, learner.descriptors
            )
            name = "hybrid" if strategy == BY_ENTROPY else strategy
            chosen = [int(m) for m in rank(name, candidates, batch, seed * 1000 + n, there)]
        for m in chosen:
            case = pool[m]
            proposal = None if weights is None else learner.labels(learner.pool[m], weights, case.truth.shape)
            took = effort(proposal, case.truth, learner.archive.classes)
            clicks, minutes = clicks + took.clicks, minutes + took.seconds / 60
        labelled += chosen
        weights = learner.fit(labelled)
        found = [learner.labels(f, weights, c.truth.shape) for f, c in zip(learner.test, test, strict=True)]
        dice = dice_of(found, test, learner.archive.classes)
        picked = dict(Counter(pool[m].kind for m in chosen))
        row = {"strategy": strategy, "seed": seed, "round": n, "labels": len(labelled), "clicks": clicks}
        yield row | {"minutes": round(minutes, 2), "dice": round(dice["dice"], 5), "picked": picked}


def main() -> None:
    """Run what the file does not hold yet, or report on it."""
    parser = parser_of(__doc__, dataset="msd", slices=12, rounds=7)
    parser.add_argument("--strategies", default=",".join((curves.FULL, *STRATEGIES, BY_ENTROPY)))
    a = parser.parse_args()
    if not a.report:
        encoder = Encoder()
        for seed in (int(s) for s in a.seeds.split(",")):
            there = {(r["strategy"], r["seed"]) for r in read(a.out)}
            missing = [name for name in a.strategies.split(",") if (name, seed) not in there]
            if not missing:
                continue
            learner = Learner(from_dataset(a.dataset, a.root, seed, a.patients, a.slices, a.tested), encoder)
            for name in missing:
                for row in list(play(learner, name, seed, a.batch, a.rounds)):
                    write(a.out, row)
        return
    rows = read(a.out)
    if a.plot:
        seeds = len(curves.matrix(rows, curves.RANDOM, "dice"))
        curves.plot(rows, a.plot, f"{a.dataset}, linear model, {seeds} seeds")
    print("\n".join([curves.table(rows), "", *curves.picked(rows)]))


if __name__ == "__main__":
    main()
