"""Slices are prepared as the weights ask for, whatever the method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.sam.frame import Frame
from segmed.sam.preparation import LITE_MEDSAM, MEDSAM, PREPARATIONS, SAM, SAM_MED2D
from segmed.sam.sources import declared_preparation
from segmed.sam.weights import load_sam, weights_version
from tiny_sam import save_folder, tiny_sam


def _picture(height: int, width: int, channels: int = 1) -> torch.Tensor:
    return torch.randint(
        20, 200, (channels, height, width), generator=torch.Generator().manual_seed(0)
    ).float()


def test_litemedsam_averages_pads_and_scales_to_the_range_of_the_content() -> None:
    image = _picture(96, 128, 3)
    fitted = LITE_MEDSAM.fit(image, Frame(96, 128, 64, keep_aspect=True))
    small = image.unflatten(2, (64, 2)).unflatten(1, (48, 2)).mean((2, 4)).round()
    wanted = (small - small.min()) / (small.max() - small.min())
    assert torch.allclose(fitted[:, :48], wanted, atol=1e-6)
    assert not fitted[:, 48:].any()
    assert torch.equal(LITE_MEDSAM.normalise(fitted[None])[0], fitted)


@pytest.mark.parametrize(("old", "new"), [(10, 4), (7, 5), (3, 8), (5, 5)])
def test_area_resampling_keeps_the_mean_and_splits_pixels_by_their_share(old: int, new: int) -> None:
    image = _picture(old, old)
    small = Frame(old, old, new).resample(image, "area")
    assert small.shape == (1, new, new)
    assert torch.allclose(small.mean(), image.mean(), atol=1e-3)
    fine = image.repeat_interleave(new, 1).repeat_interleave(new, 2)  # old · new pixels, whole ones for both
    wanted = fine.unflatten(2, (new, old)).unflatten(1, (new, old)).mean((2, 4))
    assert torch.allclose(small, wanted, atol=1e-3)


def test_sam_med2d_takes_the_nearest_pixel_and_standardises() -> None:
    image = _picture(128, 64, 3)
    fitted = SAM_MED2D.fit(image, Frame(128, 64, 32))
    assert torch.equal(fitted, image[:, ::4, ::2] / 255)
    mean, sd = (torch.tensor(v)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    wanted = (image[:, ::4, ::2] - mean) / sd
    assert torch.allclose(SAM_MED2D.normalise(fitted[None])[0], wanted, atol=1e-4)


def test_a_black_slice_stays_finite() -> None:
    for preparation in PREPARATIONS.values():
        frame = Frame(20, 30, 32, preparation.keep_aspect)
        assert preparation.normalise(preparation.fit(torch.zeros(1, 20, 30), frame)[None]).isfinite().all()


def test_methods_follow_what_the_weights_declare(tmp_path: Path) -> None:
    model, slice_ = tiny_sam(), np.full((40, 64), 100, np.uint8)
    assert (Sam(model).preparation, MedSam(model).preparation) == (SAM, MEDSAM)
    model.config.preparation = "litemedsam"
    loaded = load_sam(str(save_folder(model, tmp_path / "folder")))  # what a folder declares is kept
    trained = LoraSam(loaded, LoraSamConfig(("one",), rank=1))
    for method in (Sam(loaded), MedSam(loaded), trained):
        assert method.preparation is LITE_MEDSAM
        assert method.prepare(slice_)[1].content == (160, 256)
    model.config.preparation = "sam"
    other = load_sam(str(save_folder(model, tmp_path / "other")))
    assert weights_version(other) != weights_version(loaded)
    model.config.preparation = "theirs"
    with pytest.raises(ValueError, match=r"prepared in the way 'theirs'.*It knows sam, medsam"):
        Sam(model)


def test_trained_methods_standardise_for_weights_of_sam() -> None:
    model = tiny_sam()
    model.config.preparation = "sam"
    method = LoraSam(model, LoraSamConfig(("one",), rank=1)).eval()
    images = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        wanted = model.vision_encoder(SAM.normalise(images)).last_hidden_state
        assert torch.allclose(method.encode(images).features, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "preparation"),
    [
        ("sam-vit-base", "sam"),
        ("facebook/sam-vit-large", "sam"),
        ("wanglab/medsam-vit-base", "medsam"),
        ("/weights/sam_vit_b_01ec64.pth", "sam"),
        ("/weights/mine.pth", ""),
        ("segmed-tiny", ""),
    ],
)
def test_known_names_declare_a_preparation(source: str, preparation: str) -> None:
    assert declared_preparation(source) == preparation
