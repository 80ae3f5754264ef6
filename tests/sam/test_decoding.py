"""Prompts through the decoder, against SamModel called by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.sam.decoding import decode_low_resolution
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from tiny_sam import tiny_sam
from transformers import SamModel


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam(1)


@pytest.fixture(scope="module")
def embedding(model: SamModel) -> Embedding:
    torch.manual_seed(0)
    with torch.inference_mode():
        features = model.vision_encoder(torch.rand(2, 3, 256, 256)).last_hidden_state
    return Embedding(features, Frame(128, 64, 256))


def _points(*xy: tuple[float, float], labels: tuple[int, ...]) -> SlicePrompt:
    return SlicePrompt(points=np.array(xy, np.float32), labels=np.array(labels))


def _decode(
    model: SamModel, embedding: Embedding, *rows: list[SlicePrompt], best: bool = False
) -> torch.Tensor:
    with torch.inference_mode():
        return decode_low_resolution(model, embedding, rows, best)[0]


def test_mixed_prompts_give_what_each_gives_alone(model: SamModel, embedding: Embedding) -> None:
    mask = np.zeros((128, 64), bool)
    mask[30:90, 10:40] = True
    kinds = [
        SlicePrompt(box=(4, 8, 50, 100)),
        _points((20, 30), labels=(1,)),
        SlicePrompt(
            box=(4, 8, 50, 100), points=np.array([[9, 9], [30, 70]], np.float32), labels=np.array([0, 1])
        ),
        SlicePrompt(mask=mask),
    ]
    together = _decode(model, embedding, kinds, kinds[::-1])
    assert together.shape == (2, 4, 64, 64)
    for b, row in enumerate((kinds, kinds[::-1])):
        for k, prompt in enumerate(row):
            alone = _decode(model, embedding.split()[b], [prompt])
            assert torch.allclose(together[b, k], alone[0, 0], atol=1e-4)


def test_box_is_scaled_from_the_slice_to_the_model(model: SamModel, embedding: Embedding) -> None:
    ours = _decode(model, embedding.split()[0], [SlicePrompt(box=(4, 8, 50, 100))])
    boxes = torch.tensor([[[16.0, 16.0, 200.0, 200.0]]])
    with torch.inference_mode():
        theirs = model(image_embeddings=embedding.features[:1], input_boxes=boxes, multimask_output=False)
    assert torch.allclose(ours[0, 0], theirs.pred_masks[0, 0, 0], atol=1e-5)


def test_a_prompt_with_more_clicks_beside_it_changes_nothing(model: SamModel, embedding: Embedding) -> None:
    one, three = _points((20, 30), labels=(1,)), _points((20, 30), (5, 5), (6, 90), labels=(1, 0, 0))
    both = _decode(model, embedding, [one], [three])
    assert torch.allclose(both[0, 0], _decode(model, embedding.split()[0], [one])[0, 0], atol=1e-5)


def test_lone_click_takes_the_best_of_the_multimask_outputs(model: SamModel, embedding: Embedding) -> None:
    first = embedding.split()[0]
    click = _points((20, 30), labels=(1,))
    with torch.inference_mode():
        out = model(
            image_embeddings=first.features,
            input_points=torch.tensor([[[[80.0, 60.0]]]]),
            input_labels=torch.tensor([[[1]]]),
            multimask_output=True,
        )
    best = out.pred_masks[0, 0, out.iou_scores[0, 0].argmax()]
    assert torch.allclose(_decode(model, first, [click], best=True)[0, 0], best, atol=1e-5)
    single = _decode(model, first, [click], best=False)[0, 0]
    assert not torch.allclose(single, best, atol=1e-3)


def test_no_prompt_decodes(model: SamModel, embedding: Embedding) -> None:
    with torch.inference_mode():
        masks, scores = decode_low_resolution(model, embedding, None, False)
    assert masks.shape == (2, 1, 64, 64)
    assert scores.shape == (2, 1)


def test_prompts_that_do_not_fit_are_refused(model: SamModel, embedding: Embedding) -> None:
    with pytest.raises(ValueError, match="do not fit 2 slices"):
        _decode(model, embedding, [SlicePrompt(box=(1, 1, 9, 9))])


def test_a_previous_mask_changes_the_result(model: SamModel, embedding: Embedding) -> None:
    first = embedding.split()[0]
    mask = np.zeros((128, 64), bool)
    mask[30:90, 10:40] = True
    box = (4.0, 8.0, 50.0, 100.0)
    without = _decode(model, first, [SlicePrompt(box=box)])
    assert not torch.allclose(without, _decode(model, first, [SlicePrompt(box=box, mask=mask)]), atol=1e-3)
