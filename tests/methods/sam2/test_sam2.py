"""SAM2 on slices, beside transformers' own calls, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2_memory import BOX, DEPTH, HEIGHT, SAID, WIDTH, method_of, pixels_of, predictor_of, to_model
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Predictor
from segmed.methods.sam.sam2 import Sam2
from segmed.registry.versions import Registry
from segmed.sam.embedding import Embedding
from segmed.sam.sam2 import Sam2Weights, image_model, load_sam2
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine
from tiny_sam import save_folder, tiny_sam
from tiny_sam2 import SIDE, save_sam2
from transformers import Sam2ImageProcessor, Sam2Model, Sam2VideoModel


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["box", "click", "clicks", "mask"])
def test_a_slice_is_decoded_as_by_transformers(memory: Sam2VideoModel, picture: Picture, kind: str) -> None:
    method = method_of(memory)
    clicks = np.array([[30, 20], [70, 50]], np.float32)
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[12:38, 22:58] = True
    prompt = {
        "box": SlicePrompt(box=BOX),
        "click": SlicePrompt(points=clicks[:1], labels=np.ones(1, np.int64)),
        "clicks": SlicePrompt(points=clicks, labels=np.array([1, 0])),
        "mask": SlicePrompt(box=BOX, mask=drawn),
    }[kind]
    given: dict[str, Any] = {"input_boxes": to_model(BOX).view(1, 1, 4)} if kind in ("box", "mask") else {}
    if kind.startswith("click"):
        number = len(prompt.labels)
        given = {
            "input_points": to_model(clicks[:number])[None, None],
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
        pixel_values=pixels_of(method, picture)[2:3], multimask_output=kind == "click", **given
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
    assert torch.allclose(pixels_of(method_of(memory), picture)[2:3], theirs, atol=0.02)


@torch.inference_mode()
def test_embeddings_hold_three_levels_and_survive_being_kept(
    memory: Sam2VideoModel, picture: Picture
) -> None:
    method = method_of(memory)
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
    method = method_of(memory)
    click = SlicePrompt(points=np.array([[30.0, 20.0]], np.float32), labels=np.ones(1, np.int64))
    embedding = method.embed([picture.slice(2)])
    found = method.candidates(embedding, [click, click], (HEIGHT, WIDTH))
    assert found.masks.shape == (2, 3, HEIGHT, WIDTH)
    assert found.quality is not None
    best = method.decode(embedding, [[click]], (HEIGHT, WIDTH)).masks[0, 0]
    assert torch.allclose(found.masks[1, int(found.quality[1].argmax())], best, atol=1e-4)


@torch.inference_mode()
def test_half_precision_gives_nearly_the_same(memory: Sam2VideoModel, picture: Picture) -> None:
    exact = method_of(memory).embed([picture.slice(2)])
    half = Sam2(Sam2Weights(image_model(memory), memory, torch.bfloat16).eval()).embed([picture.slice(2)])
    assert half.features.dtype == torch.float32
    error = (half.features - exact.features).abs().mean() / exact.features.abs().mean()
    assert 0 < error < 0.05


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
    assert (found[0] == predictor_of(memory).segment_slices(picture, Prompt(SAID))[3]).all()
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
