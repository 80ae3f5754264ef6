"""Joint bilateral upsampling by hand, its training on images alone, and the network for one image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmed.methods.featup.featup_implicit import ImplicitConfig, ImplicitUpsampler, upsample_implicitly
from segmed.methods.featup.featup_training import (
    AttentionDownsampler,
    JbuTrainingConfig,
    Reconstruction,
    crf_loss,
    look_through,
    pretrain_jbu,
    sample_jitters,
)
from segmed.methods.featup.jbu import JbuStack, JbuStage, load_jbu, save_jbu
from torch import Generator, Tensor, nn


@torch.no_grad()
def test_a_stage_by_hand() -> None:
    torch.manual_seed(0)
    stage = JbuStage().eval()
    stage.log_temperature.fill_(0.5)
    stage.sigma.fill_(0.8)
    features, image = torch.randn(1, 2, 4, 3), torch.rand(1, 3, 16, 12)
    guide = F.avg_pool2d(image, 2)
    keys = F.pad(stage.range_projection(guide), [3] * 4, mode="reflect")[0]
    fine = F.pad(F.interpolate(features, (8, 6), mode="bicubic"), [3] * 4, mode="reflect")[0]
    steps = torch.linspace(-1, 1, 7)
    out = torch.zeros(2, 8, 6)
    for y in range(8):
        for x in range(6):
            likeness = torch.einsum("cij,c->ij", keys[:, y : y + 7, x : x + 7], keys[:, y + 3, x + 3])
            range_kernel = (math.exp(0.5) * likeness).flatten().softmax(0).view(7, 7)
            kernel = range_kernel * torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 0.8**2))
            kernel = kernel / kernel.sum()
            seen = torch.cat([kernel.flatten(), guide[0, :, y, x]])[None, :, None, None]
            kernel = kernel + 0.1 * stage.fixup(seen).view(7, 7)
            out[:, y, x] = (kernel * fine[:, y : y + 7, x : x + 7]).sum((1, 2))
    assert torch.allclose(stage(features, image)[0], out, atol=1e-5)
    assert [tuple(p.shape) for p in stage.range_projection.parameters()][::2] == [
        (32, 3, 1, 1),
        (32, 32, 1, 1),
    ]
    assert [tuple(p.shape) for p in stage.fixup.parameters()][::2] == [(49, 52, 1, 1), (49, 49, 1, 1)]


@torch.no_grad()
def test_constant_features_stay_constant_without_corrections() -> None:
    torch.manual_seed(1)
    jbu = JbuStack(5).eval()
    features = torch.arange(1.0, 6.0)[None, :, None, None].expand(1, 5, 4, 4)
    image = torch.rand(1, 3, 64, 64)
    assert (jbu(features, image).amax((2, 3)) - jbu(features, image).amin((2, 3))).min() > 1e-3
    for stage in jbu.stages:
        for parameter in stage.fixup.parameters():
            parameter.zero_()
    for parameter in jbu.mix.parameters():
        parameter.zero_()
    assert torch.allclose(
        jbu(features, image), features.new_ones(1, 1, 16, 16) * features[..., :1, :1], atol=1e-5
    )


@torch.no_grad()
def test_edges_of_the_image_guide() -> None:
    """With keys that tell dark from bright, features do not cross the edge that bicubic upsampling smears."""
    stage = JbuStage().eval()
    for parameter in (*stage.range_projection.parameters(), *stage.fixup.parameters()):
        parameter.zero_()
    stage.range_projection[0].weight[:2, 0, 0, 0] = torch.tensor([20.0, -20.0])
    stage.range_projection[0].bias[:2] = torch.tensor([-10.0, 10.0])
    stage.range_projection[3].weight[:2, :2, 0, 0] = torch.eye(2)
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1
    features = F.avg_pool2d(image[:, :1], 2)
    sharp = stage(features, image)[0, 0, 5]
    smeared = F.interpolate(features, (16, 16), mode="bicubic")[0, 0, 5]
    truth = image[0, 0, 5]
    assert (sharp - truth).abs().max() < 0.7 * (smeared - truth).abs().max()


@pytest.mark.parametrize("training", [False, True])
def test_projecting_first_is_the_same(training: bool) -> None:
    torch.manual_seed(2)
    jbu, head = JbuStack(16, 3).train(training), nn.Conv2d(16, 4, 1)
    for module in jbu.stages.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0  # its draws would come in another order
    features, image = torch.randn(2, 16, 5, 7), torch.rand(2, 3, 33, 47)
    torch.manual_seed(3)
    wanted = head(jbu(features, image))
    torch.manual_seed(3)
    found = jbu.projected(features, image, head)
    assert found.shape == (2, 4, 40, 56)
    assert torch.allclose(found, wanted, atol=1e-4)
    if training:
        torch.manual_seed(4)
        assert not torch.allclose(jbu.projected(features, image, head), wanted, atol=1e-2)


def test_files(tmp_path: Path) -> None:
    jbu, path = JbuStack(8, 1), tmp_path / "jbu.safetensors"
    save_jbu(jbu, path)
    again = load_jbu(path)
    assert (again.channels, len(again.stages)) == (8, 1)
    assert all(torch.equal(a, b) for a, b in zip(jbu.parameters(), again.parameters(), strict=True))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"jbu.safetensors is not an upsampler, or is damaged"):
        load_jbu(path)
    with pytest.raises(FileNotFoundError, match="pretrain_jbu"):
        load_jbu(tmp_path / "none.safetensors")


def test_views() -> None:
    views = sample_jitters(2000, 0.1, 2.0, Generator().manual_seed(0))
    zoom, mirror = 1 / views[:, 1, 1], views[:, 0, 0].sign()
    assert 1.9 < zoom.max() <= 2
    assert 0.45 < (zoom == 1).float().mean() < 0.55
    assert 0.45 < (mirror < 0).float().mean() < 0.55
    reach = (
        views[:, :, 2].abs() + 1 / zoom[:, None]
    )  # the far side of the window, 1 at the border of the image
    assert 1.19 < reach.max() <= 1.2 + 1e-5
    image = torch.rand(1, 2, 6, 8)
    assert torch.allclose(look_through(image, torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])), image, atol=1e-5)
    assert torch.allclose(
        look_through(image, torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])), image.flip(3), atol=1e-5
    )
    moved = look_through(image, torch.tensor([[[1.0, 0, 2 * 2 / 8], [0, 1, 0]]]))  # two columns
    assert torch.allclose(moved, torch.cat([image[..., 2:], image[..., 6:].flip(3)], 3), atol=1e-5)


@torch.no_grad()
def test_the_downsampler_takes_weighted_means() -> None:
    torch.manual_seed(0)
    downsample = AttentionDownsampler(3, 4).eval()
    constant = torch.full((1, 3, 16, 24), 2.5)
    assert torch.allclose(downsample(constant), constant[..., :4, :6], atol=1e-5)
    fine = torch.zeros(1, 3, 16, 16)
    fine[..., 4:8, 8:12] = 9.0  # one patch; its neighbours get what the blur spreads
    coarse = downsample(fine)[0, 0]
    assert coarse.argmax() == 1 * 4 + 2
    assert coarse[3, 0] == 0
    downsample.score[1].weight.copy_(torch.tensor([[50.0, 0, 0]]))  # looks for large values in channel 0
    assert (downsample(fine)[0, 0, 1, 2] > coarse[1, 2] + 0.5).all()


@torch.no_grad()
def test_the_losses_by_hand() -> None:
    torch.manual_seed(0)
    reconstruction = Reconstruction(4)
    found, wanted = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    directions = F.normalize(torch.randn(4, 6), dim=0)
    scale = torch.exp(reconstruction.log_scale(wanted) + 0.1)[:, 0]
    total = 0.0
    for d in range(6):
        projected = ((found - wanted) * directions[:, d, None, None]).sum(1)
        total += (projected**2 / (2 * scale**2) + scale.log()).mean().item() / 6
    assert reconstruction(found, wanted, directions).item() == pytest.approx(total, abs=1e-5)

    fine, image = torch.randn(1, 3, 5, 8), torch.rand(1, 3, 5, 8)
    draw = torch.rand(2, 7, generator=Generator().manual_seed(5))
    at = [(int(draw[0, n] * 5), int(draw[1, n] * 8)) for n in range(7)]
    total = 0.0
    for y, x in at:
        for v, u in at:
            near = ((y - v) / 5) ** 2 + ((x - u) / 8) ** 2
            alike = (image[0, :, y, x] - image[0, :, v, u]).square().sum().item()
            kernel = 10 * math.exp(-near / 0.2 - alike / 0.3) + 3 * math.exp(-near / 0.01)
            total += kernel * (fine[0, :, y, x] - fine[0, :, v, u]).square().sum().item() / 49
    assert crf_loss(fine, image, 7, Generator().manual_seed(5)).item() == pytest.approx(total, rel=1e-4)
    assert crf_loss(torch.ones(1, 3, 5, 8), image).item() == pytest.approx(0, abs=1e-4)


class Encoder(nn.Module):
    """A stand-in for SAM's: six fixed features of patches of 4 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return 3 * torch.tanh(2 * self.conv(images))


def drawings(size: int) -> Iterator[Tensor]:
    """Batches (2, 3, size, size) of squares on a ramp."""
    generator = np.random.default_rng(0)
    while True:
        images = torch.linspace(0, 0.3, size).expand(2, 3, size, size).clone()
        for image in images:
            y, x = generator.integers(0, size - 8, 2)
            image[:, y : y + 8, x : x + 8] = float(generator.uniform(0.5, 1))
        yield images


def test_pretraining_learns_from_images_alone() -> None:
    config = JbuTrainingConfig(steps=20, rate=1e-2, jitters=2, directions=8, crf_points=40)
    torch.manual_seed(0)
    encoder, jbu, twin = Encoder(), JbuStack(6), JbuStack(6)
    twin.load_state_dict(jbu.state_dict())
    before = {n: p.detach().clone() for n, p in jbu.named_parameters()}
    told: list[int] = []
    losses = pretrain_jbu(jbu, encoder, drawings(16), config, lambda step, _: told.append(step))
    assert told == list(range(1, 21))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert all(not torch.equal(p, before[n]) for n, p in jbu.named_parameters())
    assert not jbu.training
    torch.rand(5)  # draws elsewhere do not change it
    assert pretrain_jbu(twin, encoder, drawings(16), replace(config, steps=3)) == losses[:3]
    with pytest.raises(ValueError, match="lower learning rate"):
        pretrain_jbu(JbuStack(6), lambda x: encoder(x) * float("nan"), drawings(16), config)
    with pytest.raises(ValueError, match="at least 1"):
        JbuTrainingConfig(steps=0)


def test_a_network_for_one_image() -> None:
    torch.manual_seed(0)
    assert sum(p.numel() for p in ImplicitUpsampler(128).layers[2].parameters()) == 303 * 128 + 128
    encoder, image = Encoder(), next(drawings(16))[:1]
    config = ImplicitConfig(views=12, fitted=6, steps=60, per_step=2, components=4, frequencies=8)
    told: list[tuple[int, int]] = []
    high = upsample_implicitly(image, encoder, config, lambda done, total: told.append((done, total)))
    low = encoder(image)
    assert high.shape == (1, 6, 16, 16)
    assert told[-1] == (72, 72)
    error = (F.avg_pool2d(high, 4) - low).square().mean()
    assert error < 0.5 * (low - low.mean((2, 3), keepdim=True)).square().mean()
    with pytest.raises(ValueError, match="at least 1"):
        ImplicitConfig(views=0)
