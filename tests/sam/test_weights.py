"""Base weights: both formats, any size, and refusal of everything else."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from segmed.sam.checkpoints.inspection import inspect
from segmed.sam.checkpoints.keymap import infer_config, to_transformers
from segmed.sam.sources import check_source, is_hub_id
from segmed.sam.weights import load_sam, weights_version
from tiny_sam import save_folder, tiny_config, tiny_sam, to_original
from transformers import SamModel


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam()


def _same(a: SamModel, b: SamModel) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_folder_file_and_original_give_the_same_model(model: SamModel, tmp_path: Path) -> None:
    folder = save_folder(model, tmp_path / "folder")
    original = to_original(model)
    torch.save(original, tmp_path / "sam.pth")
    torch.save(
        {"model": {f"module.{k}": v for k, v in original.items()}, "epoch": 3}, tmp_path / "trained.pth"
    )
    image = torch.rand(1, 3, 256, 256)
    box = torch.tensor([[[40.0, 50.0, 200.0, 190.0]]])
    expected = model(pixel_values=image, input_boxes=box)
    for source in (folder, folder / "model.safetensors", tmp_path / "sam.pth", tmp_path / "trained.pth"):
        loaded = load_sam(str(source))
        assert _same(loaded, model), source
        assert not loaded.training
        out = loaded(pixel_values=image, input_boxes=box)
        assert torch.allclose(out.pred_masks, expected.pred_masks, atol=1e-5)
        assert weights_version(loaded) == weights_version(load_sam(str(folder)))


def test_half_precision_files_run_in_single(tmp_path: Path) -> None:
    loaded = load_sam(str(save_folder(tiny_sam().half(), tmp_path / "half")))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    shared = loaded.shared_image_embedding.positional_embedding
    assert loaded.prompt_encoder.shared_embedding.positional_embedding is shared


def test_positional_matrix_is_tied_and_frozen(model: SamModel, tmp_path: Path) -> None:
    loaded = load_sam(str(save_folder(model, tmp_path / "m")))
    shared = loaded.shared_image_embedding.positional_embedding
    assert loaded.prompt_encoder.shared_embedding.positional_embedding is shared
    assert not shared.requires_grad
    assert loaded.mask_decoder.iou_token.weight.requires_grad


def test_vit_b_architecture_is_inferred_from_shapes() -> None:
    with torch.device("meta"):
        base = SamModel(SamModel.config_class())
    config = infer_config(base.state_dict())
    for part in ("vision_config", "prompt_encoder_config", "mask_decoder_config"):
        inferred, published = getattr(config, part).to_dict(), getattr(base.config, part).to_dict()
        assert {k: inferred[k] for k in published if k != "global_attn_indexes"} == {
            k: published[k] for k in published if k != "global_attn_indexes"
        }
    assert config.vision_config.global_attn_indexes == [2, 5, 8, 11]
    assert sum(p.numel() for p in base.vision_encoder.parameters()) == 89_670_912
    assert sum(p.numel() for p in base.mask_decoder.parameters()) == 4_058_340


def test_tiny_architecture_is_inferred(model: SamModel) -> None:
    config = infer_config(to_transformers(to_original(model)))
    wanted = tiny_config()
    assert config.vision_config.window_size == wanted.vision_config.window_size
    assert config.vision_config.global_attn_indexes == [1, 3]
    assert config.mask_decoder_config.mlp_dim == 96


@pytest.mark.parametrize("size", [128, 384, 512])
def test_other_input_sizes_load_without_missing_weights(model: SamModel, tmp_path: Path, size: int) -> None:
    folder = str(save_folder(model, tmp_path / "m"))
    resized = load_sam(folder, image_size=size)
    tokens = size // 16
    state = resized.state_dict()
    assert state["vision_encoder.pos_embed"].shape == (1, tokens, tokens, 128)
    assert state["vision_encoder.layers.1.attn.rel_pos_h"].shape == (2 * tokens - 1, 64)
    before = model.state_dict()["vision_encoder.layers.0.attn.rel_pos_h"]
    assert torch.equal(state["vision_encoder.layers.0.attn.rel_pos_h"], before)
    out = resized(
        pixel_values=torch.rand(1, 3, size, size), input_boxes=torch.tensor([[[1.0, 2.0, 60.0, 70.0]]])
    )
    assert out.pred_masks.shape[-2:] == (4 * tokens, 4 * tokens)
    assert weights_version(resized) != weights_version(load_sam(folder))


def test_resized_tables_keep_their_corners_in_place(model: SamModel, tmp_path: Path) -> None:
    resized = load_sam(str(save_folder(model, tmp_path / "m")), image_size=512)
    old = model.state_dict()["vision_encoder.pos_embed"].permute(0, 3, 1, 2)
    new = resized.state_dict()["vision_encoder.pos_embed"].permute(0, 3, 1, 2)
    # half-pixel centres: doubling and averaging 2×2 gives a slightly blurred original, not a shifted one
    back = torch.nn.functional.avg_pool2d(new, 2)
    assert torch.corrcoef(torch.stack([back.flatten(), old.flatten()]))[0, 1] > 0.9


def test_size_that_is_no_multiple_of_the_patch_is_refused(model: SamModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        load_sam(str(save_folder(model, tmp_path / "m")), image_size=250)


def test_file_with_one_name_of_the_tied_matrix_loads(model: SamModel, tmp_path: Path) -> None:
    state = {
        k: v.clone() for k, v in model.state_dict().items() if not k.startswith("shared_image_embedding")
    }
    save_file(state, tmp_path / "one.safetensors")
    assert _same(load_sam(str(tmp_path / "one.safetensors")), model)


def test_foreign_files_are_refused_with_a_reason(model: SamModel, tmp_path: Path) -> None:
    folder = save_folder(model, tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()

    def case(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    save_file({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    bad = [
        case("cut.safetensors", whole[: len(whole) // 2]),
        case("text.pth", b"<!doctype html><html>sign in</html>"),
        case("empty.pth", b""),
        str(tmp_path / "other.safetensors"),
        str(tmp_path / "other.pth"),
        str(tmp_path / "list.pth"),
    ]
    for source in bad:
        with pytest.raises(ValueError, match=r"medsam_vit_b\.pth"):
            load_sam(source)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (__import__("os").mkdir, (str(marker),))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save(Evil(), tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match="holds code instead of weights"):
            load_sam(str(tmp_path / name))
    assert not marker.exists()


def test_a_pickle_that_would_fill_the_memory_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "plain.pth").open("wb") as file:
        file.write(b"\x80\x02X\x00\x00\x00\x7f")  # a text of 2 GB
        file.truncate(2**31)  # which takes no space on the disk
    with (
        zipfile.ZipFile(tmp_path / "zip.pth", "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("archive/data.pkl", "w") as part,
    ):
        part.writelines([bytes(2**20)] * 65)
    for name, text in (
        ("plain.pth", "torch.save wrote no such file"),
        ("zip.pth", "pickled part takes 65 MB"),
    ):
        for check in (load_sam, lambda path: inspect(Path(path), "sam")):
            with pytest.raises(ValueError, match=text):
                check(str(tmp_path / name))


def test_wrong_folders_are_refused(model: SamModel, tmp_path: Path) -> None:
    folder = save_folder(model, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ValueError, match="not that of a SAM"):
        load_sam(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not that of a SAM"):
        load_sam(str(folder))
    config["vision_config"]["hidden_size"] = 256
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="of another shape"):
        load_sam(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_sam(str(tmp_path / "empty"))


def test_missing_and_unreachable_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert is_hub_id("facebook/sam-vit-base")
    assert not is_hub_id("weights/medsam_vit_b.pth")
    for wrong in ("/no/such/folder", "./none", "a/b/c", "weights/medsam_vit_b.pth"):
        with pytest.raises(FileNotFoundError, match="There are no SAM weights"):
            check_source(wrong)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="cannot be fetched"):
        load_sam("somebody/some-sam")


def test_saved_file_holds_no_second_copy_of_the_tied_matrix(model: SamModel, tmp_path: Path) -> None:
    names = load_file(save_folder(model, tmp_path / "m") / "model.safetensors")
    assert sum("positional_embedding" in name for name in names) == 1
