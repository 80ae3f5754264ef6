"""SAMs with a TinyViT encoder: published names and shapes, and the same numbers as a plain reading of the
paper."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from segmed.methods.adapter.adapter import AdapterSam, AdapterSamConfig
from segmed.methods.imedsam.imedsam import Imedsam
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.decoder_tuning import DecoderTuning, DecoderTuningConfig
from segmed.sam.checkpoints.keymap import infer_config, to_transformers
from segmed.sam.cpu import bands
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.encoders.tiny_vit import TinyVitShape
from segmed.sam.weights import load_sam, weights_version
from tiny_sam import tiny_sam, to_original
from torch import Tensor, nn

SHAPE = TinyVitShape((16, 32, 32, 64), (1, 1, 2, 1), (2, 2, 4), (3, 5, 3))


def published(shape: TinyVitShape, channels: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """Random weights by the published names; prompts and decoder are those of `tiny_sam`."""
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, Tensor] = {}

    def put(name: str, *size: int, sd: float = 0.0) -> None:
        scale = sd or max(1, int(torch.tensor(size[1:]).prod())) ** -0.5
        out[f"image_encoder.{name}"] = torch.randn(size, generator=generator) * scale

    def convolution(name: str, into: int, to: int, kernel: int) -> None:
        put(f"{name}.c.weight", to, into, kernel, kernel)
        for part in ("bn.bias", "bn.running_mean"):
            put(f"{name}.{part}", to, sd=0.1)
        for part in ("bn.weight", "bn.running_var"):
            out[f"image_encoder.{name}.{part}"] = 0.5 + torch.rand(to, generator=generator)
        out[f"image_encoder.{name}.bn.num_batches_tracked"] = torch.tensor(7)

    def linear(name: str, into: int, to: int) -> None:
        put(f"{name}.weight", to, into)
        put(f"{name}.bias", to, sd=0.1)

    def norm(name: str, width: int) -> None:
        out[f"image_encoder.{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=generator)
        put(f"{name}.bias", width, sd=0.1)

    first = shape.widths[0]
    convolution("patch_embed.seq.0", 3, first // 2, shape.stem)
    convolution("patch_embed.seq.2", first // 2, first, shape.stem)
    for stage, (width, depth) in enumerate(zip(shape.widths, shape.depths, strict=True)):
        for n in range(depth):
            block = f"layers.{stage}.blocks.{n}"
            if stage == 0:
                convolution(f"{block}.conv1", width, 4 * width, 1)
                convolution(f"{block}.conv2", 1, 4 * width, 3)
                convolution(f"{block}.conv3", 4 * width, width, 1)
                continue
            norm(f"{block}.attn.norm", width)
            linear(f"{block}.attn.qkv", width, 3 * width)
            linear(f"{block}.attn.proj", width, width)
            put(f"{block}.attn.attention_biases", shape.heads[stage - 1], shape.windows[stage - 1] ** 2, sd=1)
            norm(f"{block}.mlp.norm", width)
            linear(f"{block}.mlp.fc1", width, 4 * width)
            linear(f"{block}.mlp.fc2", 4 * width, width)
            convolution(f"{block}.local_conv", 1, width, 3)
        if stage < 3:
            following = shape.widths[stage + 1]
            for part, into, kernel in (("conv1", width, 1), ("conv2", 1, 3), ("conv3", following, 1)):
                convolution(f"layers.{stage}.downsample.{part}", into, following, kernel)
    norm("norm_head", shape.widths[-1])
    linear("head", shape.widths[-1], 1)
    put("neck.0.weight", channels, shape.widths[-1], 1, 1)
    norm("neck.1", channels)
    put("neck.2.weight", channels, channels, 3, 3)
    norm("neck.3", channels)
    rest = to_original(tiny_sam())
    return out | {k: v for k, v in rest.items() if not k.startswith("image_encoder.")}


def plain_encoder(state: dict[str, Tensor], shape: TinyVitShape, x: Tensor) -> Tensor:
    """The encoder by the paper's formulas, with batch normalisation as a step and attention pair by pair."""
    weights = {key.removeprefix("image_encoder."): t.double() for key, t in state.items()}

    def convolution(name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.c.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        stats = [weights[f"{name}.bn.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *stats)

    def normalised(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attention(name: str, x: Tensor, heads: int, window: int) -> Tensor:
        """One window (w, w, C)."""
        tokens = normalised(f"{name}.norm", x.reshape(window**2, -1))
        table, out = weights[f"{name}.attention_biases"], []
        places = list(itertools.product(range(window), range(window)))
        for head, part in enumerate(linear(f"{name}.qkv", tokens).chunk(heads, -1)):
            q, k, v = part.chunk(3, -1)
            bias = torch.tensor(
                [[table[head, abs(a - c) * window + abs(b - d)] for c, d in places] for a, b in places]
            )
            out.append((q @ k.T / k.shape[1] ** 0.5 + bias).softmax(-1) @ v)
        return linear(f"{name}.proj", torch.cat(out, -1)).view(window, window, -1)

    stride = 2 if shape.stem == 3 else 1
    x = convolution("patch_embed.seq.0", x.double(), stride)
    x = convolution("patch_embed.seq.2", F.gelu(x), stride)
    for stage, depth in enumerate(shape.depths):
        for n in range(depth):
            block = f"layers.{stage}.blocks.{n}"
            if stage == 0:
                hidden = F.gelu(convolution(f"{block}.conv1", x))
                hidden = F.gelu(convolution(f"{block}.conv2", hidden, groups=hidden.shape[1]))
                x = F.gelu(x + convolution(f"{block}.conv3", hidden))
                continue
            w, heads = shape.windows[stage - 1], shape.heads[stage - 1]
            (height, width), grid = x.shape[2:], x[0].permute(1, 2, 0)
            padded = torch.zeros(-(-height // w) * w, -(-width // w) * w, grid.shape[2], dtype=x.dtype)
            padded[:height, :width] = grid
            for i, j in itertools.product(range(0, len(padded), w), range(0, padded.shape[1], w)):
                padded[i : i + w, j : j + w] = attention(
                    f"{block}.attn", padded[i : i + w, j : j + w].clone(), heads, w
                )
            x = x + padded[:height, :width].permute(2, 0, 1)
            x = convolution(f"{block}.local_conv", x, groups=x.shape[1])
            tokens = normalised(f"{block}.mlp.norm", x.permute(0, 2, 3, 1))
            tokens = linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", tokens)))
            x = x + tokens.permute(0, 3, 1, 2)
        if stage < 3:
            name = f"layers.{stage}.downsample"
            x = F.gelu(convolution(f"{name}.conv1", x))
            x = F.gelu(convolution(f"{name}.conv2", x, 1 if stage == 2 else 2, x.shape[1]))
            x = convolution(f"{name}.conv3", x)
    for n, padding in ((0, 0), (2, 1)):
        x = F.conv2d(x, weights[f"neck.{n}.weight"], padding=padding)
        x = F.layer_norm(
            x.permute(0, 2, 3, 1),
            x.shape[1:2],
            weights[f"neck.{n + 1}.weight"],
            weights[f"neck.{n + 1}.bias"],
            1e-6,
        ).permute(0, 3, 1, 2)
    return x


@pytest.mark.parametrize("stem", [1, 3])
def test_published_weights_give_the_features_of_the_paper(tmp_path: Path, stem: int) -> None:
    shape = TinyVitShape(SHAPE.widths, SHAPE.depths, SHAPE.heads, SHAPE.windows, stem)
    state = published(shape)
    torch.save(state, tmp_path / "w.pth")
    size = 10 * shape.patch_size  # in tokens no multiple of the windows
    model = load_sam(str(tmp_path / "w.pth"), size)
    image = torch.rand(1, 3, size, size)
    with torch.inference_mode():
        wanted = plain_encoder(state, shape, image)
        got = model.vision_encoder(image).last_hidden_state
        prepared = prepare_encoder(model.vision_encoder, "cpu", "fp32")(image).last_hidden_state
        masks = model(pixel_values=image, input_boxes=torch.tensor([[[2.0, 3.0, 20.0, 30.0]]])).pred_masks
    assert (got - wanted).abs().max() < 1e-4
    assert (prepared - wanted).abs().max() < 1e-4
    assert got.shape == (1, 64, 10, 10)
    assert masks.shape[-2:] == (40, 40)


@pytest.mark.parametrize(("stem", "size", "preparation"), [(1, 256, "litemedsam"), (3, 1024, "sam")])
def test_the_stem_tells_the_input_size_and_the_preparation(stem: int, size: int, preparation: str) -> None:
    shape = TinyVitShape(stem=stem)
    config = infer_config(to_transformers(published(shape, 256)))
    assert TinyVitShape.of(config.vision_config.tiny_vit) == shape
    assert config.prompt_encoder_config.image_size == size
    assert config.vision_config.image_size == size
    assert config.prompt_encoder_config.image_embedding_size == 64
    assert config.preparation == preparation


def test_a_folder_of_transformers_gives_the_same_model(tmp_path: Path) -> None:
    torch.save(published(SHAPE), tmp_path / "w.pth")
    model = load_sam(str(tmp_path / "w.pth"), 160)
    model.save_pretrained(tmp_path / "folder")
    again = load_sam(str(tmp_path / "folder"))
    assert weights_version(again) == weights_version(model)
    assert again.config.preparation == "sam"
    image = torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        a, b = (m.vision_encoder(image).last_hidden_state for m in (model, again))
    assert torch.equal(a, b)


def test_incomplete_weights_are_refused_by_name(tmp_path: Path) -> None:
    state = published(SHAPE)
    del state["image_encoder.layers.1.blocks.0.local_conv.bn.running_var"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"local_conv\.bn\.running_var.*is missing"):
        load_sam(str(tmp_path / "w.pth"))


def test_methods_that_change_a_vit_say_that_there_is_none(tmp_path: Path) -> None:
    torch.save(published(SHAPE), tmp_path / "w.pth")
    model = load_sam(str(tmp_path / "w.pth"), 160)
    for build in (
        lambda: LoraSam(model, LoraSamConfig(("one",), rank=1)),
        lambda: AdapterSam(model, AdapterSamConfig(("one",))),
        lambda: Imedsam(model),
    ):
        with pytest.raises(ValueError, match=r"changes the layers of a ViT.*or the method medsam"):
            build()


def test_the_whole_encoder_learns_and_can_recompute(tmp_path: Path) -> None:
    torch.save(published(SHAPE), tmp_path / "w.pth")
    gradients = []
    for spare in (False, True):
        method = DecoderTuning(load_sam(str(tmp_path / "w.pth"), 160), DecoderTuningConfig("full"))
        method.prepare_training()
        if spare:
            method.spare_memory()
        method.train()
        images = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
        method.encode(images).features.square().mean().backward()
        encoder = dict(method.model.vision_encoder.named_parameters())
        assert all(p.grad is not None for p in encoder.values())
        gradients.append(encoder["stages.1.layers.0.attn.attention_biases"].grad)
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 6, 21, 13), (2, 6, 16, 8)])
@torch.inference_mode()
def test_bands_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, stride: int, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    before, depthwise, behind = (
        nn.Conv2d(6, 24, 1),
        nn.Conv2d(24, 24, 3, stride, 1, groups=24),
        nn.Conv2d(24, 5, 1),
    )
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    whole = behind(depthwise(before(x).relu()))
    widths = [24 * 4 * shape[0] * shape[3] * stride * rows for rows in (1, 3, 5, 100)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for width in widths:
        monkeypatch.setattr(bands, "_BYTES", width)
        found = bands.separable(x, lambda part: before(part).relu(), depthwise, behind)
        assert found.shape == whole.shape and torch.allclose(found, whole, atol=1e-6)
        tokens = x.permute(0, 2, 3, 1)
        assert torch.allclose(
            bands.tokenwise(tokens, lambda t: t.exp().sum(-1, keepdim=True), 24),
            tokens.exp().sum(-1, keepdim=True),
        )
