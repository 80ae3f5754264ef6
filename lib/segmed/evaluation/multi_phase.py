"""Evaluation of one object in several registered phases, such as before and after contrast.

Source: Hu et al., When SAM Meets Medical Images: An Investigation of Segment Anything Model (SAM) on
Multi-phase Liver Tumor Segmentation (2023). Clicks are drawn from the truth. Of a method's several masks for
them, one is chosen either by the truth (an oracle, which is an upper bound) or by the predicted IoU; both are
reported separately.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch

from segmed.evaluation.metrics import Overlap
from segmed.evaluation.oracle import ORACLE_TITLE
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Segmenter

Choice = Literal["oracle", "predicted IoU"]
Combination = Literal["avg", "max", "single"]
CHOICES: tuple[Choice, ...] = ("oracle", "predicted IoU")
COMBINATIONS: tuple[Combination, ...] = ("avg", "max", "single")


@dataclass(frozen=True)
class PhaseCase:
    """One slice of one patient.

    Attributes:
        name: Name of the case.
        phases: Images (H, W) or (H, W, 3), uint8, by phase, on one grid.
        truth: True mask of the object (H, W), boolean and not empty.
    """

    name: str
    phases: Mapping[str, np.ndarray]
    truth: np.ndarray

    def __post_init__(self) -> None:
        odd = [name for name, image in self.phases.items() if image.shape[:2] != self.truth.shape]
        if odd or not self.phases or not self.truth.any():
            why = f"the phase {odd[0]!r} lies on another grid" if odd else "there is no phase or no object"
            raise ValueError(
                f"The case {self.name!r} cannot be used: {why}. Register the phases to the labels."
            )


@dataclass(frozen=True)
class MultiPhaseConfig:
    """The compared settings.

    Attributes:
        points: Numbers of clicks, limited by the number of pixels of the object.
        resolutions: Sides in px to which slices are resized before encoding.
        seed: Seed of the clicks, which are the same for all phases and resolutions.
    """

    points: tuple[int, ...] = (1, 5, 10, 20)
    resolutions: tuple[int, ...] = (224, 512, 1024)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.points or min(self.points) < 1 or not self.resolutions or min(self.resolutions) < 16:
            raise ValueError(
                f"points is {self.points}, which must be 1 or more, and resolutions is {self.resolutions}, "
                "which must be 16 px or more. Give at least one of each."
            )


@dataclass(frozen=True)
class PhaseScore:
    """The score of one mask.

    Attributes:
        case: Name of the case.
        points: Number of clicks.
        resolution: Side of the resized slice in px.
        choice: Criterion by which one of the masks of each phase was chosen; `oracle` is an upper bound.
        combination: Mean or maximum of the probabilities of all phases, or a single phase.
        phase: Name of the phase for `single`, else "".
        overlap: Pixel counts against the truth.
    """

    case: str
    points: int
    resolution: int
    choice: Choice
    combination: Combination
    phase: str
    overlap: Overlap


def multi_phase_scores(
    segmenter: Segmenter,
    cases: Sequence[PhaseCase],
    config: MultiPhaseConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PhaseScore]:
    """Prompt every phase of every case; each phase is encoded once per resolution.

    Args:
        segmenter: A method that takes clicks.
        cases: Slices with their phases.
        config: The compared settings.
        progress: Function called after each case and resolution with the number done and in total.
    """
    config = config or MultiPhaseConfig()
    scores: list[PhaseScore] = []
    done, total = 0, len(cases) * len(config.resolutions)
    for case in cases:
        clicks = sample_points(case.truth, max(config.points), config.seed)
        for resolution in config.resolutions:
            chosen = _probabilities(segmenter, case, clicks, resolution, config.points)
            for (count, choice), maps in chosen.items():
                stack = np.stack([*maps.values()])
                combined: list[tuple[Combination, str, np.ndarray]] = [
                    ("avg", "", stack.mean(0)),
                    ("max", "", stack.max(0)),
                    *(("single", phase, one) for phase, one in maps.items()),
                ]
                scores += [
                    PhaseScore(
                        case.name, count, resolution, choice, how, phase, Overlap.of(one > 0.5, case.truth)
                    )
                    for how, phase, one in combined
                ]
            done += 1
            if progress:
                progress(done, total)
    return scores


def sample_points(truth: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` pixels of an object, or all, uniformly and without repetition: (N, 2) as (x, y).

    The same seed draws them in the same order, so that a smaller sample is the beginning of a larger one.
    """
    y, x = np.nonzero(truth)
    order = np.random.default_rng(seed).permutation(len(x))[:count]
    return np.stack([x[order], y[order]], -1).astype(np.float32)


def resized(image: np.ndarray, points: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Stretch a slice (H, W) or (H, W, 3) to a square, together with points (N, 2)."""
    height, width = image.shape[:2]
    how = cv2.INTER_AREA if side < max(height, width) else cv2.INTER_CUBIC
    scale = np.array([side / width, side / height], np.float32)
    return np.asarray(cv2.resize(image, (side, side), interpolation=how)), (points + 0.5) * scale - 0.5


def multi_phase_table(scores: Sequence[PhaseScore]) -> str:
    """Markdown table of the mean Dice over cases (and phases for `single`) by clicks and resolution."""
    dice: dict[tuple[int, int, Choice, Combination], list[float]] = defaultdict(list)
    for s in scores:
        dice[s.points, s.resolution, s.choice, s.combination].append(s.overlap.dice())
    titles = {"oracle": ORACLE_TITLE, "predicted IoU": "Dice, mask of the highest predicted IoU"}
    columns = [(choice, how) for choice in CHOICES for how in COMBINATIONS]
    lines = [
        f"| points | resolution | {' | '.join(f'{titles[choice]}, {how}' for choice, how in columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for points, resolution in sorted({(s.points, s.resolution) for s in scores}):
        means = [float(np.mean(dice[points, resolution, choice, how])) for choice, how in columns]
        lines.append(f"| {points} | {resolution} | {' | '.join(f'{m:.4f}' for m in means)} |")
    return "\n".join(lines)


@torch.inference_mode()
def _probabilities(
    segmenter: Segmenter, case: PhaseCase, clicks: np.ndarray, resolution: int, counts: Sequence[int]
) -> dict[tuple[int, Choice], dict[str, np.ndarray]]:
    """The chosen probability (H, W) of each phase, by number of clicks and criterion of choice."""
    height, width = case.truth.shape
    chosen: dict[tuple[int, Choice], dict[str, np.ndarray]] = defaultdict(dict)
    for phase, image in case.phases.items():
        small, points = resized(image, clicks, resolution)
        embedding = segmenter.embed([small])
        for count in counts:
            prompt = SlicePrompt(points=points[:count], labels=np.ones(len(points[:count]), np.int64))
            candidates = segmenter.candidates(embedding, [prompt], (height, width))
            maps = candidates.masks[0].float().sigmoid().cpu().numpy()
            dice = [Overlap.of(one > 0.5, case.truth).dice() for one in maps]
            chosen[count, "oracle"][phase] = maps[int(np.argmax(dice))]
            trusted = 0 if candidates.quality is None else int(candidates.quality[0].argmax())
            chosen[count, "predicted IoU"][phase] = maps[trusted]
    return chosen
