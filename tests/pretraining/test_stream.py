"""Training samples: windows around prompts, replayable."""

from __future__ import annotations

import pytest
import torch
from segmed.pretraining.backbone.stream import StreamConfig, prompted, training_batch
from segmed.sam.window import MARK
from segmed.simulation.prompts import PromptConfig, tight_boxes
from torch import Tensor

CONFIG = StreamConfig(batch=13, size=48, drawn=64, objects=3)


def _square(count: int) -> tuple[Tensor, Tensor]:
    truth = torch.zeros(count, 64, 64, dtype=torch.bool)
    truth[:, 20:28, 40:52] = True
    return truth[:, None].float().expand(-1, 3, -1, -1), truth


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_batches_are_full_and_replayable() -> None:
    batch = training_batch(CONFIG, 4)
    assert batch.images.shape == (13, 3, 48, 48)
    assert batch.truth.shape == (13, 48, 48)
    assert batch.boxed == round(13 * CONFIG.box_share)
    assert batch.truth.flatten(1).any(1).all()
    assert batch.images.max() <= 1
    assert (batch.images < 0).any()
    training_batch(CONFIG, 100)
    again = training_batch(CONFIG, 4)
    assert torch.equal(batch.images, again.images)
    assert torch.equal(batch.truth, again.truth)
    assert torch.equal(batch.boxes, again.boxes)
    # the next step shares its pictures but shows them otherwise
    assert not torch.equal(batch.images, training_batch(CONFIG, 5).images)


def test_windows_move_picture_object_and_prompt_together() -> None:
    config = StreamConfig(
        batch=50,
        size=48,
        drawn=64,
        window_share=1.0,
        box_share=0.5,
        prompts=PromptConfig(box_inward=0, box_outward=0),
    )
    batch = prompted(*_square(50), config, _generator())
    painted = batch.images[:, 0] == MARK
    assert torch.equal((batch.images[:, 0] > 0.5) & ~painted, batch.truth & ~painted)
    # the square fills its box, and the box the window's middle by the zoom
    found = tight_boxes(batch.truth[:25])
    assert (found - batch.boxes[:25]).abs().max() < 1.5
    share = (batch.boxes[:25, 2] - batch.boxes[:25, 0] + 1) / 48
    assert share.min() > 1 / config.box_zoom[1] - 0.05
    assert share.max() < 1 / config.box_zoom[0] + 0.05
    assert (painted[:25].flatten(1).any(1)).all()
    # a click is drawn as a dot
    assert (painted[25:].flatten(1).sum(1) <= 16).all()
    clicks = batch.clicks[25:].round().long()
    assert batch.truth[range(25, 50), clicks[:, 1], clicks[:, 0]].float().mean() > 0.95
    assert (batch.clicks[25:] - 23.5).abs().max() < 1e-3


def test_without_windows_the_picture_is_only_resampled() -> None:
    truth = torch.zeros(3, 64, 64, dtype=torch.bool)
    truth[:, 16:48, 8:24] = True
    config = StreamConfig(batch=3, size=32, drawn=64, window_share=0.0, box_share=1.0)
    batch = prompted(truth[:, None].float().expand(-1, 3, -1, -1), truth, config, _generator())
    assert tight_boxes(batch.truth).tolist() == [[4, 8, 11, 23]] * 3
    assert not (batch.images == MARK).any()


def test_an_object_smaller_than_a_pixel_survives() -> None:
    truth = torch.zeros(2, 64, 64, dtype=torch.bool)
    truth[:, 30, 31] = True
    config = StreamConfig(batch=2, size=16, drawn=64, window_share=0.0)
    batch = prompted(torch.rand(2, 3, 64, 64), truth, config, _generator())
    assert batch.truth.flatten(1).any(1).all()


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"reuse": 0}, {"window_share": 2.0}, {"box_zoom": (0.5, 2.0)}, {"click_zoom": (3.0, 2.0)}],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        StreamConfig(**wrong)  # type: ignore[arg-type]
