"""The two networks beside the same written out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from segmed.methods import implicit_decoder
from segmed.methods.implicit_decoder import ImplicitDecoder, encode_positions, pixel_centres, sample
from torch import Tensor

SOURCE, POSITION, T = 8, 16, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(nodes: int | None = 12, share: float = 0.125, classes: int = 1, published: bool = False) -> ImplicitDecoder:
    """With running statistics and affine weights that are not those of a fresh layer."""
    torch.manual_seed(0)
    decoder = ImplicitDecoder(SOURCE, POSITION, classes, share, nodes, published)
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for tensor in (module.weight.data, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.normal_(0, 0.2)
    return decoder.eval()


@pytest.fixture(scope="module")
def maps() -> tuple[Tensor, Tensor]:
    return torch.randn(2, SOURCE, 12, 12, generator=seeded(1)), torch.randn(1, POSITION, 3, 3, generator=seeded(2))


def test_positions_of_the_paper() -> None:
    x, y = 0.3, -0.7
    encoded = encode_positions(torch.tensor([x, y]))
    angles = [2**octave * math.pi * p for p in (x, y) for octave in range(10)]
    wanted = [x, y, *map(math.sin, angles), *map(math.cos, angles)]
    assert encoded.shape == (42,)
    assert torch.allclose(encoded, torch.tensor(wanted), atol=2e-4)


def test_positions_of_the_code() -> None:
    encoded = encode_positions(torch.tensor([0.3, -0.7]), published=True)
    angles = [2 * math.pi * 2 ** (10 * f / 9) * p for p in (0.3, -0.7, -1.0) for f in range(10)]
    assert encoded.shape == (63,)
    assert torch.allclose(encoded[:3], torch.tensor([0.3, -0.7, -1.0]))
    assert torch.allclose(encoded[3:33], torch.tensor([math.sin(a) for a in angles]), atol=1e-3)


def test_pixel_centres() -> None:
    places = pixel_centres((2, 4))[0]
    assert places.tolist()[0] == pytest.approx([-0.75, -0.5])
    assert places.tolist()[1] == pytest.approx([-0.25, -0.5])
    assert places.tolist()[-1] == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize("shape", [(5, 9), (1, 1), (7, 1)])
def test_sampling_is_grid_sample(shape: tuple[int, int]) -> None:
    maps = torch.randn(2, *shape, 3, generator=seeded(), requires_grad=True)
    places = torch.rand(2, 40, 2, generator=seeded(1)) * 2 - 1
    theirs = F.grid_sample(maps.permute(0, 3, 1, 2), places[:, None], padding_mode="border", align_corners=False)
    ours, theirs = sample(maps, places), theirs[:, :, 0].transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-5)
    weight = torch.randn(ours.shape, generator=seeded(2))
    one, other = (torch.autograd.grad((v * weight).sum(), maps, retain_graph=True)[0] for v in (ours, theirs))
    assert torch.allclose(one, other, atol=1e-4)
    assert torch.allclose(sample(maps[:1], places)[1], sample(maps[:1], places[1:])[0], atol=1e-6)
    assert torch.allclose(sample(maps, places[:1])[1], sample(maps[1:], places[:1])[0], atol=1e-6)


def test_sampling_at_pixels_is_interpolation(maps: tuple[Tensor, Tensor]) -> None:
    source = maps[0]
    for size in ((12, 12), (5, 7), (30, 41)):
        wanted = F.interpolate(source, size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        assert torch.allclose(sample(source.permute(0, 2, 3, 1), pixel_centres(size)), wanted, atol=1e-5)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("nodes", [6, 24, None])
@torch.inference_mode()
def test_networks_written_out(maps: tuple[Tensor, Tensor], nodes: int | None, published: bool) -> None:
    decoder, size = make(nodes, published=published), (20, 15)
    out = decoder(*maps, size, T, seeded(7))
    shape = (nodes, nodes) if nodes else size

    def given(size: tuple[int, int]) -> Tensor:
        parts = [F.interpolate(m, size, mode="bilinear").expand(2, -1, -1, -1) for m in maps]
        where = encode_positions(pixel_centres(size), published).expand(2, -1, -1)
        return torch.cat([*(p.flatten(2).transpose(1, 2) for p in parts), where], -1)

    hidden = decoder.coarse_trunk(given(shape).flatten(0, 1)).unflatten(0, (2, -1))
    kept = torch.bernoulli(torch.full((T, 512), 0.5), generator=seeded(7)) * 2
    head = decoder.coarse_heads[0]
    passes = torch.stack([head(hidden * k) for k in kept], 1)  # (2, T, nodes, 257)
    as_map = passes.transpose(2, 3).unflatten(3, shape)
    logits = F.interpolate(as_map[:, :, 0], size, mode="bilinear")
    assert torch.allclose(out.coarse, logits.mean(1), atol=1e-4)
    assert torch.allclose(out.uncertainty, logits.sigmoid().var(1, correction=0), atol=1e-5)
    assert (out.uncertainty > 0).all()

    features = F.interpolate(as_map[:, :, 1:].mean(1), size, mode="bilinear").flatten(2).transpose(1, 2)
    everywhere = torch.cat([features, given(size)], -1).flatten(0, 1)
    fine = decoder.fine_heads[0](decoder.fine_trunk(everywhere)).view(2, *size)
    changed = out.fine != out.coarse
    assert torch.allclose(out.fine[changed], fine[changed], atol=1e-4)
    assert changed.flatten(1).sum(1).tolist() == [round(0.125 * 300)] * 2
    for unsure, refined in zip(out.uncertainty, changed, strict=True):
        assert unsure[refined].min() >= unsure[~refined].max()


@torch.inference_mode()
def test_passes_are_one_function_each(maps: tuple[Tensor, Tensor]) -> None:
    """A pass is the same at all sizes, in any company, and follows its seed."""
    decoder = make()
    both = decoder(*maps, (24, 24), T, seeded(3))
    alone = decoder(maps[0][1:], maps[1], (24, 24), T, seeded(3))
    larger = decoder(*maps, (72, 72), T, seeded(3))
    other = decoder(*maps, (24, 24), T, seeded(4))
    assert torch.allclose(both.fine[1], alone.fine[0], atol=1e-5)
    assert torch.allclose(both.coarse, larger.coarse[:, 1::3, 1::3], atol=1e-5)
    assert not torch.allclose(both.coarse, other.coarse, atol=1e-4)


@torch.inference_mode()
def test_chunks_do_not_change_the_result(maps: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = make(None)
    whole = decoder(*maps, (20, 20), T, seeded())
    monkeypatch.setattr(implicit_decoder, "CHUNK", 64)
    parts = decoder(*maps, (20, 20), T, seeded())
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_batch_statistics_are_those_of_all_points(maps: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implicit_decoder, "CHUNK", 64)
    decoder = make().train()
    seen: list[int] = []
    decoder.coarse_trunk[1].register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    decoder.fine_trunk[1].register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    before = decoder.coarse_trunk[1].running_mean.clone()
    decoder(*maps, (20, 20), 2)
    assert seen == [2 * 12 * 12, 2 * 50]
    assert not torch.equal(decoder.coarse_trunk[1].running_mean, before)


@torch.inference_mode()
def test_each_class_has_heads_of_its_own(maps: tuple[Tensor, Tensor]) -> None:
    decoder = make(classes=2)
    first, second = (decoder(*maps, (16, 16), T, seeded(), c) for c in (0, 1))
    assert (first.coarse - second.coarse).abs().max() > 0.01
    decoder.coarse_heads[1].load_state_dict(decoder.coarse_heads[0].state_dict())
    third = decoder(*maps, (16, 16), T, seeded(), 1)
    assert torch.equal(first.coarse, third.coarse)
    refined = third.fine != third.coarse
    assert (first.fine - third.fine).abs()[refined].min() > 0


@pytest.mark.parametrize("share", [1.0, 1e-9])
@torch.inference_mode()
def test_extreme_shares(maps: tuple[Tensor, Tensor], share: float) -> None:
    out = make(share=share)(*maps, (9, 11), T, seeded())
    assert (out.fine != out.coarse).flatten(1).sum(1).tolist() == ([99, 99] if share == 1 else [1, 1])


def test_published_size() -> None:
    with torch.device("meta"):
        decoder = ImplicitDecoder(32, 256, 1, 0.125, None, published=True)
    assert sum(p.numel() for p in decoder.parameters()) == 1_275_906
