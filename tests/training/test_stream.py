"""Training samples: windows around objects, replayable."""

from __future__ import annotations

import pytest
import torch
from segmed.training.prompts import tight_boxes
from segmed.training.stream import StreamConfig, training_batch, zoomed

CONFIG = StreamConfig(batch=13, size=48, drawn=64, objects=3)


def test_batches_are_full_and_replayable() -> None:
    images, truth = training_batch(CONFIG, 5)
    assert images.shape == (13, 3, 48, 48)
    assert truth.shape == (13, 48, 48)
    assert truth.flatten(1).any(1).all()
    assert images.min() >= 0
    assert images.max() <= 1
    again = training_batch(CONFIG, 5)
    assert torch.equal(images, again[0])
    assert torch.equal(truth, again[1])
    assert not torch.equal(images, training_batch(CONFIG, 6)[0])


def test_windows_move_picture_and_object_together() -> None:
    truth = torch.zeros(50, 64, 64, dtype=torch.bool)
    truth[:, 20:28, 40:52] = True
    images = truth[:, None].float().expand(-1, 3, -1, -1)
    config = StreamConfig(batch=50, size=48, drawn=64, zoom_share=1.0)
    shown, mask = zoomed(images, truth, config, torch.Generator().manual_seed(0))
    assert torch.equal(shown[:, 0] > 0.5, mask)
    boxes = tight_boxes(mask)
    sides = boxes[:, 2] - boxes[:, 0] + 1
    assert sides.min() >= 48 * 12 / 64 - 2
    assert sides.max() > 30
    assert (mask.float().mean((1, 2)) > 12 * 8 / 64**2 * 0.8).all()


def test_without_windows_the_picture_is_only_resampled() -> None:
    truth = torch.zeros(3, 64, 64, dtype=torch.bool)
    truth[:, 16:48, 8:24] = True
    config = StreamConfig(batch=3, size=32, drawn=64, zoom_share=0.0)
    _, mask = zoomed(truth[:, None].float().expand(-1, 3, -1, -1), truth, config, torch.Generator().manual_seed(0))
    assert tight_boxes(mask).tolist() == [[4, 8, 11, 23]] * 3


def test_an_object_smaller_than_a_pixel_survives() -> None:
    truth = torch.zeros(2, 64, 64, dtype=torch.bool)
    truth[:, 30, 31] = True
    config = StreamConfig(batch=2, size=16, drawn=64, zoom_share=0.0)
    _, mask = zoomed(torch.rand(2, 3, 64, 64), truth, config, torch.Generator().manual_seed(0))
    assert mask.flatten(1).any(1).all()


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"zoom_share": 2.0}, {"zoom": (0.5, 2.0)}, {"zoom": (3.0, 2.0)}])
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        StreamConfig(**wrong)  # type: ignore[arg-type]
