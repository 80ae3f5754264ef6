"""The windows of the default model: what they show, cut off, and agree on."""

from __future__ import annotations

import numpy as np
import torch
from segmed.methods.segmed.views import OUTSIDE, compared, expected_dice, found_in, on_slice, place, sample


def test_windows_show_what_lies_there() -> None:
    y, x = np.mgrid[:90, :140]
    image = (40 + 120 * ((x - 60) ** 2 + (y - 40) ** 2 < 15**2)).astype(np.uint8)
    shown = sample(torch.from_numpy(image)[None], torch.tensor([30.0, 10, 64, 64]), 64)
    assert np.allclose(shown[0].numpy(), image[10:74, 30:94], atol=0.01)
    assert on_slice(torch.tensor([30.0, 10, 64, 64]), 90, 140, 64).all()
    over = torch.tensor([-32.0, -32, 64, 64])
    shown, valid = sample(torch.from_numpy(image)[None], over, 64), on_slice(over, 90, 140, 64)
    assert valid.sum() == 32 * 32
    assert np.allclose(shown[0, 32:, 32:].numpy(), image[:32, :32], atol=0.01)


def test_large_windows_are_averaged_not_sampled_and_keep_thin_strokes() -> None:
    board = torch.from_numpy((np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8))[None]
    window = torch.tensor([0.0, 0, 512, 512])
    assert (sample(board, window, 64) - 127.5).abs().max() < 3
    line = torch.zeros(1, 512, 512)
    line[0, 100, :] = 1
    assert sample(line, window, 64, "max")[0, 12].min() > 0.4
    assert sample(line, window, 64)[0].max() < 0.2


def test_what_several_windows_agree_on_is_meant() -> None:
    windows = [torch.tensor([0.0, 0, 64, 64])] * 4
    masks = torch.full((4, 64, 64), -1.0)
    masks[0, 30:34, 30:34] = 1  # a part that is trusted most
    masks[1, 20:44, 20:44] = 1
    masks[2, 19:44, 20:45] = 1
    trust = [0.8, 0.6, 0.5, 0.0]
    placed = compared(masks, windows, (64, 64))
    expected = expected_dice(placed, trust)
    assert int(expected.argmax()) in (1, 2)
    assert expected[3] == 0  # nothing is trusted about it
    assert int(expected_dice(placed, [0.8, 0.1, 0.1, 0.0]).argmax()) == 0


def test_what_a_window_cuts_off_is_counted_but_not_at_the_border_of_the_slice() -> None:
    mask = torch.full((32, 32), -1.0)
    mask[8:24, 0:24] = 1
    assert found_in(mask, torch.tensor([50.0, 50, 32, 32]), 200, 200)[1] == 1  # type: ignore[index]
    box, cut = found_in(mask, torch.tensor([0.0, 50, 32, 32]), 200, 200) or (None, -1)
    assert cut == 0
    assert box is not None
    assert box.tolist() == [0, 58, 23, 73]
    assert found_in(torch.full((32, 32), -1.0), torch.tensor([0.0, 50, 32, 32]), 200, 200) is None


def test_only_windows_that_reach_a_pixel_count_for_it() -> None:
    masks = torch.stack([torch.full((8, 8), 4.0), torch.full((8, 8), -2.0)])
    windows = [torch.tensor([0.0, 0, 20, 20]), torch.tensor([10.0, 0, 20, 20])]
    placed = place(masks, windows, (20, 40), (20, 40))
    assert placed[5, 5] == 4
    assert placed[5, 15] == 1
    assert placed[5, 25] == -2
    assert placed[5, 35] == OUTSIDE
