"""The published pipelines, written out by hand beside ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from skimage.transform import resize
from tiny_sam import tiny_sam
from transformers import SamImageProcessor, SamModel

BOX = (30.0, 20.0, 150.0, 90.0)


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam(2)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """(110, 180), smooth, not square."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 1, 8, 12))).float()
    fine = F.interpolate(coarse, (110, 180), mode="bicubic")[0, 0].clamp(0, 1)
    return (fine.numpy() * 200 + 20).astype(np.uint8)


@torch.inference_mode()
def test_medsam_decodes_as_published(model: SamModel, picture: np.ndarray) -> None:
    method = MedSam(model)
    pixels, frame = method.prepare(picture)
    logits = method.decode(method.embed([picture]), [[SlicePrompt(box=BOX)]], (110, 180)).masks[0, 0]
    box = torch.tensor(BOX) / torch.tensor([180.0, 110.0, 180.0, 110.0]) * 256
    low = model(pixel_values=pixels[None], input_boxes=box[None, None], multimask_output=False).pred_masks[
        0, 0
    ]
    probability = F.interpolate(low.sigmoid()[None], (110, 180), mode="bilinear", align_corners=False)[0, 0]
    assert frame.content == (256, 256)
    assert torch.equal(logits > 0, probability > 0.5)
    # resampling logits and thresholding them gives another mask: the order matters
    other = F.interpolate(low[None], (110, 180), mode="bilinear", align_corners=False)[0, 0] > 0
    assert (other != (probability > 0.5)).any()


def test_medsam_input_is_the_published_one(model: SamModel, picture: np.ndarray) -> None:
    pixels, _ = MedSam(model).prepare(picture)
    published = resize(picture, (256, 256), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    published = (published - published.min()) / np.clip(np.ptp(published), 1e-8, None)
    assert pixels.shape == (3, 256, 256)
    assert torch.equal(pixels[0], pixels[1])
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)
    # two cubic resamplers; a grey level is 1/200 here
    assert np.abs(pixels[0].numpy() - published).mean() < 0.006


def test_medsam_colour_is_divided_by_255_only(model: SamModel) -> None:
    colour = np.full((64, 64, 3), 100, np.uint8)
    colour[..., 1] = 200
    pixels, _ = MedSam(model).prepare(colour)
    assert torch.allclose(pixels[:, 0, 0], torch.tensor([100.0, 200.0, 100.0]) / 255)


def test_constant_slices_stay_finite(model: SamModel) -> None:
    for method in (Sam(model), MedSam(model)):
        pixels, _ = method.prepare(np.full((40, 50), 7, np.uint8))
        assert torch.isfinite(pixels).all()


@torch.inference_mode()
def test_sam_is_the_processor_pipeline(model: SamModel, picture: np.ndarray) -> None:
    processor = SamImageProcessor(size={"longest_edge": 256}, pad_size={"height": 256, "width": 256})
    processed = processor(np.stack([picture] * 3, -1), return_tensors="pt")
    method = Sam(model)
    prepared, frame = method.prepare(picture)
    normalised = method.preparation.normalise(prepared)
    theirs = processed["pixel_values"][0]
    rows, columns = frame.content
    assert (normalised - theirs)[:, :rows, :columns].abs().mean() < 0.02
    assert torch.allclose(normalised[:, rows:], theirs[:, rows:], atol=1e-6)
    ours = method.decode(method.embed([picture]), [[SlicePrompt(box=BOX)]], (110, 180)).masks[0, 0] > 0
    scale = torch.tensor([columns / 180, rows / 110] * 2)
    out = model(
        pixel_values=theirs[None], input_boxes=(torch.tensor(BOX) * scale)[None, None], multimask_output=False
    )
    masks = processor.post_process_masks(
        out.pred_masks,
        processed["original_sizes"],
        processed["reshaped_input_sizes"],
        pad_size={"height": 256, "width": 256},
    )[0][0, 0]
    assert (ours == masks).float().mean() > 0.98


@torch.inference_mode()
def test_any_output_size(model: SamModel, picture: np.ndarray) -> None:
    for method in (Sam(model), MedSam(model)):
        embedding = method.embed([picture])
        small = method.decode(embedding, [[SlicePrompt(box=BOX)]], (55, 90)).masks
        large = method.decode(embedding, [[SlicePrompt(box=BOX)]], (220, 360))
        assert small.shape[-2:] == (55, 90)
        assert large.quality is not None
        assert large.quality.shape == (1, 1)
        agreement = (F.interpolate((large.masks > 0).float(), (55, 90), mode="area") > 0.5) == (small > 0)
        assert agreement.float().mean() > 0.9
