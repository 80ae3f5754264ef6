"""High-resolution features inside SAM's decoder."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.trainable import load_trained, save_trained
from segmed.methods.featup.featup import FeatUp, FeatUpConfig
from segmed.methods.featup.jbu import JbuStack, save_jbu
from segmed.methods.sam.medsam import MedSam
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.decoding import decode_low_resolution
from segmed.sam.tiny import initialised
from segmed.sam.tiny import tiny_config as small_config
from tiny_sam import tiny_sam
from torch import Tensor, nn
from transformers import SamConfig, SamModel

SIZE = 64
BOX = SlicePrompt(box=(6.0, 8.0, 40.0, 30.0))
CLICK = SlicePrompt(points=np.array([[20.0, 15.0]], np.float32), labels=np.array([1]))


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam(5, SIZE)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Two slices (51, 70), smooth, odd, not square."""
    y, x = np.mgrid[:51, :70]
    base = 120 + 60 * np.sin(x / 9) * np.cos(y / 7)
    return [(base + 40 * (np.hypot(x - a, y - 20) < 14)).astype(np.uint8) for a in (25, 45)]


def opened(method: FeatUp, seed: int = 0) -> FeatUp:
    """The same with a convolution into the decoder that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.to_decoder.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return method.eval()


def masks(method: MedSam, pictures: list[np.ndarray], prompts: list[list[SlicePrompt]] | None) -> Tensor:
    with torch.inference_mode():
        return method.decode(method.embed(pictures), prompts, (51, 70)).masks


def test_untrained_it_is_sam(model: SamModel, pictures: list[np.ndarray]) -> None:
    small = initialised(small_config(image_size=32, hidden=32, layers=1, heads=2, width=32), 0).eval()
    for base in (model, small):
        for stages in (1, 2, 3):
            method = FeatUp(base, FeatUpConfig(stages=stages)).eval()
            for prompts in ([[BOX, CLICK], [CLICK, BOX]], [[BOX], [BOX]], None):
                assert torch.equal(masks(method, pictures, prompts), masks(MedSam(base), pictures, prompts))


def test_parameters_at_the_size_of_sam() -> None:
    with torch.device("meta"):
        base = SamModel(SamConfig())
        method = FeatUp(base)
    new = sum(p.numel() for p in method.parameters()) - sum(p.numel() for p in base.parameters())
    stage = 2 + (3 * 32 + 32) + (32 * 32 + 32) + (52 * 49 + 49) + (49 * 49 + 49)
    assert new - sum(p.numel() for p in method.jbu.parameters()) == 8_224
    assert sum(p.numel() for p in method.jbu.parameters()) == 2 * stage + 256 * 256 + 256


@torch.inference_mode()
@pytest.mark.parametrize(("variant", "side"), [("decoder", 16), ("hires", 32)])
def test_the_decoder_by_hand(model: SamModel, pictures: list[np.ndarray], variant: str, side: int) -> None:
    """Stock decoder, one slice at a time, with a hook that adds the features before the last activation."""
    method = opened(FeatUp(model, FeatUpConfig(variant)))  # type: ignore[arg-type]
    prompts = [[BOX, CLICK], [CLICK, BOX]]
    embedding = method.embed(pictures)
    assert embedding.extras[0].shape == (2, 8, side, side)
    found = masks(method, pictures, prompts)
    assert found.shape == (2, 2, 51, 70)
    for b, picture in enumerate(pictures):
        pixels = method.prepare(picture)[0][None]
        plain = MedSam(model).embed([picture])
        added = method.to_decoder(method.jbu(plain.features, pixels))

        def add(_: nn.Module, __: object, out: Tensor, added: Tensor = added) -> Tensor:
            return F.interpolate(out, (side, side), mode="bilinear") + added

        hook = model.mask_decoder.upscale_conv2.register_forward_hook(add)
        low, _ = decode_low_resolution(model, plain, [prompts[b]], False)
        hook.remove()
        assert low.shape[-1] == side
        probability = F.interpolate(low.sigmoid(), (51, 70), mode="bilinear")
        assert torch.allclose(found[b].sigmoid(), probability[0], atol=1e-4)
        alone = method.decode(method.embed([picture]), [prompts[b]], (51, 70)).masks[0]
        assert torch.allclose(found[b], alone, atol=1e-3)
    assert (masks(MedSam(model), pictures, prompts) - found).abs().max() > 0.1


def test_prompts_of_one_slice_share_its_features(model: SamModel, pictures: list[np.ndarray]) -> None:
    """Point batches of transformers: what is added is repeated, not mixed between slices."""
    method = opened(FeatUp(model))
    with torch.inference_mode():
        embedding = method.embed(pictures)
        folded = torch.cat([embedding.features, F.pixel_unshuffle(embedding.extras[0], 4)], 1)
        boxes = torch.tensor([[[5.0, 5, 30, 30], [20, 10, 60, 50]], [[3.0, 9, 50, 40], [8, 8, 30, 60]]])
        both = method.model(image_embeddings=folded, input_boxes=boxes, multimask_output=False).pred_masks
        for b in range(2):
            for p in range(2):
                one = method.model(
                    image_embeddings=folded[b : b + 1],
                    input_boxes=boxes[b : b + 1, p : p + 1],
                    multimask_output=False,
                ).pred_masks
                assert torch.allclose(one[0, 0], both[b, p], atol=1e-3)


def test_training(model: SamModel, pictures: list[np.ndarray]) -> None:
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    plain = masks(MedSam(model), pictures, [[BOX], [BOX]])
    method = FeatUp(model)
    start = {n: p.detach().clone() for n, p in method.named_parameters()}
    method.prepare_training()
    method.train()
    images = torch.stack([method.prepare(p)[0] for p in pictures])
    assert not any(t.requires_grad for t in (lambda e: (e.features, *e.extras))(method.encode(images)))
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 1e-3)
    truth = torch.zeros(2, 1, 51, 70)
    truth[..., 10:30, 10:38] = 1
    alive: list[set[str]] = []
    for _ in range(2):
        optimiser.zero_grad()
        method.loss(images, [[BOX], [BOX]], truth).backward()
        alive.append(
            {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        )
        optimiser.step()
    upsampler = {n for n in start if n.startswith("jbu.")}
    assert {"to_decoder.weight", "to_decoder.bias"} <= alive[0]
    assert not alive[0] & upsampler  # the convolution after it is still 0
    assert upsampler <= alive[1]
    moved = {n for n, p in method.named_parameters() if not torch.equal(p, start[n])}
    assert upsampler <= moved <= set(method.trained_names())
    # the given model and what else runs on it are as they were
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert torch.equal(masks(MedSam(model), pictures, [[BOX], [BOX]]), plain)
    assert (masks(method.eval(), pictures, [[BOX], [BOX]]) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_training_decodes_what_serving_decodes(model: SamModel, pictures: list[np.ndarray]) -> None:
    method = opened(FeatUp(model))
    served = method.decode(method.embed(pictures), [[BOX], [CLICK]], (16, 16)).masks
    for module in method.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    method.train()
    embedding = method.embed(pictures)
    assert embedding.extras[0].shape == (2, 3, 16, 16)
    trained = method.decode(embedding, [[BOX], [CLICK]], (16, 16)).masks
    assert torch.allclose(trained.clamp(-8, 8), served.clamp(-8, 8), atol=1e-2)


@pytest.mark.parametrize("variant", ["decoder", "hires"])
def test_saved_weights_give_the_same_logits(
    model: SamModel, pictures: list[np.ndarray], tmp_path: Path, variant: str
) -> None:
    save_jbu(JbuStack(64, 3 if variant == "hires" else 2), tmp_path / "jbu.safetensors")
    config = FeatUpConfig(variant, jbu=str(tmp_path / "jbu.safetensors"))  # type: ignore[arg-type]
    method = opened(FeatUp(model, config))
    save_trained(method, tmp_path / "trained", "abc")
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["config"]["jbu"] == ""
    again = FeatUp(tiny_sam(5, SIZE), FeatUpConfig(variant)).eval()  # type: ignore[arg-type]
    load_trained(again, tmp_path / "trained", "abc")
    wanted = masks(method, pictures, [[BOX], [CLICK]])
    assert (masks(again, pictures, [[BOX], [CLICK]]) - wanted).abs().max() <= 1e-6
    with pytest.raises(ValueError, match="do not fit featup"):
        load_trained(FeatUp(model, FeatUpConfig(stages=4)), tmp_path / "trained", "abc")


def test_a_pretrained_upsampler_is_the_start(model: SamModel, tmp_path: Path) -> None:
    path = tmp_path / "jbu.safetensors"
    jbu = JbuStack(64)
    save_jbu(jbu, path)
    method = FeatUp(model, FeatUpConfig(jbu=str(path)))
    assert all(torch.equal(a, b) for a, b in zip(method.jbu.parameters(), jbu.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"in 2 stages, but this config needs 3"):
        FeatUp(model, FeatUpConfig("hires", jbu=str(path)))
    with pytest.raises(FileNotFoundError, match="pretrain_jbu"):
        FeatUp(model, FeatUpConfig(jbu=str(tmp_path / "none.safetensors")))


def test_stages_of_another_backbone_are_the_start(model: SamModel, tmp_path: Path) -> None:
    jbu = JbuStack(24, 4)
    names = {"range_projection": "range_proj", "fixup": "fixup_proj", "log_temperature": "range_temp"}
    state = {"model.blocks.0.weight": torch.zeros(2)}
    for name, tensor in jbu.state_dict().items():
        if name.startswith("mix."):
            state[name.replace("mix", "upsampler.fixup_proj.1")] = tensor
            continue
        stage, part, *rest = name.removeprefix("stages.").split(".")
        state[".".join((f"upsampler.up{int(stage) + 1}", names.get(part, "sigma_spatial"), *rest))] = tensor
    torch.save({"state_dict": state, "epoch": 0}, tmp_path / "dino16.ckpt")
    method = FeatUp(model, FeatUpConfig("hires", jbu=str(tmp_path / "dino16.ckpt")))
    assert len(method.jbu.stages) == 3
    for ours, theirs in zip(method.jbu.stages, jbu.stages, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert method.jbu.mix.weight.shape[:2] == (64, 64)
    assert not method.jbu.mix.weight.any()
    torch.save({"state_dict": {"upsampler.up1.range_temp": torch.zeros(())}}, tmp_path / "dino16.ckpt")
    with pytest.raises(ValueError, match="is not an upsampler of FeatUp"):
        FeatUp(model, FeatUpConfig(jbu=str(tmp_path / "dino16.ckpt")))


def test_wrong_settings_and_sizes_are_refused(model: SamModel) -> None:
    with pytest.raises(ValueError, match=r"'viz' is unknown.*decoder, hires"):
        FeatUpConfig("viz")  # type: ignore[arg-type]
    for variant, stages in (("decoder", 5), ("decoder", -1), ("hires", 2)):
        with pytest.raises(ValueError, match=rf"stages is {stages}.*Leave it at 0"):
            FeatUpConfig(variant, stages)  # type: ignore[arg-type]
    for shape in ((1, 3, SIZE, SIZE + 1), (1, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"\(3, 64, 64\).*prepare"):
            FeatUp(model).encode(torch.zeros(shape))


def test_constant_slices_stay_finite(model: SamModel) -> None:
    method = opened(FeatUp(model))
    assert torch.isfinite(masks(method, [np.full((40, 50), 7, np.uint8)], [[BOX]])).all()


def test_half_precision_of_the_encoder_keeps_the_mask(model: SamModel, pictures: list[np.ndarray]) -> None:
    single = opened(FeatUp(model))
    half = copy.deepcopy(single)
    prepare_encoder(half.model.vision_encoder, "cpu", "bf16")
    a, b = (masks(m, pictures[:1], [[BOX]]) > 0 for m in (single, half))
    assert 0.02 < a.float().mean() < 0.98
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.99
