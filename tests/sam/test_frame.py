"""Scaling between slices and model inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmed.sam.frame import Frame
from transformers import SamImageProcessor


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 700), (701, 97), (1, 9), (1500, 2000)])
def test_round_trip_of_points(height: int, width: int, keep_aspect: bool) -> None:
    frame = Frame(height, width, 1024, keep_aspect)
    points = np.array([[0, 0], [width, height], [width / 3, height / 7]], np.float32)
    assert np.allclose(frame.to_slice(frame.to_model(points)), points, atol=1e-3)


def test_medsam_box_scaling_is_the_published_one() -> None:
    box = np.array([[30.0, 40.0], [200.0, 90.0]])
    scaled = Frame(height=120, width=400, size=1024).to_model(box).reshape(-1)
    assert np.allclose(scaled, np.array([30, 40, 200, 90]) / np.array([400, 120, 400, 120]) * 1024)


@pytest.mark.parametrize(("height", "width"), [(300, 700), (701, 97), (333, 334)])
def test_longest_side_rule_is_that_of_the_sam_processor(height: int, width: int) -> None:
    processor = SamImageProcessor()
    picture = np.zeros((height, width, 3), np.uint8)
    processed = processor(picture, return_tensors="pt")
    assert Frame(height, width, 1024, True).content == tuple(processed["reshaped_input_sizes"][0].tolist())


def test_an_object_keeps_its_place_through_fit_and_restore() -> None:
    picture = torch.zeros(1, 90, 240)
    picture[:, 30:60, 100:180] = 1
    for keep_aspect in (False, True):
        frame = Frame(90, 240, 256, keep_aspect)
        model_input = frame.fit(picture, "bilinear")
        assert model_input.shape == (1, 256, 256)
        back = frame.restore(model_input[None], (90, 240))[0] > 0.5
        overlap = (back & (picture > 0.5)).sum() / (back | (picture > 0.5)).sum()
        assert overlap > 0.97


def test_restore_at_another_size() -> None:
    maps = torch.zeros(1, 1, 64, 64)
    maps[..., 16:32, 32:48] = 1
    out = Frame(100, 200, 256).restore(maps, (400, 800))
    rows, columns = torch.nonzero(out[0, 0] > 0.5, as_tuple=True)
    assert (rows.min(), rows.max()) == (100, 199)
    assert (columns.min(), columns.max()) == (400, 599)


def test_padding_value() -> None:
    fill = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    out = Frame(10, 40, 64, True).fit(torch.zeros(3, 10, 40), "bilinear", fill)
    assert torch.equal(out[:, -1, -1], torch.tensor([1.0, 2.0, 3.0]))
    assert (out[:, :16] == 0).all()
