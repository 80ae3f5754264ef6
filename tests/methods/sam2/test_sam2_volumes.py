"""SAM2 through volumes, beside transformers' own: memory, corrections, and what is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from sam2_memory import (
    BOX,
    DEPTH,
    HEIGHT,
    SAID,
    WIDTH,
    at_full_size,
    by_transformers,
    method_of,
    pixels_of,
    predictor_of,
    to_model,
)
from segmed.cli import app
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import Box, Prompt
from segmed.inference.refinement.refinement import Rough
from segmed.sam.sam2 import StackSession
from tiny_sam2 import SIDE, save_sam2, tiny_sam2
from transformers import Sam2VideoInferenceSession, Sam2VideoModel
from typer.testing import CliRunner


def test_memory_goes_through_the_stack_as_by_transformers(memory: Sam2VideoModel, picture: Picture) -> None:
    predictor = predictor_of(memory)
    masks = predictor.segment_volume(picture, Prompt(SAID, ((30, 20, 3),), ((70, 50, 3),)))
    shown = {3: ([BOX[:2], BOX[2:], (30, 20), (70, 50)], [2, 3, 1, 0])}
    theirs = by_transformers(memory, pixels_of(method_of(memory), picture), shown, {})
    assert sorted(masks) == [*range(DEPTH)]
    assert all(np.mean(masks[k] == theirs[k]) > 0.999 for k in range(DEPTH))
    assert all(0 < masks[k].mean() < 1 for k in range(DEPTH))
    # the memory counts: each slice by itself would be segmented otherwise
    alone = predictor.segment_volume(picture, Prompt(Box(SAID.i, SAID.j, (0, DEPTH - 1))))
    assert any((alone[k] != masks[k]).any() for k in (2, 4))


def test_several_prompts_of_one_object_are_all_remembered(memory: Sam2VideoModel, picture: Picture) -> None:
    predictor = predictor_of(memory)
    masks = predictor.segment_volume(picture, Prompt(None, ((30, 20, 1), (50, 30, 5))))
    shown = {1: ([(30, 20)], [1]), 5: ([(50, 30)], [1])}
    theirs = by_transformers(memory, pixels_of(method_of(memory), picture), shown, {})
    assert sorted(masks) == [*range(DEPTH)]
    assert all(np.mean(masks[k] == theirs[k]) > 0.999 for k in range(DEPTH))
    once = predictor.segment_volume(picture, Prompt(None, ((30, 20, 1),)))
    assert any((once[k] != masks[k]).any() for k in (2, 3, 4))


def test_slices_are_encoded_once_for_all_objects_and_requests(
    memory: Sam2VideoModel, picture: Picture
) -> None:
    seen: list[int] = []
    handle = memory.vision_encoder.register_forward_hook(
        lambda _module, given, _out: seen.append(len(given[0]))
    )
    try:
        predictor = predictor_of(memory)
        prompts = [Prompt(SAID), Prompt(None, ((70, 20, 5),)), Prompt(Box((5, 30), (5, 30), (0, 0)))]
        told: list[tuple[int, int]] = []
        together = predictor.segment_objects(
            picture, prompts, lambda done, total, _found: told.append((done, total))
        )
        assert sum(seen) == DEPTH == predictor.encoded
        alone = [predictor.segment_volume(picture, prompt) for prompt in prompts]
        assert sum(seen) == DEPTH
        # with room for a single slice all objects look at it while it is there: 3 prompted, 6 up and 5 down
        narrow = predictor_of(memory, room=200_000)
        narrow.segment_objects(picture, prompts)
        assert narrow.encoded == 3 + 6 + 5
    finally:
        handle.remove()
    assert told[-1] == (3 * DEPTH, 3 * DEPTH)
    for both, one in zip(together, alone, strict=True):
        assert sorted(both) == sorted(one) == [*range(DEPTH)]
        assert all((both[k] == one[k]).all() for k in both)
    assert (together[0][3] != together[1][3]).any()


def test_a_mask_is_kept_and_remembered(memory: Sam2VideoModel, picture: Picture) -> None:
    drawn = np.zeros((WIDTH, HEIGHT, DEPTH), bool)
    drawn[22:58, 12:38, 3] = True
    masks = predictor_of(memory).segment_volume(picture, Prompt(mask=drawn))
    square = torch.nn.functional.interpolate(
        torch.from_numpy(drawn[:, :, 3].T).float()[None, None], (SIDE, SIDE), mode="bilinear", antialias=True
    )
    told = (square[0, 0] >= 0.5).float()
    theirs = by_transformers(memory, pixels_of(method_of(memory), picture), {}, {3: told})
    assert (masks[3] == drawn[:, :, 3].T).all()
    assert all(np.mean(masks[k] == theirs[k]) > 0.999 for k in range(DEPTH) if k != 3)


def test_clicks_correct_a_mask_before_it_is_remembered(memory: Sam2VideoModel, picture: Picture) -> None:
    drawn = np.zeros((WIDTH, HEIGHT, DEPTH), bool)
    drawn[22:58, 12:38, 3] = True
    prompt = Prompt(foreground=((30, 20, 3),), mask=drawn)
    predictor = predictor_of(memory)
    masks = predictor.segment_volume(picture, prompt)
    on_slice = predictor.segment_slices(picture, prompt)[3]
    assert (masks[3] == on_slice).all()
    without = predictor.segment_volume(picture, Prompt(mask=drawn))
    assert any((masks[k] != without[k]).any() for k in (2, 4))


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_clicks_on_followed_slices_correct_them_and_are_followed_again(
    memory: Sam2VideoModel, picture: Picture, inside: bool
) -> None:
    predictor = predictor_of(memory)
    click = ((40, 25, 5),)
    plain = predictor.segment_volume(picture, Prompt(SAID))
    prompt = Prompt(SAID, foreground=click) if inside else Prompt(SAID, background=click)
    corrected = predictor.segment_volume(picture, prompt)
    assert sorted(corrected) == [*range(DEPTH)]
    assert (plain[3] == corrected[3]).all()  # the box itself
    # transformers: follow the object to the slice, click there, remember the result, follow it again
    session = Sam2VideoInferenceSession(
        pixels_of(method_of(memory), picture), HEIGHT, WIDTH, dtype=torch.float32
    )
    session.obj_id_to_idx(1)
    corners = {"point_coords": to_model([BOX[:2], BOX[2:]])[None, None]}
    session.add_point_inputs(0, 3, {**corners, "point_labels": torch.tensor([[[2, 3]]]).int()})
    session.obj_with_new_inputs = [1]
    memory(session, frame_idx=3)
    memory(session, frame_idx=4)
    memory(session, frame_idx=5)
    point = {"point_coords": to_model([(40, 25)])[None, None]}
    session.add_point_inputs(0, 5, {**point, "point_labels": torch.tensor([[[int(inside)]]]).int()})
    session.obj_with_new_inputs = [1]
    theirs = {5: at_full_size(memory(session, frame_idx=5).pred_masks)}
    outputs = session.output_dict_per_obj[0]
    outputs["cond_frame_outputs"][5] = outputs["non_cond_frame_outputs"].pop(5)
    outputs["non_cond_frame_outputs"].clear()
    theirs |= {k: at_full_size(memory(session, frame_idx=k).pred_masks) for k in (4, 6)}
    assert all(np.mean(corrected[k] == theirs[k]) > 0.999 for k in (4, 5, 6))
    assert any((plain[k] != corrected[k]).any() for k in (4, 6))


def test_only_prompted_slices_and_those_in_reach_are_remembered(
    memory: Sam2VideoModel, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, stored = 0, StackSession.store_output

    def counted(self: StackSession, *args: Any, **named: Any) -> None:
        nonlocal most
        stored(self, *args, **named)
        most = max(most, len(self.output_dict_per_obj[self.object]["non_cond_frame_outputs"]))

    monkeypatch.setattr(StackSession, "store_output", counted)
    array = np.concatenate([picture.array] * 12, axis=2)
    long = Picture(array, picture.affine, "longer", "auto")
    middle = Box(SAID.i, SAID.j, (40, 40))
    masks = predictor_of(memory).segment_volume(long, Prompt(middle, foreground=((40, 25, 80),)))
    assert sorted(masks) == [*range(12 * DEPTH)]
    reach = max(memory.num_maskmem, memory.config.max_object_pointers_in_encoder)
    assert most <= max(2 * reach + 2, 80 - 40)  # and not 84, as many as there are slices


def test_an_object_that_is_not_seen_any_more_is_over(picture: Picture) -> None:
    memory = tiny_sam2(1, appears=-10.0)
    masks = predictor_of(memory).segment_volume(picture, Prompt(Box(SAID.i, SAID.j, (1, 1))))
    assert sorted(masks) == [0, 1, 2, 3, 4]
    assert not any(mask.any() for mask in masks.values())
    # not over before it is prompted again
    later = predictor_of(memory).segment_volume(picture, Prompt(None, ((30, 20, 0), (30, 20, 6))))
    assert sorted(later) == [*range(DEPTH)]


def test_blank_slices_stay_empty(memory: Sam2VideoModel, picture: Picture) -> None:
    array = picture.array.copy()
    array[:, :, [0, 4]] = 7
    blank = Picture(array, picture.affine, "holes", "auto")
    masks = predictor_of(memory).segment_volume(blank, Prompt(SAID))
    assert not masks[4].any()
    assert masks[5].any()
    nothing = predictor_of(memory).segment_volume(blank, Prompt(Box(SAID.i, SAID.j, (4, 4))))
    assert [*nothing] == [4]
    assert not nothing[4].any()


def test_refinement_reaches_every_slice_and_the_memory(memory: Sam2VideoModel, picture: Picture) -> None:
    def halve(rough: Rough) -> np.ndarray:
        left = rough.mask.copy()
        left[:, WIDTH // 2 :] = False
        return left

    masks = predictor_of(memory).segment_volume(picture, Prompt(SAID), refine=halve)
    assert sorted(masks) == [*range(DEPTH)]
    assert not any(mask[:, WIDTH // 2 :].any() for mask in masks.values())
    plain = predictor_of(memory).segment_volume(picture, Prompt(SAID))
    assert (masks[3] == np.where(np.arange(WIDTH) < WIDTH // 2, plain[3], False)).all()
    assert (masks[4][:, : WIDTH // 2] != plain[4][:, : WIDTH // 2]).any()


def test_long_stacks_are_forgotten_out_of_reach(memory: Sam2VideoModel, picture: Picture) -> None:
    array = np.concatenate([picture.array] * 4, axis=2)
    long = Picture(array, picture.affine, "long", "auto")
    masks = predictor_of(memory).segment_volume(long, Prompt(Box(SAID.i, SAID.j, (20, 20))))
    theirs = by_transformers(
        memory, pixels_of(method_of(memory), long), {20: ([BOX[:2], BOX[2:]], [2, 3])}, {}
    )
    assert all(np.mean(masks[k] == theirs[k]) > 0.999 for k in range(4 * DEPTH))


def test_boxes_of_the_command_line_are_carried_together(
    memory: Sam2VideoModel, picture: Picture, tmp_path: Path
) -> None:
    folder = save_sam2(memory, tmp_path / "m")
    nib.save(nib.Nifti1Image(picture.array, picture.affine), tmp_path / "stack.nii.gz")
    boxes = ("--box", "2,12,5,12,3,3", "--box", "60,80,40,55,2,2")
    options = ("--model", "sam2_3d", "--backbone", str(folder), "--precision", "fp32", "--device", "cpu")
    out = tmp_path / "out.nii.gz"
    result = CliRunner().invoke(
        app, ["predict", str(tmp_path / "stack.nii.gz"), *boxes, *options, "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    labels = np.asarray(nib.Nifti1Image.from_filename(out).dataobj)
    shown = open_picture(tmp_path / "stack.nii.gz")
    prompts = [Prompt(Box((2, 12), (5, 12), (3, 3))), Prompt(Box((60, 80), (40, 55), (2, 2)))]
    first, second = (
        stack_slices(m, labels.shape) for m in predictor_of(memory).segment_objects(shown, prompts)
    )
    assert (labels == np.where(first, 1, 2 * second)).all()
    assert {1, 2} <= set(np.unique(labels))
