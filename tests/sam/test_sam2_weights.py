"""SAM 2 in all its files: folders of transformers, checkpoints of the authors, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sam.original_sam2 import to_original
from segmed.sam.checkpoints.sam2_keymap import infer_config, is_original, to_transformers
from segmed.sam.sam2 import load_sam2
from segmed.sam.weights import load_sam
from tiny_sam import save_folder, tiny_sam
from tiny_sam import to_original as sam_to_original
from tiny_sam2 import SIDE, save_sam2, tiny_sam2
from transformers import Sam2VideoConfig, Sam2VideoModel

# of the published configurations: channels, blocks, heads, windows, global blocks, positions
PUBLISHED = {
    "tiny": (96, (1, 2, 7, 2), 1, (8, 4, 14, 7), (5, 7, 9), 7),
    "small": (96, (1, 2, 11, 2), 1, (8, 4, 14, 7), (7, 10, 13), 7),
    "base-plus": (112, (2, 3, 16, 3), 2, (8, 4, 14, 7), (12, 16, 20), 14),
    "large": (144, (2, 6, 36, 4), 2, (8, 4, 16, 8), (23, 33, 43), 7),
}


@pytest.fixture(scope="module")
def model() -> Sam2VideoModel:
    """As published ones, it has one positional matrix; a checkpoint of the authors holds it once."""
    model = tiny_sam2()
    shared = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.data.copy_(shared)
    return model


@pytest.fixture(scope="module")
def folder(model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam2(model, tmp_path_factory.mktemp("sam2"))


def _with_config(folder: Path, new: Path) -> Path:
    new.mkdir()
    (new / "config.json").write_bytes((folder / "config.json").read_bytes())
    return new


def _published(name: str, newer: bool = True) -> Sam2VideoConfig:
    channels, blocks, heads, windows, globals_, positions = PUBLISHED[name]
    widths = [channels * 2**k for k in range(4)]
    encoder = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": channels,
        "blocks_per_stage": list(blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads": heads,
        "num_attention_heads_per_stage": [heads * 2**k for k in range(4)],
        "window_size_per_stage": list(windows),
        "global_attention_blocks": list(globals_),
        "window_positional_embedding_background_size": [positions, positions],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": encoder,
        "backbone_channel_list": widths[::-1],
    }
    return Sam2VideoConfig(
        vision_config=vision,
        enable_occlusion_spatial_embedding=newer,
        enable_temporal_pos_encoding_for_object_pointers=newer,
    )


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_checkpoint_of_the_authors_gives_the_same_masks(
    model: Sam2VideoModel, folder: Path, tmp_path: Path, wrapped: bool
) -> None:
    original = to_original(model)
    assert "sam_mask_decoder.pred_obj_score_head.layers.1.weight" in original
    assert "memory_encoder.mask_downsampler.encoder.12.weight" in original
    new = _with_config(folder, tmp_path / "new")
    torch.save({"model": original} if wrapped else original, new / "sam2.pt")
    expected, _ = load_sam2(str(folder))
    loaded, _ = load_sam2(str(new))
    assert loaded.memory is not None
    torch.manual_seed(1)
    image, point = torch.rand(1, 3, SIDE, SIDE), torch.tensor([[[[40.0, 70.0]]]])
    with torch.no_grad():
        out = loaded.image(pixel_values=image, input_points=point)
        wanted = expected.image(pixel_values=image, input_points=point)
    assert wanted.pred_masks.std() > 0.01
    assert torch.allclose(out.pred_masks, wanted.pred_masks, atol=1e-4)
    assert torch.allclose(out.iou_scores, wanted.iou_scores, atol=1e-4)
    # the memory has parts that one image does not run through
    ours, theirs = loaded.memory.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_told_by_their_shapes(name: str) -> None:
    config = _published(name)
    with torch.device("meta"):
        original = to_original(Sam2VideoModel(config))
    assert is_original(original)
    found = infer_config(to_transformers(original))
    assert found.to_dict() == config.to_dict()
    with torch.device("meta"):
        again = Sam2VideoModel(found).state_dict()
    assert {k: v.shape for k, v in to_transformers(original).items()} == {
        k: v.shape for k, v in again.items()
    }


def test_version_2_0_is_told_from_2_1() -> None:
    config = _published("tiny", newer=False)
    with torch.device("meta"):
        original = to_original(Sam2VideoModel(config))
    assert "no_obj_embed_spatial" not in original
    assert infer_config(to_transformers(original)).to_dict() == config.to_dict()


def test_an_unknown_size_needs_its_configuration(model: Sam2VideoModel, tmp_path: Path) -> None:
    torch.save({"model": to_original(model)}, tmp_path / "sam2.pt")
    with pytest.raises(
        ValueError, match=r"5 blocks that begin with 16 channels.*folder with its config\.json"
    ):
        load_sam2(str(tmp_path / "sam2.pt"))


def test_a_folder_with_pytorch_model_bin_loads(model: Sam2VideoModel, folder: Path, tmp_path: Path) -> None:
    new = _with_config(folder, tmp_path / "new")
    torch.save(model.state_dict(), new / "pytorch_model.bin")
    assert load_sam2(str(new))[1] == load_sam2(str(folder))[1]
    sam = tiny_sam()
    other = _with_config(save_folder(sam, tmp_path / "sam"), tmp_path / "bin")
    torch.save(sam.state_dict(), other / "pytorch_model.bin")
    loaded, wanted = load_sam(str(other)).state_dict(), sam.state_dict()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)


def test_sam_and_sam2_are_told_apart(model: Sam2VideoModel, tmp_path: Path) -> None:
    torch.save({"model": to_original(model)}, tmp_path / "two.pt")
    torch.save(sam_to_original(tiny_sam()), tmp_path / "one.pth")
    with pytest.raises(ValueError, match=r"two\.pt is a SAM 2, .*--conf backbone_sam2"):
        load_sam(str(tmp_path / "two.pt"))
    with pytest.raises(ValueError, match=r"one\.pth does not hold a SAM2"):
        load_sam2(str(tmp_path / "one.pth"))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("image_encoder.backbone.input_stem.op_list.0.conv.weight", "EfficientViT-B"),
        ("module.image_encoder.features.0.0.c.weight", "RepViT"),
        ("mask_decoder.hf_token.weight", "HQ-SAM"),
        ("w_a_000", "SAMed"),
        ("sam.image_encoder.blocks.0.freq_norm.weight", "I-MedSAM"),
        ("upsampler.up1.range_temp", "FeatUp"),
        ("detector.backbone.vision_backbone.trunk.pos_embed", "SAM 3"),
        ("image_encoder.trunk.blocks.0.attn.qkv.weight", "EfficientTAM"),
    ],
)
def test_unknown_families_are_named(tmp_path: Path, name: str, family: str) -> None:
    torch.save({name: torch.zeros(2, 2)}, tmp_path / "w.pt")
    save_file({name: torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    for load in (load_sam, load_sam2):
        for file in ("w.pt", "w.safetensors"):
            with pytest.raises(
                ValueError, match=rf"w\.\w+ cannot be used\. This is .*{family}.*cannot load it as a backbone"
            ):
                load(str(tmp_path / file))


def test_a_sam_for_volumes_is_named(tmp_path: Path) -> None:
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(2, 1, 2, 2, 2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="SAM-Med3D"):
        load_sam(str(tmp_path / "w.pth"))


def test_pickled_code_of_a_sam2_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (__import__("os").mkdir, (str(marker),))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="holds code instead of weights"):
        load_sam2(str(tmp_path / "evil.pt"))
    assert not marker.exists()


def test_damaged_checkpoints_say_what_is_wrong(model: Sam2VideoModel, folder: Path, tmp_path: Path) -> None:
    new = _with_config(folder, tmp_path / "new")
    original = to_original(model)
    torch.save({"model": original}, new / "sam2.pt")
    whole = (new / "sam2.pt").read_bytes()
    (new / "sam2.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut off, damaged"):
        load_sam2(str(new))
    del original["no_mem_embed"]
    torch.save({"model": original}, new / "sam2.pt")
    with pytest.raises(ValueError, match=r"1 weights are missing \(first: no_memory_embedding\)"):
        load_sam2(str(new))
    (new / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(ValueError, match="not that of a SAM2"):
        load_sam2(str(new))
