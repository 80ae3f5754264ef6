"""The two networks beside the same written out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from segmed.methods.imedsam import implicit_decoder
from segmed.methods.imedsam.coordinate_layer import encode_positions
from segmed.methods.imedsam.implicit_decoder import ImplicitDecoder
from segmed.methods.imedsam.point_dropout import draw_passes
from torch import Tensor

SOURCE, POSITION, T = 8, 16, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    nodes: int | None = 12, share: float = 0.125, classes: int = 1, published: bool = False
) -> ImplicitDecoder:
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
    return torch.randn(2, SOURCE, 12, 12, generator=seeded(1)), torch.randn(
        1, POSITION, 3, 3, generator=seeded(2)
    )


def given(maps: tuple[Tensor, Tensor], size: tuple[int, int], published: bool = False) -> Tensor:
    """The input of the networks at all pixels (2, H W, channels), built as it is described."""
    parts = [F.interpolate(m, size, mode="bilinear").expand(2, -1, -1, -1) for m in maps]
    y, x = torch.meshgrid(*(torch.arange(1, 2 * side, 2) / side - 1 for side in size), indexing="ij")
    where = encode_positions(torch.stack([x, y], -1).flatten(0, 1), published).expand(2, -1, -1)
    return torch.cat([*(p.flatten(2).transpose(1, 2) for p in parts), where], -1)


@torch.inference_mode()
def test_published_networks_written_out(maps: tuple[Tensor, Tensor]) -> None:
    """Every output of the coarse network is dropped at every point for itself, its logit among them."""
    decoder, size = make(None, published=True), (20, 15)
    out = decoder(*maps, size, T, seeded(7))
    points = given(maps, size, True)
    values = decoder.coarse_heads[0](decoder.coarse_trunk(points.flatten(0, 1))).unflatten(0, (2, -1))
    # One byte for each output of a point, one bit for each pass, the same for both objects.
    drawn = torch.empty(-(-values[0].numel() // 8), dtype=torch.int64).random_(
        -(2**63), None, generator=seeded(7)
    )
    drawn = drawn.view(torch.uint8)[: values[0].numel()].view(values.shape[1:])
    passes = torch.stack([values * ((drawn >> t) & 1) * 2 for t in range(T)])  # (T, 2, P, 257)
    assert torch.allclose(out.coarse.flatten(1), passes[-1][..., 0], atol=1e-4)
    assert ((out.coarse == 0).float().mean() - 0.5).abs() < 0.1
    doubt = passes.var(0).mean(-1)
    chosen = doubt.topk(round(0.125 * 300), dim=1).indices
    fine = decoder.fine_heads[0](
        decoder.fine_trunk(torch.cat([passes[-1][..., 1:], points], -1).flatten(0, 1))
    ).view(2, -1)
    wanted = passes[-1][..., 0].scatter(1, chosen, fine.gather(1, chosen))
    assert torch.allclose(out.fine.flatten(1), wanted, atol=1e-4)
    assert torch.allclose(
        out.uncertainty.flatten(1), passes[..., 0].sigmoid().var(0, unbiased=False), atol=1e-5
    )


@pytest.mark.parametrize("passes", [2, 8, 11])
def test_draws_of_passes(passes: int) -> None:
    """Kept in half of the passes, and the last pass is one of them."""
    kept, last = draw_passes((3, 1000, 7), passes, seeded(1))
    share = torch.arange(passes + 1).float()
    found = torch.bincount(kept.flatten().int(), minlength=passes + 1) / kept.numel()
    wanted = torch.tensor([math.comb(passes, int(k)) / 2**passes for k in share])
    assert torch.allclose(found, wanted, atol=0.012)
    assert last.float().mean() == pytest.approx(0.5, abs=0.012)
    assert kept[last].float().mean() == pytest.approx(0.5 * (passes - 1) + 1, abs=0.05)
    assert kept[last].min() >= 1 and kept[~last].max() < passes


@torch.inference_mode()
def test_pixels_are_refined_in_regions(maps: tuple[Tensor, Tensor]) -> None:
    """The share of each region, as without company, and nothing elsewhere."""
    decoder, size = make(), (20, 16)
    regions = torch.tensor([[2, 3, 10, 11], [-4, 0, 99, 16]])
    out = decoder(*maps, size, T, seeded(7), regions=regions)
    changed = out.fine != out.coarse
    assert changed.flatten(1).sum(1).tolist() == [8, 40]
    assert changed[0, 2:10, 3:11].sum() == 8
    unsure = out.uncertainty[0, 2:10, 3:11]
    assert unsure[changed[0, 2:10, 3:11]].min() >= unsure[~changed[0, 2:10, 3:11]].max()
    alone = decoder(maps[0][:1], maps[1], size, T, seeded(7), regions=regions[:1])
    assert torch.allclose(alone.fine[0], out.fine[0], atol=1e-5)
    everywhere = decoder(*maps, size, T, seeded(7))
    assert torch.allclose(out.fine[1], everywhere.fine[1], atol=1e-5)


def test_the_published_encoding_is_shown_gradually(maps: tuple[Tensor, Tensor]) -> None:
    decoder, size = make(None, published=True), (6, 5)

    def learning() -> Tensor:
        decoder.zero_grad()
        torch.manual_seed(0)
        decoder.train()(*maps, size, 2).coarse.square().sum().backward()
        weight = decoder.coarse_trunk[0].weight
        assert isinstance(weight, Tensor) and weight.grad is not None
        return weight.grad[:, -63:].abs().sum(0)

    for share, count in ((1 / 20, 6), (0.5, 34)):  # int(63 share) + 3
        decoder.reveal(share)
        assert learning()[count - 1] > 0
        assert not learning()[count:].any()
    decoder.reveal(3)
    assert learning()[52] > 0, "the last value that is not the same everywhere, as the depth is"


@pytest.mark.parametrize("nodes", [6, 24, None])
@torch.inference_mode()
def test_networks_written_out(maps: tuple[Tensor, Tensor], nodes: int | None) -> None:
    decoder, size = make(nodes), (20, 15)
    out = decoder(*maps, size, T, seeded(7))
    shape = (nodes, nodes) if nodes else size
    hidden = decoder.coarse_trunk(given(maps, shape).flatten(0, 1)).unflatten(0, (2, -1))
    kept = torch.bernoulli(torch.full((T, 512), 0.5), generator=seeded(7)) * 2
    head = decoder.coarse_heads[0]
    passes = torch.stack([head(hidden * k) for k in kept], 1)  # (2, T, nodes, 257)
    as_map = passes.transpose(2, 3).unflatten(3, shape)
    logits = F.interpolate(as_map[:, :, 0], size, mode="bilinear")
    assert torch.allclose(out.coarse, logits.mean(1), atol=1e-4)
    assert torch.allclose(out.uncertainty, logits.sigmoid().var(1, correction=0), atol=1e-5)
    assert (out.uncertainty > 0).all()

    features = F.interpolate(as_map[:, :, 1:].mean(1), size, mode="bilinear").flatten(2).transpose(1, 2)
    everywhere = torch.cat([features, given(maps, size)], -1).flatten(0, 1)
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
def test_chunks_do_not_change_the_result(
    maps: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make(None)
    whole = decoder(*maps, (20, 20), T, seeded())
    monkeypatch.setattr(implicit_decoder, "CHUNK_CPU", 64)
    parts = decoder(*maps, (20, 20), T, seeded())
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_batch_statistics_are_those_of_all_points(
    maps: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implicit_decoder, "CHUNK_CPU", 64)
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
    """Objects take turns; all else is shared, the units of each pass too."""
    decoder, single = make(classes=2), make()
    single.coarse_trunk, single.fine_trunk = decoder.coarse_trunk, decoder.fine_trunk
    together = decoder(maps[0].repeat_interleave(2, 0), maps[1], (16, 16), T, seeded())
    for c in range(2):
        single.coarse_heads[0], single.fine_heads[0] = decoder.coarse_heads[c], decoder.fine_heads[c]
        alone = single(*maps, (16, 16), T, seeded())
        assert torch.allclose(together.coarse[c::2], alone.coarse, atol=1e-5)
        assert torch.allclose(together.fine[c::2], alone.fine, atol=1e-4)
    assert (together.coarse[0::2] - together.coarse[1::2]).abs().max() > 0.01


def test_training_and_serving_compute_the_same(maps: tuple[Tensor, Tensor]) -> None:
    """With the statistics of one batch as the running ones, so that folding them into the weights changes
    nothing."""
    decoder = make(12, share=1.0).train()
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0
    trained = decoder(*maps, (20, 15), T, seeded())
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert module.running_var is not None
            count = {1024: 2 * 144, 512: 2 * 144}.get(module.num_features, 2 * 300)
            module.running_var *= (count - 1) / count  # kept without bias, applied with
    served = decoder.eval()(*maps, (20, 15), T, seeded())
    for one, other in zip(trained, served, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("share", [1.0, 1e-9])
@torch.inference_mode()
def test_extreme_shares(maps: tuple[Tensor, Tensor], share: float) -> None:
    out = make(share=share)(*maps, (9, 11), T, seeded())
    assert (out.fine != out.coarse).flatten(1).sum(1).tolist() == ([99, 99] if share == 1 else [1, 1])


def test_published_size() -> None:
    with torch.device("meta"):
        decoder = ImplicitDecoder(32, 256, 1, 0.125, None, published=True)
    assert sum(p.numel() for p in decoder.parameters()) == 1_275_906
