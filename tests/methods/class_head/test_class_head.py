"""Class tokens stand beside SAM's own, share its frozen weights, and leave its masks as they were."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from class_methods import BACKBONES, LABELS, both, example
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.sam.class_head import ClassConfig, head_names, with_classes
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sharing import share_weights
from segmed.sam.cpu.precision import prepare_encoder
from tiny_sam import tiny_sam
from transformers import SamModel


def test_the_head_keeps_what_is_of_sam(base: SamModel) -> None:
    model = with_classes(base, 6)
    old, new = base.state_dict(), model.state_dict()
    changed = {name for name in new if name not in old or not torch.equal(new[name], old[name])}
    assert model.config.mask_decoder_config.num_multimask_outputs == 6
    assert base.config.mask_decoder_config.num_multimask_outputs == 3
    drawn = {n for n in new if "hypernetworks_mlps." in n and "mlps.0." not in n}
    resized = {f"mask_decoder.{n}" for n in ("mask_tokens.weight", "iou_prediction_head.proj_out.weight")}
    assert changed == drawn | resized | {"mask_decoder.iou_prediction_head.proj_out.bias"}
    assert len(drawn) == 6 * 6
    for name in (
        "mask_tokens.weight",
        "iou_prediction_head.proj_out.weight",
        "iou_prediction_head.proj_out.bias",
    ):
        old_rows, new_rows = old[f"mask_decoder.{name}"], new[f"mask_decoder.{name}"]
        assert len(new_rows) == 7
        assert torch.equal(new_rows[0], old_rows[0])
        assert not any(torch.equal(n, o) for n, o in zip(new_rows[1:], old_rows[1:], strict=False))


def test_only_what_trains_has_memory_of_its_own(base: SamModel) -> None:
    model = with_classes(base, 3)
    theirs = {p.data_ptr() for p in base.parameters()}
    mine = {name for name, p in model.named_parameters() if p.data_ptr() not in theirs}
    assert mine == set(head_names(model))
    assert not any("positional" in name or "transformer" in name for name in mine)
    assert (
        model.prompt_encoder.shared_embedding.positional_embedding
        is model.shared_image_embedding.positional_embedding
    )


def test_the_positional_matrix_is_frozen_even_where_it_is_not_tied() -> None:
    model = tiny_sam(0, 128)
    model.prompt_encoder.shared_embedding = copy.deepcopy(model.shared_image_embedding)
    assert "prompt_encoder.shared_embedding.positional_embedding" in dict(model.named_parameters())
    assert not any("positional" in name for name in head_names(model))


def test_a_shared_copy_leaves_flags_and_modules_alone(base: SamModel) -> None:
    flags = {name: p.requires_grad for name, p in base.named_parameters()}
    copied = share_weights(base)
    copied.requires_grad_(False)
    copied.vision_encoder.layers[0].mlp = torch.nn.Identity()
    prepare_encoder(copied.vision_encoder, "cpu", "bf16")
    assert {name: p.requires_grad for name, p in base.named_parameters()} == flags
    assert all(p.dtype is torch.float32 for p in base.parameters())
    assert type(base.vision_encoder.layers[0].mlp) is not torch.nn.Identity


@both
@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_a_new_method_is_exactly_sam(method: type, config: type, backbone: str) -> None:
    model = BACKBONES[backbone]()
    torch.manual_seed(5)
    plain = with_classes(model, 3)
    torch.manual_seed(5)
    ours = method(model, config(labels=LABELS)).eval()
    images, _ = example(ours.input_size)
    embedding = ours.encode(images)
    assert torch.equal(embedding.features, model.vision_encoder(images).last_hidden_state)
    expected = plain(image_embeddings=embedding.features, multimask_output=True).pred_masks[:, 0]
    assert torch.equal(ours.decode(embedding, None, expected.shape[-2:]).masks, expected)
    prompts = [[SlicePrompt(box=(10.0, 12.0, 40.0, 50.0))]] * 2
    assert torch.equal(
        ours.decode(embedding, prompts, (70, 90)).masks,
        MedSam(plain).decode(embedding, prompts, (70, 90)).masks,
    )


@both
@torch.inference_mode()
def test_slices_of_any_shape_and_content(base: SamModel, method: type, config: type) -> None:
    ours = method(base, config(labels=LABELS)).eval()
    for shape in ((61, 143), (143, 61), (5, 300)):
        embedding = ours.embed([np.full(shape, 9, np.uint8)])
        for logits in (
            ours.decode(embedding, None, shape).masks,
            ours.decode(embedding, [[SlicePrompt(box=(1.0, 1.0, 4.0, 4.0))]], shape).masks,
        ):
            assert logits.shape[-2:] == shape
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    "labels",
    [
        (),
        ("",),
        ("liver", "Liver"),
        ("background",),
        ["liver"],
        "liver",
        (1,),
        tuple(str(n) for n in range(256)),
    ],
)
def test_useless_labels_are_refused(labels: object) -> None:
    with pytest.raises(
        ValueError, match=r"allowed is a tuple of 1 to 255 different names.*Name each organ once"
    ):
        ClassConfig(labels)  # type: ignore[arg-type]
