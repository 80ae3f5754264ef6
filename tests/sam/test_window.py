"""Windows around prompts: where they lie, what they show, and the frame."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from segmed.sam.window import MARK, draw_frames, sampling_grid, squares_around, to_window, windows_around


def test_a_window_has_its_box_in_the_middle() -> None:
    boxes = torch.tensor([[10.0, 20, 49, 39], [0.0, 0, 99, 9], [5.0, 5, 6, 6]])
    windows = windows_around(boxes, 1.5)
    centres = windows[:, :2] + windows[:, 2:] / 2
    assert torch.equal(centres, torch.tensor([[30.0, 30], [50, 5], [6, 6]]))
    # twice as wide as high at most, and never a handful of pixels
    assert windows[:, 2:].tolist() == [[60, 30], [150, 75], [16, 16]]


def test_places_and_pictures_agree() -> None:
    """A single bright pixel is shown where `to_window` says it is."""
    image = torch.zeros(1, 1, 40, 60)
    image[0, 0, 17, 33] = 1
    windows = torch.tensor([[20.0, 10, 24, 16]])
    shown = F.grid_sample(image, sampling_grid(windows, 40, 60, 96), align_corners=False)[0, 0]
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    centre = torch.stack([(shown * x).sum(), (shown * y).sum()]) / shown.sum()
    assert torch.allclose(centre, to_window(torch.tensor([[33.0, 17]]), windows, 96)[0], atol=0.05)


def test_a_square_around_a_click_centres_it() -> None:
    window = squares_around(torch.tensor([[7.0, 9]]), 20.0)
    assert window.tolist() == [[-2.5, -0.5, 20, 20]]
    assert torch.allclose(to_window(torch.tensor([[7.0, 9]]), window, 96), torch.tensor([[47.5, 47.5]]))


def test_a_frame_surrounds_its_box_and_hides_nothing_of_it() -> None:
    images = torch.rand(2, 3, 32, 32)
    boxes = torch.tensor([[8.0, 10, 20, 15], [torch.nan] * 4])
    framed = draw_frames(images, boxes)
    marked = framed[0, 0] == MARK
    assert not marked[10:16, 8:21].any()
    assert marked[9, 7:22].all()
    assert marked[16, 7:22].all()
    assert marked[9:17, 7].all()
    assert marked[9:17, 21].all()
    assert not marked[:8].any()
    assert torch.equal(framed[1], images[1])
    assert torch.equal(framed[0][:, ~marked], images[0][:, ~marked])


@pytest.mark.parametrize("zoom", [1.2, 3.0])
def test_zooms_may_differ_per_box(zoom: float) -> None:
    boxes = torch.tensor([[10.0, 10, 29, 29]] * 2)
    assert windows_around(boxes, torch.tensor([zoom, 2.0]))[:, 2].tolist() == pytest.approx([20 * zoom, 40.0])
