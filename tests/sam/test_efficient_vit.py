"""EfficientViT-SAM: published names and shapes, and the same numbers as a plain reading of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.weights import load_sam, weights_version
from tiny_sam import tiny_sam, to_original
from torch import Tensor

DIM = 8  # channels of a head
WIDTHS = (8, 16, 16, 16, 32)
STAGES = (("res",), ("fmb",), ("fmb",), ("mb", "mb"), ("att",))  # after the first block of each stage


class Published:
    """Random weights by the published names, below `image_encoder.`."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.state: dict[str, Tensor] = {}

    def convolution(
        self, name: str, into: int, to: int, kernel: int, norm: bool = True, bias: bool = False
    ) -> None:
        sd = (into * kernel**2) ** -0.5
        self.state[f"{name}.conv.weight"] = (
            torch.randn(to, into, kernel, kernel, generator=self.generator) * sd
        )
        if bias:
            self.state[f"{name}.conv.bias"] = torch.randn(to, generator=self.generator) * 0.1
        if norm:
            for part in ("bias", "running_mean"):
                self.state[f"{name}.norm.{part}"] = torch.randn(to, generator=self.generator) * 0.1
            for part in ("weight", "running_var"):
                self.state[f"{name}.norm.{part}"] = 0.5 + torch.rand(to, generator=self.generator)
            self.state[f"{name}.norm.num_batches_tracked"] = torch.tensor(3)

    def block(self, name: str, kind: str, into: int, hidden: int, to: int, fewer: bool = False) -> None:
        parts = {
            "res": (("conv1", into, hidden, 3), ("conv2", hidden, to, 3)),
            "fmb": (("spatial_conv", into, hidden, 3), ("point_conv", hidden, to, 1)),
            "mb": (
                ("inverted_conv", into, hidden, 1),
                ("depth_conv", 1, hidden, 3),
                ("point_conv", hidden, to, 1),
            ),
        }[kind]
        for n, (part, i, o, kernel) in enumerate(parts):
            plain = fewer and n < len(parts) - 1
            self.convolution(f"{name}.{part}", i, o, kernel, norm=not plain, bias=plain)

    def attention(self, name: str, width: int) -> None:
        context, three = f"{name}.context_module.main", 3 * width
        self.convolution(f"{context}.qkv", width, three, 1, norm=False)
        for part, into, kernel in (("0.0", 1, 3), ("0.1", DIM, 1)):
            weight = (
                torch.randn(three, into, kernel, kernel, generator=self.generator)
                * (into * kernel**2) ** -0.5
            )
            self.state[f"{context}.aggreg.{part}.weight"] = weight
        self.convolution(f"{context}.proj", 2 * width, width, 1)
        self.block(f"{name}.local_module.main", "mb", width, 2 * width, width, fewer=True)

    def encoder(self) -> dict[str, Tensor]:
        stages = "image_encoder.backbone.stages"
        self.convolution(f"{stages}.0.op_list.0", 3, WIDTHS[0], 3)
        for stage, kinds in enumerate(STAGES):
            width = WIDTHS[stage]
            if stage:
                kind = kinds[0] if kinds[0] == "fmb" else "mb"
                into = WIDTHS[stage - 1]
                self.block(f"{stages}.{stage}.op_list.0.main", kind, into, 2 * into, width, fewer=stage > 2)
            for n, kind in enumerate(kinds, start=1):
                name = f"{stages}.{stage}.op_list.{n}"
                if kind == "att":
                    self.attention(name, width)
                else:
                    self.block(f"{name}.main", kind, width, 2 * width, width, fewer=stage > 2)
        neck = "image_encoder.neck"
        for n, stage in enumerate((4, 3, 2)):
            self.convolution(f"{neck}.input_ops.{n}.op_list.0", WIDTHS[stage], 16, 1)
        self.block(f"{neck}.middle.op_list.0.main", "fmb", 16, 16, 16)
        self.convolution(f"{neck}.output_ops.0.op_list.0", 16, 64, 1, norm=False, bias=True)
        for part, mean in (("weight", 1.0), ("bias", 0.0)):
            self.state[f"image_encoder.norm.{part}"] = mean + torch.randn(64, generator=self.generator) * 0.1
        rest = to_original(tiny_sam())
        return self.state | {k: v for k, v in rest.items() if not k.startswith("image_encoder.")}


def plain_encoder(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The encoder step by step, with batch normalisation as a step of its own."""
    w = {name: tensor.double() for name, tensor in state.items()}

    def convolution(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = w[f"{name}.conv.weight"]
        x = F.conv2d(
            x,
            kernel,
            w.get(f"{name}.conv.bias"),
            stride,
            kernel.shape[-1] // 2,
            groups=x.shape[1] // kernel.shape[1],
        )
        if f"{name}.norm.weight" not in w:
            return x
        stats = [w[f"{name}.norm.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *stats, eps=1e-6)

    def block(name: str, x: Tensor, stride: int = 1) -> Tensor:
        parts = ("conv1", "conv2", "spatial_conv", "inverted_conv", "depth_conv", "point_conv")
        parts = tuple(part for part in parts if f"{name}.{part}.conv.weight" in w)
        y = x
        for n, part in enumerate(parts):
            halves = stride if w[f"{name}.{part}.conv.weight"].shape[-1] == 3 and part != "conv2" else 1
            y = convolution(f"{name}.{part}", F.gelu(y) if n else y, halves)
        return y if stride == 2 else x + y

    def attention(name: str, x: Tensor) -> Tensor:
        context = f"{name}.context_module.main"
        qkv = convolution(f"{context}.qkv", x)
        near = F.conv2d(qkv, w[f"{context}.aggreg.0.0.weight"], padding=1, groups=qkv.shape[1])
        near = F.conv2d(near, w[f"{context}.aggreg.0.1.weight"], groups=qkv.shape[1] // DIM)
        heads = []
        for part in (*qkv.split(3 * DIM, 1), *near.split(3 * DIM, 1)):
            q, k, v = (t[0].flatten(1) for t in part.split(DIM, 1))
            similarity = q.relu().T @ k.relu()  # (query, key)
            heads.append((similarity / similarity.sum(1, keepdim=True) @ v.T).T.view(1, DIM, *x.shape[2:]))
        x = x + convolution(f"{context}.proj", torch.cat(heads, 1))
        return block(f"{name}.local_module.main", x)

    scales, x = [], x.double()
    for stage, kinds in enumerate(STAGES):
        name = f"image_encoder.backbone.stages.{stage}.op_list"
        x = block(f"{name}.0.main", x, 2) if stage else F.gelu(convolution(f"{name}.0", x, 2))
        for n, kind in enumerate(kinds, start=1):
            x = attention(f"{name}.{n}", x) if kind == "att" else block(f"{name}.{n}.main", x)
        scales.append(x)
    size = scales[2].shape[2:]
    x = torch.zeros(1, 16, *size, dtype=torch.float64)
    for n, stage in enumerate((4, 3, 2)):
        y = convolution(f"image_encoder.neck.input_ops.{n}.op_list.0", scales[stage])
        x = x + (F.interpolate(y, size, mode="bicubic") if stage > 2 else y)
    x = convolution(
        "image_encoder.neck.output_ops.0.op_list.0", block("image_encoder.neck.middle.op_list.0.main", x)
    )
    norm = F.layer_norm(
        x.permute(0, 2, 3, 1), (64,), w["image_encoder.norm.weight"], w["image_encoder.norm.bias"], 1e-6
    )
    return norm.permute(0, 3, 1, 2)


@torch.inference_mode()
def test_published_weights_give_the_features_of_the_papers(tmp_path: Path) -> None:
    state = Published().encoder()
    torch.save(state, tmp_path / "w.pt")
    model = load_sam(str(tmp_path / "w.pt"), 128)
    assert load_sam(str(tmp_path / "w.pt")).config.vision_config.image_size == 512
    assert model.config.preparation == "sam"
    image = torch.rand(1, 3, 128, 128)
    wanted = plain_encoder(state, image)
    assert (model.vision_encoder(image).last_hidden_state - wanted).abs().max() < 1e-4
    box = torch.tensor([[[10.0, 20.0, 90.0, 100.0]]])
    assert model(pixel_values=image, input_boxes=box).pred_masks.shape[-2:] == (64, 64)
    model.save_pretrained(tmp_path / "folder")
    again = load_sam(str(tmp_path / "folder"))
    assert weights_version(again) == weights_version(model)
    prepared = prepare_encoder(again.vision_encoder, "cpu", "fp32")(image).last_hidden_state
    assert (prepared - wanted).abs().max() < 1e-4


def test_incomplete_weights_are_refused_by_name(tmp_path: Path) -> None:
    state = Published().encoder()
    del state["image_encoder.backbone.stages.0.op_list.1.main.conv1.norm.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"conv1\.norm\.bias.*is missing"):
        load_sam(str(tmp_path / "w.pt"))
