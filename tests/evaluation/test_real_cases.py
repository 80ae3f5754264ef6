"""Real labelled images, where a folder of them lies beside the checkout."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.evaluation.cases import load_cases
from segmed.evaluation.metrics import Overlap
from segmed.methods.classical import Classical

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.mark.skipif(
    not (CASES / "index.json").is_file(), reason="no folder ../shared/cases beside the checkout"
)
@torch.inference_mode()
def test_boxed_labels_of_every_case() -> None:
    """The fallback finds every label's object inside its box, and is better than the box itself."""
    method = Classical()
    dice: dict[str, list[float]] = defaultdict(list)
    boxes: dict[str, list[float]] = defaultdict(list)
    names = set()
    for case in load_cases(CASES):
        names.add(case.name)
        for item in case.objects(min_area=30, max_slices=1):
            logits = method.decode(
                method.embed([case.picture.slice(item.k)]), [[item.prompt]], item.mask.shape
            )
            found = (logits.masks[0, 0] > 0).numpy()
            x0, y0, x1, y1 = (int(v) for v in item.box)
            inside = np.zeros_like(item.mask)
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
            assert found.any(), case.name
            assert not (found & ~inside).any(), case.name
            dice[case.modality].append(Overlap.of(found, item.mask).dice())
            boxes[case.modality].append(Overlap.of(inside, item.mask).dice())
    assert len(names) >= 50
    means = {modality: float(np.mean(values)) for modality, values in dice.items()}
    print({modality: round(value, 3) for modality, value in means.items()})
    for modality in ("ct", "mr", "lm"):
        assert means[modality] > float(np.mean(boxes[modality])) + 0.05, modality
    assert means["ct"] > 0.7
    assert means["mr"] > 0.75
    assert means["lm"] > 0.85
