"""SAM2 on slices and through volumes, beside transformers' own calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from segmed.cli import app
from segmed.imaging.labels.masks import stack_slices
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Masks, Predictor
from segmed.inference.refinement.refinement import Rough
from segmed.methods.sam.sam2 import Sam2
from segmed.registry.versions import Registry
from segmed.sam.embedding import Embedding
from segmed.sam.sam2 import Sam2Weights, StackSession, image_model, load_sam2
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine
from tiny_sam import save_folder, tiny_sam
from tiny_sam2 import SIDE, save_sam2, tiny_sam2
from torch import Tensor
from transformers import Sam2ImageProcessor, Sam2Model, Sam2VideoInferenceSession, Sam2VideoModel
from typer.testing import CliRunner

HEIGHT, WIDTH, DEPTH = 60, 84, 7
BOX = (20.0, 10.0, 60.0, 40.0)
SAID = Box((20, 60), (10, 40), (3, 3))


@pytest.fixture(scope="module")
def memory() -> Sam2VideoModel:
    return tiny_sam2(1)


@pytest.fixture(scope="module")
def picture() -> Picture:
    """Smooth, changes slowly from slice to slice; not square."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 1, 3, 6, 8))).float()
    fine = torch.nn.functional.interpolate(coarse, (DEPTH, HEIGHT, WIDTH), mode="trilinear")[0, 0]
    return Picture((fine.numpy().transpose(2, 1, 0) * 220 + 20).astype(np.uint8), np.eye(4), "stack", "auto")


def _method(memory: Sam2VideoModel) -> Sam2:
    return Sam2(Sam2Weights(image_model(memory), memory).eval(), "sam2-test").eval()


def _predictor(memory: Sam2VideoModel, room: int = 2**28) -> Predictor:
    return Predictor(_method(memory), ByteBoundedStore[Embedding](room))


def _pixels(method: Sam2, picture: Picture) -> Tensor:
    prepared = torch.stack([method.prepare(picture.slice(k))[0] for k in range(picture.shape[2])])
    return method.preparation.normalise(prepared)


def _to_model(xy: Any) -> Tensor:
    return torch.tensor(xy, dtype=torch.float32).view(-1, 2) * torch.tensor([SIDE / WIDTH, SIDE / HEIGHT])


def _full(low: Tensor) -> np.ndarray:
    full = torch.nn.functional.interpolate(low.float(), (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return (full[0, 0] > 0).numpy()


def _reference(
    memory: Sam2VideoModel, pixels: Tensor, shown: dict[int, tuple[Any, list[int]]], masks: dict[int, Tensor]
) -> Masks:
    """Masks as transformers' own video model gives them, one pass up and one down."""
    session = Sam2VideoInferenceSession(pixels, HEIGHT, WIDTH, dtype=torch.float32)
    session.obj_id_to_idx(1)
    found = {}
    for k in sorted({*shown, *masks}):
        if k in masks:
            session.add_mask_inputs(0, k, masks[k][None, None])
        else:
            points = {"point_coords": _to_model(shown[k][0])[None, None]}
            session.add_point_inputs(
                0, k, {**points, "point_labels": torch.tensor(shown[k][1])[None, None].int()}
            )
        session.obj_with_new_inputs = [1]
        found[k] = _full(memory(session, frame_idx=k).pred_masks)
    for reverse in (False, True):
        for out in memory.propagate_in_video_iterator(session, reverse=reverse):
            found[out.frame_idx] = _full(out.pred_masks)
    return found


# --- slices ---


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["box", "click", "clicks", "mask"])
def test_a_slice_is_decoded_as_by_transformers(memory: Sam2VideoModel, picture: Picture, kind: str) -> None:
    method = _method(memory)
    clicks = np.array([[30, 20], [70, 50]], np.float32)
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[12:38, 22:58] = True
    prompt = {
        "box": SlicePrompt(box=BOX),
        "click": SlicePrompt(points=clicks[:1], labels=np.ones(1, np.int64)),
        "clicks": SlicePrompt(points=clicks, labels=np.array([1, 0])),
        "mask": SlicePrompt(box=BOX, mask=drawn),
    }[kind]
    given: dict[str, Any] = {"input_boxes": _to_model(BOX).view(1, 1, 4)} if kind in ("box", "mask") else {}
    if kind.startswith("click"):
        number = len(prompt.labels)
        given = {
            "input_points": _to_model(clicks[:number])[None, None],
            "input_labels": torch.tensor(prompt.labels)[None, None],
        }
    if kind == "mask":
        small = torch.nn.functional.interpolate(
            torch.from_numpy(drawn).float()[None, None],
            (SIDE // 4, SIDE // 4),
            mode="bilinear",
            antialias=True,
        )
        given["input_masks"] = (small * 2 - 1) * 10
    theirs = method.model(
        pixel_values=_pixels(method, picture)[2:3], multimask_output=kind == "click", **given
    )
    best = int(theirs.iou_scores[0, 0].argmax())
    wanted = torch.nn.functional.interpolate(
        theirs.pred_masks[:, 0, best : best + 1], (HEIGHT, WIDTH), mode="bilinear"
    )
    ours = method.decode(method.embed([picture.slice(2)]), [[prompt]], (HEIGHT, WIDTH))
    assert ours.quality is not None
    assert torch.allclose(ours.masks[0, 0], wanted[0, 0], atol=1e-4)
    assert torch.allclose(ours.quality[0, 0], theirs.iou_scores[0, 0, best], atol=1e-5)
    assert 0 < (ours.masks > 0).float().mean() < 1


def test_input_is_that_of_the_processor(memory: Sam2VideoModel, picture: Picture) -> None:
    processor = Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    theirs = processor(np.stack([picture.slice(2)] * 3, -1), return_tensors="pt")["pixel_values"]
    assert torch.allclose(_pixels(_method(memory), picture)[2:3], theirs, atol=0.02)


@torch.inference_mode()
def test_embeddings_hold_three_levels_and_survive_being_kept(
    memory: Sam2VideoModel, picture: Picture
) -> None:
    method = _method(memory)
    slices = [picture.slice(1), picture.slice(4)]
    together = method.embed(slices)
    assert [tuple(t.shape[1:]) for t in (together.features, *together.extras)] == [
        (128, SIDE // 16, SIDE // 16),
        (16, SIDE // 4, SIDE // 4),
        (32, SIDE // 8, SIDE // 8),
    ]
    prompts = [[SlicePrompt(box=BOX)]] * 2
    kept = Embedding.join(together.split())
    assert torch.equal(
        method.decode(kept, prompts, (9, 9)).masks, method.decode(together, prompts, (9, 9)).masks
    )
    alone = method.decode(method.embed(slices[1:]), prompts[1:], (9, 9)).masks
    assert torch.allclose(alone, method.decode(together, prompts, (9, 9)).masks[1:], atol=1e-4)


@torch.inference_mode()
def test_candidates_are_the_three_masks(memory: Sam2VideoModel, picture: Picture) -> None:
    method = _method(memory)
    click = SlicePrompt(points=np.array([[30.0, 20.0]], np.float32), labels=np.ones(1, np.int64))
    embedding = method.embed([picture.slice(2)])
    found = method.candidates(embedding, [click, click], (HEIGHT, WIDTH))
    assert found.masks.shape == (2, 3, HEIGHT, WIDTH)
    assert found.quality is not None
    best = method.decode(embedding, [[click]], (HEIGHT, WIDTH)).masks[0, 0]
    assert torch.allclose(found.masks[1, int(found.quality[1].argmax())], best, atol=1e-4)


@torch.inference_mode()
def test_half_precision_gives_nearly_the_same(memory: Sam2VideoModel, picture: Picture) -> None:
    exact = _method(memory).embed([picture.slice(2)])
    half = Sam2(Sam2Weights(image_model(memory), memory, torch.bfloat16).eval()).embed([picture.slice(2)])
    assert half.features.dtype == torch.float32
    error = (half.features - exact.features).abs().mean() / exact.features.abs().mean()
    assert 0 < error < 0.05


# --- through volumes ---


def test_memory_goes_through_the_stack_as_by_transformers(memory: Sam2VideoModel, picture: Picture) -> None:
    predictor = _predictor(memory)
    masks = predictor.segment_volume(picture, Prompt(SAID, ((30, 20, 3),), ((70, 50, 3),)))
    shown = {3: ([BOX[:2], BOX[2:], (30, 20), (70, 50)], [2, 3, 1, 0])}
    theirs = _reference(memory, _pixels(_method(memory), picture), shown, {})
    assert sorted(masks) == [*range(DEPTH)]
    assert all(np.mean(masks[k] == theirs[k]) > 0.999 for k in range(DEPTH))
    assert all(0 < masks[k].mean() < 1 for k in range(DEPTH))
    # the memory counts: each slice by itself would be segmented otherwise
    alone = predictor.segment_volume(picture, Prompt(Box(SAID.i, SAID.j, (0, DEPTH - 1))))
    assert any((alone[k] != masks[k]).any() for k in (2, 4))


def test_several_prompts_of_one_object_are_all_remembered(memory: Sam2VideoModel, picture: Picture) -> None:
    predictor = _predictor(memory)
    masks = predictor.segment_volume(picture, Prompt(None, ((30, 20, 1), (50, 30, 5))))
    shown = {1: ([(30, 20)], [1]), 5: ([(50, 30)], [1])}
    theirs = _reference(memory, _pixels(_method(memory), picture), shown, {})
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
        predictor = _predictor(memory)
        prompts = [Prompt(SAID), Prompt(None, ((70, 20, 5),)), Prompt(Box((5, 30), (5, 30), (0, 0)))]
        told: list[tuple[int, int]] = []
        together = predictor.segment_objects(
            picture, prompts, lambda done, total, _found: told.append((done, total))
        )
        assert sum(seen) == DEPTH == predictor.encoded
        alone = [predictor.segment_volume(picture, prompt) for prompt in prompts]
        assert sum(seen) == DEPTH
        # with room for a single slice all objects look at it while it is there: 3 prompted, 6 up and 5 down
        narrow = _predictor(memory, room=200_000)
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
    masks = _predictor(memory).segment_volume(picture, Prompt(mask=drawn))
    square = torch.nn.functional.interpolate(
        torch.from_numpy(drawn[:, :, 3].T).float()[None, None], (SIDE, SIDE), mode="bilinear", antialias=True
    )
    told = (square[0, 0] >= 0.5).float()
    theirs = _reference(memory, _pixels(_method(memory), picture), {}, {3: told})
    assert (masks[3] == drawn[:, :, 3].T).all()
    assert all(np.mean(masks[k] == theirs[k]) > 0.999 for k in range(DEPTH) if k != 3)


def test_clicks_correct_a_mask_before_it_is_remembered(memory: Sam2VideoModel, picture: Picture) -> None:
    drawn = np.zeros((WIDTH, HEIGHT, DEPTH), bool)
    drawn[22:58, 12:38, 3] = True
    prompt = Prompt(foreground=((30, 20, 3),), mask=drawn)
    predictor = _predictor(memory)
    masks = predictor.segment_volume(picture, prompt)
    on_slice = predictor.segment_slices(picture, prompt)[3]
    assert (masks[3] == on_slice).all()
    without = predictor.segment_volume(picture, Prompt(mask=drawn))
    assert any((masks[k] != without[k]).any() for k in (2, 4))


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_clicks_on_followed_slices_correct_them_and_are_followed_again(
    memory: Sam2VideoModel, picture: Picture, inside: bool
) -> None:
    predictor = _predictor(memory)
    click = ((40, 25, 5),)
    plain = predictor.segment_volume(picture, Prompt(SAID))
    prompt = Prompt(SAID, foreground=click) if inside else Prompt(SAID, background=click)
    corrected = predictor.segment_volume(picture, prompt)
    assert sorted(corrected) == [*range(DEPTH)]
    assert (plain[3] == corrected[3]).all()  # the box itself
    # transformers: follow the object to the slice, click there, remember the result, follow it again
    session = Sam2VideoInferenceSession(_pixels(_method(memory), picture), HEIGHT, WIDTH, dtype=torch.float32)
    session.obj_id_to_idx(1)
    corners = {"point_coords": _to_model([BOX[:2], BOX[2:]])[None, None]}
    session.add_point_inputs(0, 3, {**corners, "point_labels": torch.tensor([[[2, 3]]]).int()})
    session.obj_with_new_inputs = [1]
    memory(session, frame_idx=3)
    memory(session, frame_idx=4)
    memory(session, frame_idx=5)
    point = {"point_coords": _to_model([(40, 25)])[None, None]}
    session.add_point_inputs(0, 5, {**point, "point_labels": torch.tensor([[[int(inside)]]]).int()})
    session.obj_with_new_inputs = [1]
    theirs = {5: _full(memory(session, frame_idx=5).pred_masks)}
    outputs = session.output_dict_per_obj[0]
    outputs["cond_frame_outputs"][5] = outputs["non_cond_frame_outputs"].pop(5)
    outputs["non_cond_frame_outputs"].clear()
    theirs |= {k: _full(memory(session, frame_idx=k).pred_masks) for k in (4, 6)}
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
    masks = _predictor(memory).segment_volume(long, Prompt(middle, foreground=((40, 25, 80),)))
    assert sorted(masks) == [*range(12 * DEPTH)]
    reach = max(memory.num_maskmem, memory.config.max_object_pointers_in_encoder)
    assert most <= max(2 * reach + 2, 80 - 40)  # and not 84, as many as there are slices


def test_an_object_that_is_not_seen_any_more_is_over(picture: Picture) -> None:
    memory = tiny_sam2(1, appears=-10.0)
    masks = _predictor(memory).segment_volume(picture, Prompt(Box(SAID.i, SAID.j, (1, 1))))
    assert sorted(masks) == [0, 1, 2, 3, 4]
    assert not any(mask.any() for mask in masks.values())
    # not over before it is prompted again
    later = _predictor(memory).segment_volume(picture, Prompt(None, ((30, 20, 0), (30, 20, 6))))
    assert sorted(later) == [*range(DEPTH)]


def test_blank_slices_stay_empty(memory: Sam2VideoModel, picture: Picture) -> None:
    array = picture.array.copy()
    array[:, :, [0, 4]] = 7
    blank = Picture(array, picture.affine, "holes", "auto")
    masks = _predictor(memory).segment_volume(blank, Prompt(SAID))
    assert not masks[4].any()
    assert masks[5].any()
    nothing = _predictor(memory).segment_volume(blank, Prompt(Box(SAID.i, SAID.j, (4, 4))))
    assert [*nothing] == [4]
    assert not nothing[4].any()


def test_refinement_reaches_every_slice_and_the_memory(memory: Sam2VideoModel, picture: Picture) -> None:
    def halve(rough: Rough) -> np.ndarray:
        left = rough.mask.copy()
        left[:, WIDTH // 2 :] = False
        return left

    masks = _predictor(memory).segment_volume(picture, Prompt(SAID), refine=halve)
    assert sorted(masks) == [*range(DEPTH)]
    assert not any(mask[:, WIDTH // 2 :].any() for mask in masks.values())
    plain = _predictor(memory).segment_volume(picture, Prompt(SAID))
    assert (masks[3] == np.where(np.arange(WIDTH) < WIDTH // 2, plain[3], False)).all()
    assert (masks[4][:, : WIDTH // 2] != plain[4][:, : WIDTH // 2]).any()


def test_long_stacks_are_forgotten_out_of_reach(memory: Sam2VideoModel, picture: Picture) -> None:
    array = np.concatenate([picture.array] * 4, axis=2)
    long = Picture(array, picture.affine, "long", "auto")
    masks = _predictor(memory).segment_volume(long, Prompt(Box(SAID.i, SAID.j, (20, 20))))
    theirs = _reference(memory, _pixels(_method(memory), long), {20: ([BOX[:2], BOX[2:]], [2, 3])}, {})
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
        stack_slices(m, labels.shape) for m in _predictor(memory).segment_objects(shown, prompts)
    )
    assert (labels == np.where(first, 1, 2 * second)).all()
    assert {1, 2} <= set(np.unique(labels))


# --- weights ---


def test_a_folder_without_memory_still_segments(
    memory: Sam2VideoModel, picture: Picture, tmp_path: Path
) -> None:
    loader = Loader()
    full, image = (save_sam2(memory, tmp_path / str(kept), kept) for kept in (True, False))
    both = [loader.get("sam2", BackboneConfig(str(f), precision="fp32")) for f in (full, image)]
    assert [method.has_memory for method in both] == [True, False]
    assert both[0].version != both[1].version
    found = [Predictor(m, ByteBoundedStore(2**28)).segment_slices(picture, Prompt(SAID))[3] for m in both]
    assert (found[0] == found[1]).all()
    assert (found[0] == _predictor(memory).segment_slices(picture, Prompt(SAID))[3]).all()
    carried = Predictor(both[1], ByteBoundedStore(2**28)).segment_volume(picture, Prompt(SAID))
    assert (carried[3] == found[0]).all()


def test_another_input_size_needs_no_other_weights(
    memory: Sam2VideoModel, picture: Picture, tmp_path: Path
) -> None:
    weights, version = load_sam2(str(save_sam2(memory, tmp_path / "m")), 160)
    method = Sam2(weights, version).eval()
    assert method.input_size == 160
    assert method.embed([picture.slice(0)]).extras[0].shape[-2:] == (40, 40)
    masks = Predictor(method, ByteBoundedStore(2**28)).segment_volume(picture, Prompt(SAID))
    assert sorted(masks) == [*range(DEPTH)]
    assert version != load_sam2(str(tmp_path / "m"))[1]
    with pytest.raises(ValueError, match="multiple of 32"):
        load_sam2(str(tmp_path / "m"), 100)


def test_unusable_weights_are_explained(memory: Sam2VideoModel, tmp_path: Path) -> None:
    sam = save_folder(tiny_sam(), tmp_path / "sam")
    with pytest.raises(ValueError, match="not that of a SAM2"):
        load_sam2(str(sam))
    cut = save_sam2(memory, tmp_path / "cut")
    file = cut / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cut off"):
        load_sam2(str(cut))
    image = save_sam2(memory, tmp_path / "image", memory=False)
    config = (save_sam2(memory, tmp_path / "full") / "config.json").read_text(encoding="utf-8")
    (image / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ValueError, match="weights are missing"):
        load_sam2(str(image))
    (cut / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no folder with config"):
        load_sam2(str(cut))
    with pytest.raises(FileNotFoundError):
        load_sam2("/no/such/folder")
    with pytest.raises(ValueError, match=r"add --conf backbone_sam2 sam2\.1-hiera-tiny"):
        Loader().get("sam2", BackboneConfig())


def test_it_is_offered_with_weights_of_its_own_only(memory: Sam2VideoModel, tmp_path: Path) -> None:
    sam, folder = save_folder(tiny_sam(), tmp_path / "sam"), save_sam2(memory, tmp_path / "sam2")
    assert "sam2" not in ServerSettings.from_conf({"backbone": str(sam)}).models
    settings = ServerSettings.from_conf(
        {"backbone": str(sam), "backbone_sam2": str(folder), "precision": "fp32"}
    )
    assert {"sam", "sam2"} <= set(settings.models)
    engine = Engine(settings, Registry(tmp_path / "none"))
    found = engine.predictor("sam2", "cpu").segmenter
    assert isinstance(found, Sam2)
    assert isinstance(found.model, Sam2Model)
    assert not any(p.requires_grad for p in found.parameters())
    assert not isinstance(engine.predictor("sam", "cpu").segmenter, Sam2)
    with pytest.raises(ValueError, match="backbone_sam2"):
        ServerSettings.from_conf({"models": "sam2", "backbone": str(sam)})


def test_medsam2_is_a_model_of_its_own_at_its_own_size(memory: Sam2VideoModel, tmp_path: Path) -> None:
    folder = save_sam2(memory, tmp_path / "m")
    settings = ServerSettings.from_conf({"backbone_medsam2": str(folder), "models": "medsam2"})
    engine = Engine(settings, Registry(tmp_path / "none"))
    assert [name for method in engine.offered() for name in engine.names(method)] == ["medsam2", "medsam2_3d"]
    assert engine.predictor("medsam2", "cpu").segmenter.input_size == 512
    other = ServerSettings.from_conf({"backbone_medsam2": str(folder), "image_size": "160"})
    assert Engine(other, Registry(tmp_path / "none")).predictor("medsam2", "cpu").segmenter.input_size == 160
