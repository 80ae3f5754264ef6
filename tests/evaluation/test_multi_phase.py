"""Phases, clicks and who chooses the mask: with a method whose masks are known beforehand."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from segmed.evaluation.multi_phase import (
    MultiPhaseConfig,
    PhaseCase,
    PhaseScore,
    multi_phase_scores,
    multi_phase_table,
    resized,
    sample_points,
)
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from torch import Tensor

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "multi_phase.py"


class Told(Segmenter):
    """Knows the phase by its grey value, and gives three masks: nothing, the left part, everything.

    How far left depends on the phase; it trusts the last one most.
    """

    keeps_slices = True

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.prompts: list[SlicePrompt] = []

    def encode(self, images: Tensor) -> Embedding:
        self.sizes.append(images.shape[-1])
        return Embedding(images, Frame(images.shape[2], images.shape[3], images.shape[3]))

    def decode(self, embedding: Embedding, prompts: Any, size: tuple[int, int]) -> Logits:
        raise AssertionError("all masks are wanted")

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        self.prompts += prompts
        grey = round(float(embedding.features.mean()) * 255)
        masks = torch.full((3, *size), -20.0)
        masks[1, :, :grey] = {20: 1.0, 30: 3.0}[grey]
        masks[2] = 4.0
        return Logits(masks[None], torch.tensor([[0.1, 0.2, 0.9]]))


@pytest.fixture
def case() -> PhaseCase:
    """50 × 40 px, the object in the 25 left columns; two phases that are found to columns 20 and 30."""
    truth = np.zeros((50, 40), bool)
    truth[:, :25] = True
    return PhaseCase(
        "a", {n: np.full((50, 40), grey, np.uint8) for n, grey in (("NC", 20), ("ART", 30))}, truth
    )


def _dice(scores: list[PhaseScore], **wanted: Any) -> list[float]:
    return [
        s.overlap.dice() for s in scores if all(getattr(s, key) == value for key, value in wanted.items())
    ]


def test_phases_are_put_together_after_the_choice(case: PhaseCase) -> None:
    method = Told()
    told: list[tuple[int, int]] = []
    config = MultiPhaseConfig((1, 5), (64, 32))
    scores = multi_phase_scores(method, [case], config, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert method.sizes == [64, 64, 32, 32]  # each phase once per resolution
    for points in (1, 5):
        for resolution in (64, 32):
            at = {"points": points, "resolution": resolution}
            # the truth takes the middle mask of each phase: 20 and 30 columns out of 25
            single = [_dice(scores, choice="oracle", phase=phase, **at) for phase in ("NC", "ART")]
            assert single == [[pytest.approx(2 * 20 / 45)], [pytest.approx(2 * 25 / 55)]]
            # union is the wider one
            assert _dice(scores, choice="oracle", combination="max", **at) == [pytest.approx(2 * 25 / 55)]
            # mean of 0 and σ(3) between columns 20 and 30 is below a half
            assert _dice(scores, choice="oracle", combination="avg", **at) == [pytest.approx(2 * 20 / 45)]
            # it trusts the mask of everything
            for how in ("avg", "max"):
                found = _dice(scores, choice="predicted IoU", combination=how, **at)
                assert found == [pytest.approx(2 * 25 / 65)]
    assert len(scores) == 2 * 2 * 2 * 4


def test_clicks_are_the_same_in_all_phases_and_lie_on_the_object(case: PhaseCase) -> None:
    method = Told()
    multi_phase_scores(method, [case], MultiPhaseConfig((1, 20), (50, 100), seed=4))
    first, second = method.prompts[:4], method.prompts[4:]
    assert [len(p.labels) for p in first] == [1, 20, 1, 20]
    assert all((p.labels == 1).all() for p in method.prompts)
    assert (first[1].points == first[3].points).all()
    assert (first[0].points == first[1].points[:1]).all()
    for prompts, side in ((first, 50), (second, 100)):
        columns = (prompts[1].points[:, 0] + 0.5) * 40 / side - 0.5
        assert np.allclose(columns, columns.round(), atol=1e-4)
        assert (columns < 25).all()
    rows = [(p[1].points[:, 1] + 0.5) * 50 / side - 0.5 for p, side in ((first, 50), (second, 100))]
    assert np.allclose(*rows, atol=1e-4)


def test_points_are_drawn_without_return_and_the_same_each_time() -> None:
    truth = np.zeros((30, 40), bool)
    truth[3:5, 7:11] = True
    points = sample_points(truth, 5, 0)
    assert points.shape == (5, 2)
    assert len({tuple(p) for p in points}) == 5
    assert all(truth[int(y), int(x)] for x, y in points)
    assert (sample_points(truth, 3, 0) == points[:3]).all()
    assert (sample_points(truth, 5, 1) != points).any()
    assert len(sample_points(truth, 20, 0)) == 8  # no more than there are


def test_resizing_moves_points_with_the_pixels() -> None:
    image = np.zeros((60, 40), np.uint8)
    image[42:45, 12:16] = 240
    for side in (30, 128):
        small, points = resized(image, np.array([[13.5, 43.0]], np.float32), side)
        assert small.shape == (side, side)
        weights = small.astype(float)
        y, x = (np.arange(side) @ weights.sum(axis) / weights.sum() for axis in (1, 0))
        assert points[0] == pytest.approx([x, y], abs=0.1)


def test_the_table_tells_upper_bounds_from_scores(case: PhaseCase) -> None:
    table = multi_phase_table(multi_phase_scores(Told(), [case, case], MultiPhaseConfig((1, 5), (32,))))
    header, _, *rows = table.splitlines()
    assert header.count("Oracle Dice (upper bound)") == 3
    assert header.count("predicted IoU") == 3
    single = (2 * 20 / 45 + 2 * 25 / 55) / 2
    assert rows[0].startswith(
        f"| 1 | 32 | {2 * 20 / 45:.4f} | {2 * 25 / 55:.4f} | {single:.4f} | {2 * 25 / 65:.4f}"
    )
    assert len(rows) == 2


def test_unusable_cases_are_named(case: PhaseCase) -> None:
    with pytest.raises(ValueError, match="'ART' lies on another grid"):
        PhaseCase("b", {"ART": np.zeros((3, 3), np.uint8)}, case.truth)
    with pytest.raises(ValueError, match="no phase or no object"):
        PhaseCase("b", case.phases, np.zeros((50, 40), bool))
    with pytest.raises(ValueError, match="at least"):
        MultiPhaseConfig(points=())


# --- the script ---


def test_drawn_phases_show_one_lesion_with_another_contrast_each() -> None:
    drawn = next(runpy.run_path(str(SCRIPT))["drawn"](1))
    assert [*drawn.phases] == ["NC", "ART", "PV", "DE"]
    grey = [float(image[drawn.truth].mean()) for image in drawn.phases.values()]
    assert grey[1] > max(grey[0], grey[2], grey[3]) + 30  # bright in the arterial phase, then washed out
    again = next(runpy.run_path(str(SCRIPT))["drawn"](1))
    assert all((again.phases[name] == drawn.phases[name]).all() for name in drawn.phases)
    method = Loader().get("segmed", BackboneConfig())
    scores = multi_phase_scores(method, [drawn], MultiPhaseConfig((5,), (256,)))
    assert _dice(scores, choice="oracle", combination="avg")[0] > 0.7


def test_cases_are_read_from_folders(tmp_path: Path) -> None:
    stored = runpy.run_path(str(SCRIPT))["stored"]
    labels = np.zeros((20, 16, 3), np.uint8)
    labels[4:9, 3:6, 1] = 2
    image = np.random.default_rng(0).normal(50, 20, labels.shape).astype(np.float32)
    (tmp_path / "case").mkdir()
    for name, array in (("ART", image), ("NC", image + labels * 20), ("label", labels)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "case" / f"{name}.nii.gz")
    (case,) = stored(tmp_path, 2, "auto")
    assert case.name == "case"
    assert sorted(case.phases) == ["ART", "NC"]
    assert case.truth.shape == case.phases["NC"].shape == (16, 20)
    assert (case.truth == (labels[:, :, 1].T == 2)).all()
    nib.save(nib.Nifti1Image(image, np.diag([2.0, 1, 1, 1])), tmp_path / "case" / "PV.nii.gz")
    with pytest.raises(ValueError, match=r"'PV' of case lies on another grid"):
        next(stored(tmp_path, 2, "auto"))
    (tmp_path / "case" / "label.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs label\.nii\.gz"):
        next(stored(tmp_path, 2, "auto"))
