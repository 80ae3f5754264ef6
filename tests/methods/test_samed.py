"""Files with the published names of SAMed give the logits of its formulas."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from segmed.commands.models import app
from segmed.inference.loading import Loader
from segmed.inference.runtimes.bundle import Source
from segmed.inference.runtimes.export import export_method
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.lora import LoraSamConfig
from segmed.methods.sam.class_head import ClassSegmenter
from segmed.methods.samed import read_samed
from segmed.registry.versions import Registry
from segmed.sam.frame import Frame
from segmed.sam.weights import load_sam
from tiny_sam import save_folder, tiny_config, tiny_sam, to_original
from torch import Tensor
from transformers import SamModel
from typer.testing import CliRunner

LABELS = ("spleen", "right kidney", "left kidney")
RANK = 3


@pytest.fixture(scope="module")
def base() -> SamModel:
    return tiny_sam(0, 128)


def tuned_sam(base: SamModel) -> SamModel:
    """The base's encoder, with another prompt encoder and a decoder of one token per class."""
    config = tiny_config(128)
    config.mask_decoder_config.num_multimask_outputs = len(LABELS)  # and token 0, the background
    torch.manual_seed(1)
    other = SamModel(config)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "layer_norm" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    other.vision_encoder.load_state_dict(base.vision_encoder.state_dict())
    positions = base.shared_image_embedding.positional_embedding
    for part in (other.shared_image_embedding, other.prompt_encoder.shared_embedding):
        part.positional_embedding.data.copy_(positions)
    return other.eval()


def samed_file(tuned: SamModel, path: Path, small: bool) -> dict[str, Tensor]:
    """Write what SAMed saves; `small` is SAMed_s, whose decoder has low-rank updates."""
    torch.manual_seed(2)
    state: dict[str, Tensor] = {}

    def pairs(letters: str, sizes: list[tuple[int, int]]) -> None:
        for n, (into, out) in enumerate(sizes):
            state[f"{letters}_a_{n:03d}"] = torch.randn(RANK, into) * 0.1
            state[f"{letters}_b_{n:03d}"] = torch.randn(out, RANK) * 0.1

    pairs("w", [(128, 128)] * 8)
    if small:
        for letters, inner in (("sa", 64), ("cti", 32), ("cit", 32)):
            pairs(letters, [(64, inner)] * 4)
        for letter in "qv":
            state[f"fati_{letter}a"] = torch.randn(RANK, 64) * 0.1
            state[f"fati_{letter}b"] = torch.randn(32, RANK) * 0.1
    for name, tensor in to_original(tuned).items():
        if "prompt_encoder" in name or ("mask_decoder" in name and not (small and "transformer" in name)):
            state[name] = tensor
    torch.save(state, path)
    return state


@torch.inference_mode()
def class_logits(method: ClassSegmenter, pixels: Tensor) -> Tensor:
    """At the decoder's own resolution, to which SAMed's are compared."""
    side = 4 * 128 // 16
    embedding = method.encode(pixels)
    embedding = replace(embedding, frame=Frame(side, side, side))
    return method.decode(embedding, None, (side, side)).masks


@torch.inference_mode()
def reference(
    base: SamModel, tuned: SamModel, state: dict[str, Tensor], pixels: Tensor, small: bool
) -> Tensor:
    """SAMed's logits: every product W x of queries and values becomes W x + B (A x)."""
    model = copy.deepcopy(tuned)
    if small:
        model.mask_decoder.transformer.load_state_dict(base.mask_decoder.transformer.state_dict())

    def update(letters: str, number: int) -> Tensor:
        return state[f"{letters}_b_{number:03d}"] @ state[f"{letters}_a_{number:03d}"]

    for n, layer in enumerate(model.vision_encoder.layers):
        layer.attn.qkv.weight[:128] += update("w", 2 * n)
        layer.attn.qkv.weight[256:] += update("w", 2 * n + 1)
    if small:
        for n, layer in enumerate(model.mask_decoder.transformer.layers):
            for letters, attention in (
                ("sa", layer.self_attn),
                ("cti", layer.cross_attn_token_to_image),
                ("cit", layer.cross_attn_image_to_token),
            ):
                attention.q_proj.weight += update(letters, 2 * n)
                attention.v_proj.weight += update(letters, 2 * n + 1)
        final = model.mask_decoder.transformer.final_attn_token_to_image
        final.q_proj.weight += state["fati_qb"] @ state["fati_qa"]
        final.v_proj.weight += state["fati_vb"] @ state["fati_va"]
    features = model.get_image_embeddings(pixels)
    # SAMed takes all tokens, the background's first; transformers gives the first and the others apart
    first, others = (
        model(image_embeddings=features, multimask_output=several).pred_masks[:, 0]
        for several in (False, True)
    )
    return torch.cat([first, others], 1)


@pytest.mark.parametrize("small", [True, False])
def test_logits_are_those_of_samed(base: SamModel, tmp_path: Path, small: bool) -> None:
    tuned = tuned_sam(base)
    state = samed_file(tuned, tmp_path / "epoch_159.pth", small)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    ours = read_samed(tmp_path / "epoch_159.pth", LABELS, base)
    assert ours.config == LoraSamConfig(LABELS, RANK, "lora" if small else "all", prompt_token=False)
    pixels = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    wanted = reference(base, tuned, state, pixels, small)
    assert wanted.std() > 0.05
    for method in (ours, ours.merged()):
        logits = class_logits(method, pixels)
        assert wanted.shape == logits.shape
        assert (logits - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_imported_version_is_served(base: SamModel, tmp_path: Path) -> None:
    tuned, folder = tuned_sam(base), save_folder(base, tmp_path / "base")
    state = samed_file(tuned, tmp_path / "samed.pth", small=False)
    given = ["import", "lora", str(tmp_path / "samed.pth"), "--backbone", str(folder), "--image-size", "128"]
    given += ["--registry", str(tmp_path / "models"), "--labels"]
    told = CliRunner().invoke(app, [*given, "spleen, liver"])
    assert told.exit_code == 2 and "3 structures beside the background" in told.output
    told = CliRunner().invoke(app, [*given, ", ".join(LABELS)])
    assert told.exit_code == 0, told.output
    (version,) = Registry(tmp_path / "models").versions("lora")
    assert not version.served and f"promote lora {version.version}\n" in told.output
    backbone = BackboneConfig(str(folder), 128, "fp32")
    method = Loader().get("lora", backbone, trained=version.folder)
    assert isinstance(method, ClassSegmenter) and method.labels == LABELS
    pixels = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    wanted = reference(base, tuned, state, pixels, small=False)
    assert (class_logits(method, pixels) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    with pytest.raises(ValueError, match="without the token that answers prompts"):
        export_method(method, Source("lora"), "onnx", tmp_path / "onnx")


def test_what_does_not_fit_is_refused(base: SamModel, tmp_path: Path) -> None:
    tuned = tuned_sam(base)
    path = tmp_path / "samed.pth"
    state = samed_file(tuned, path, small=True)
    with pytest.raises(ValueError, match="3 structures beside the background, but 1 names"):
        read_samed(path, ("spleen",), base)
    with pytest.raises(ValueError, match="belongs to other base weights"):
        read_samed(path, LABELS, tiny_sam(5, 128))
    with pytest.raises(ValueError, match=r"is a file of SAMed.*`segmed models import`"):
        load_sam(str(path))
    torch.save({k: v for k, v in state.items() if k != "w_b_003"}, path)
    with pytest.raises(
        ValueError, match=r"1 weights differ, first: vision_encoder.layers.1.attn.qkv.v.lora_B"
    ):
        read_samed(path, LABELS, base)
    torch.save({k: v for k, v in state.items() if not k.startswith("mask_decoder")}, path)
    with pytest.raises(ValueError, match="lacks the prompt encoder or the mask decoder"):
        read_samed(path, LABELS, base)
    torch.save({"one": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no w_a_000 and is not a file of SAMed"):
        read_samed(path, LABELS, base)
    torch.save({"sam.image_encoder.blocks.0.freq_norm.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"a file of I-MedSAM.*`segmed train --method imedsam`"):
        load_sam(str(path))
