"""Validation of a method on held-out cases, with the same tight box prompts each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.evaluation.case_scores import CaseScore, case_scores
from segmed.evaluation.whole_scores import WholeScores
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.training.embeddings import FrozenEncoder
from segmed.training.processes import Processes
from segmed.training.targets import class_places

_SHOWN = 8  # largest number of cases for overlays
_PROMPTS = 16  # prompts decoded together


@dataclass(frozen=True)
class ShownCase:
    """The slice of a case with the largest objects.

    Attributes:
        case: Name of the patient.
        image: The slice, (H, W) or (H, W, 3), uint8.
        truth: True label map (H, W), 0 for background.
        found: Predicted label map (H, W), 0 for background.
    """

    case: str
    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class Validated:
    """The results of `validate`.

    Attributes:
        scores: One score per case and label; prompted methods are scored on the labels that a case has,
            others on all.
        shown: The first cases of this process, for overlays.
    """

    scores: tuple[CaseScore, ...]
    shown: tuple[ShownCase, ...]


@torch.no_grad()
def validate(
    method: Segmenter,
    data: SliceDataset,
    prompted: bool,
    batch: int = 4,
    encoder: FrozenEncoder | None = None,
) -> Validated:
    """Score a method, which is in evaluation mode afterwards; processes that train together share the cases.

    Args:
        method: The method, on any device.
        data: Held-out slices, numbered as in `encoder`.
        prompted: Whether each label of a slice is prompted by its tight box; otherwise the whole slice is
            labelled.
        batch: Number of slices encoded together.
        encoder: Encoder with cached embeddings of these slices, or None.

    Raises:
        ValueError: If the method lacks a class of the dataset, or a slice cannot be read.
    """
    method.eval()
    processes = Processes.current()
    mine = set(processes.share(data.patients))
    numbers = [n for n, (volume, _) in enumerate(data.slices) if data.volumes[volume].patient in mine]
    places = None if prompted else class_places(method, data.classes)
    scores = WholeScores(data)
    shown: dict[str, ShownCase] = {}
    for chosen, samples in batches_alike(data, numbers, batch):
        found = found_masks(
            method, _embedding(method, chosen, samples, encoder), samples, data.classes, places
        )
        for number, sample, masks in zip(chosen, samples, found, strict=True):
            scores.add(number, sample, masks)
            best = shown.get(sample.patient)
            area = np.count_nonzero(sample.labels)
            if (best is None and len(shown) < _SHOWN) or (best and area > np.count_nonzero(best.truth)):
                together = np.zeros_like(sample.labels)
                for label, mask in masks.items():
                    together[mask] = label
                # Copies, because views would keep whole volumes in memory.
                shown[sample.patient] = ShownCase(
                    sample.patient, sample.image.copy(), sample.labels.copy(), together
                )
    return Validated(
        tuple(case_scores(processes.gather(scores.finish()), data.classes)), tuple(shown.values())
    )


def batches_alike(
    data: SliceDataset, numbers: Sequence[int], batch: int
) -> Iterator[tuple[list[int], list[LabelledSlice]]]:
    """Group slices into batches of up to `batch` neighbours of one size, with their numbers.

    The next batch is read while the caller works on one.
    """
    batches = _batches_alike(data, numbers, batch)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(next, batches, None)
        while (found := ahead.result()) is not None:
            ahead = reader.submit(next, batches, None)
            yield found


def _batches_alike(
    data: SliceDataset, numbers: Sequence[int], batch: int
) -> Iterator[tuple[list[int], list[LabelledSlice]]]:
    chosen: list[int] = []
    samples: list[LabelledSlice] = []
    for n in numbers:
        sample = data[n]
        if samples and (len(samples) == batch or sample.labels.shape != samples[0].labels.shape):
            yield chosen, samples
            chosen, samples = [], []
        chosen.append(n)
        samples.append(sample)
    if samples:
        yield chosen, samples


def _embedding(
    method: Segmenter, numbers: Sequence[int], samples: Sequence[LabelledSlice], encoder: FrozenEncoder | None
) -> Embedding:
    if encoder is None or not encoder.frozen or method.keeps_slices:
        return method.embed([s.image for s in samples])
    kept = [encoder.kept(n) for n in numbers]
    parts = [method.prepare(s.image)[0] if k is None else k for k, s in zip(kept, samples, strict=True)]
    height, width = samples[0].labels.shape
    frame = Frame(height, width, int(method.input_size or 0), method.keep_aspect)
    return replace(encoder.join(numbers, parts), frame=frame)


def found_masks(
    method: Segmenter,
    embedding: Embedding,
    samples: Sequence[LabelledSlice],
    classes: Mapping[int, str],
    places: np.ndarray | None,
    box: Callable[[np.ndarray], tuple[float, float, float, float]] = slice_box,
    size: tuple[int, int] | None = None,
) -> list[dict[int, np.ndarray]]:
    """Predict masks by label for each slice.

    Args:
        method: The method, in evaluation mode.
        embedding: Features of the slices.
        samples: The slices, all of one size.
        classes: Names of the labels to predict, by value.
        places: Class indices from `class_places`, for methods that label without a prompt; None to prompt
            each label that a slice has.
        box: Function that returns the box prompt around a mask (H, W).
        size: Rows and columns (H, W) of the masks, or None for those of the slices.
    """
    height, width = size or samples[0].labels.shape
    if places is not None:
        maps = method.decode(embedding, None, (height, width)).masks.argmax(1).cpu().numpy()
        return [{label: one == places[label] for label in classes} for one in maps]
    found: list[dict[int, np.ndarray]] = [{} for _ in samples]
    requests = [
        (row, label) for row, s in enumerate(samples) for label in classes if (s.labels == label).any()
    ]
    for start in range(0, len(requests), _PROMPTS):
        part = requests[start : start + _PROMPTS]
        rows = [row for row, _ in part]
        prompts = [[SlicePrompt(box=box(samples[row].labels == label))] for row, label in part]
        repeated = Embedding(
            embedding.features[rows], embedding.frame, tuple(t[rows] for t in embedding.extras)
        )
        masks = (method.decode(repeated, prompts, (height, width)).masks[:, 0] > 0).cpu().numpy()
        for (row, label), mask in zip(part, masks, strict=True):
            found[row][label] = mask
    return found
