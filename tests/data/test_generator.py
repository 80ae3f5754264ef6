"""Drawn pictures with known truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import segmed
import torch
from PIL import Image
from segmed.data.phantom import PhantomBatch, PhantomConfig, contact_sheet, generate
from segmed.data.synthetic.noise import blur, smooth_noise, spectral_noise
from segmed.data.synthetic.parts import TINY_AREA, keep_main_part
from segmed.data.synthetic.sample import FAMILIES, GREY, MODALITIES, Draw


@pytest.fixture(scope="module")
def drawn() -> PhantomBatch:
    return generate(96, 96, seed=1)


def _equal(one: PhantomBatch, two: PhantomBatch) -> bool:
    return torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)


def test_the_same_seed_gives_the_same_tensors_whatever_torch_drew_before() -> None:
    torch.manual_seed(0)
    one = generate(16, 64, 5)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    two = generate(16, 64, 5)
    assert _equal(one, two)
    assert torch.equal(one.valid, two.valid)
    assert (one.families, one.modalities) == (two.families, two.modalities)
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())  # and leaves torch's own state alone
    assert not _equal(one, generate(16, 64, 6))


def test_shapes_types_and_ranges(drawn: PhantomBatch) -> None:
    assert drawn.images.shape == (96, 3, 96, 96)
    assert drawn.images.dtype == torch.float32
    assert drawn.images.isfinite().all()
    assert drawn.images.min() >= 0
    assert drawn.images.max() <= 1
    assert torch.allclose(drawn.images * 255, (drawn.images * 255).round(), atol=1e-3)  # 8 bit
    assert drawn.targets.shape == (96, 6, 96, 96)
    assert (drawn.targets.dtype, drawn.valid.dtype) == (torch.bool, torch.bool)
    assert len(drawn.families) == len(drawn.modalities) == 96
    assert len(set(drawn.families)) > 8
    assert len(set(drawn.modalities)) > 7


def test_every_sample_has_a_target_and_valid_ones_are_not_empty(drawn: PhantomBatch) -> None:
    assert drawn.valid.any(1).all()
    areas = drawn.targets.sum((2, 3))
    assert (areas[drawn.valid] > 0).all()
    assert (areas[~drawn.valid] == 0).all()
    assert (areas < 96 * 96).all()
    assert drawn.valid.sum(1).float().mean() > 3


def test_pictures_are_not_constant(drawn: PhantomBatch) -> None:
    spread = drawn.images.std((1, 2, 3))
    assert (spread > 0.002).all()
    assert spread.median() > 0.05


def test_most_targets_can_be_told_from_what_is_around_them(drawn: PhantomBatch) -> None:
    seen = []
    for image, targets, valid in zip(drawn.images.mean(1), drawn.targets, drawn.valid, strict=True):
        for target in targets[valid]:
            near = torch.nn.functional.max_pool2d(target[None].float(), 9, 1, 4)[0] > 0
            ring = near & ~target
            if ring.any():
                texture = (image[target].std(correction=0) + image[ring].std(correction=0)).clamp(min=1e-3)
                seen.append(float((image[target].mean() - image[ring].mean()).abs() / texture))
    step = np.array(seen)
    assert np.median(step) > 0.2
    assert (step < 0.5).mean() > 0.2  # low contrast is there as well


def test_a_fifth_of_the_samples_has_a_tiny_target(drawn: PhantomBatch) -> None:
    share = drawn.targets.float().mean((2, 3))
    tiny = (share >= TINY_AREA[0]) & (share <= TINY_AREA[1]) & drawn.valid
    assert tiny.any(1).float().mean() >= 0.2
    without = generate(64, 96, 1, config=PhantomConfig(families=("lobes",), tiny_share=0.0))
    only = generate(64, 96, 1, config=PhantomConfig(families=("lobes",), tiny_share=1.0))
    counts = [
        ((b.targets.float().mean((2, 3)) < TINY_AREA[1]) & b.valid).any(1).sum() for b in (without, only)
    ]
    assert counts[0] < 0.5 * counts[1]
    assert counts[1] > 50


@pytest.mark.parametrize("family", ["cells", "blobs", "noise"])
def test_neighbours_touch(family: str) -> None:
    drawn = generate(16, 96, 2, config=PhantomConfig(families=(family,)))
    touching = 0
    for targets, valid in zip(drawn.targets, drawn.valid, strict=True):
        masks = targets[valid]
        grown = torch.nn.functional.max_pool2d(masks.float(), 3, 1, 1) > 0
        meet = (grown[:, None] & masks[None]).sum((2, 3))
        overlap = (masks[:, None] & masks[None]).sum((2, 3))
        touching += int(((meet > 5) & (overlap == 0)).any())
    assert touching >= 5


def test_a_target_may_be_the_union_of_others() -> None:
    drawn = generate(24, 96, 3, config=PhantomConfig(families=("cells", "shells", "fundus"), targets=10))
    masks = drawn.targets.flatten(2).float()
    inside = torch.einsum("bkp,blp->bkl", masks, masks) == masks.sum(2)[:, :, None]
    both = drawn.valid[:, :, None] & drawn.valid[:, None] & ~torch.eye(10, dtype=torch.bool)
    assert (inside & both).any((1, 2)).sum() >= 6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_alone(family: str) -> None:
    drawn = generate(6, 64, 4, config=PhantomConfig(families=(family,)))
    assert set(drawn.families) == {family}
    assert drawn.targets.flatten(2).any(2)[drawn.valid].all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_modality_alone(modality: str) -> None:
    drawn = generate(12, 64, 4, config=PhantomConfig(modalities=(modality,)))
    assert set(drawn.modalities) == {modality}
    if modality != "fluorescence":  # only some of it is in colour
        assert torch.equal(drawn.images[:, 0], drawn.images[:, 2]) == (modality in GREY)
    assert (drawn.images.std((1, 2, 3)) > 0.002).all()


@pytest.mark.parametrize(("batch", "size"), [(1, 32), (3, 100), (2, 33)])
def test_any_size(batch: int, size: int) -> None:
    drawn = generate(batch, size, 0)
    assert drawn.images.shape == (batch, 3, size, size)
    assert drawn.valid.any(1).all()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"families": ("noise", "squares")},
            r"families \['squares'\] cannot be drawn. Choose among noise, blobs",
        ),
        ({"families": ()}, r"families \(\) cannot be drawn"),
        ({"modalities": ("pet",)}, r"modalities \['pet'\] cannot be drawn. Choose among grey, ct"),
        ({"targets": 0}, "targets 0 must be between 1 and 16"),
        ({"tiny_share": 1.5}, "tiny_share 1.5 must be between 0 and 1"),
        ({"crossing_share": -0.1}, "crossing_share -0.1 must be between 0 and 1"),
    ],
)
def test_a_wrong_config_is_refused(values: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        PhantomConfig(**values)


def test_a_wrong_batch_or_size_is_refused() -> None:
    with pytest.raises(ValueError, match="batch 0 must be at least 1"):
        generate(0, 64, 0)
    with pytest.raises(ValueError, match="size 16 px is too small"):
        generate(1, 16, 0)


def test_noise_is_about_standard_normal_and_smooth() -> None:
    draw = Draw(0)
    coarse, fine = smooth_noise(draw, 8, 64, 4)[:, 0], spectral_noise(draw, 8, 64, 0.2, 0.4)
    assert coarse.shape == fine.shape == (8, 64, 64)
    assert 0.5 < coarse.std() < 1.5
    assert float(fine.std()) == pytest.approx(1, abs=0.01)
    assert coarse.diff(dim=2).std() < 0.3 < fine.diff(dim=2).std()


def test_each_picture_is_blurred_by_its_own_width() -> None:
    point = torch.zeros(2, 1, 33, 33)
    point[:, :, 16, 16] = 1
    soft = blur(point, torch.tensor([0.05, 2.0]))
    assert float(soft[0, 0, 16, 16]) == pytest.approx(1, abs=1e-4)
    assert float(soft[1].sum()) == pytest.approx(1, abs=1e-3)
    assert float(soft[1, 0, 16, 16]) < 0.06


def test_pieces_far_from_the_main_one_are_dropped() -> None:
    mask = torch.zeros(2, 96, 96, dtype=torch.bool)
    mask[0, 10:40, 10:40] = True
    alone = mask.clone()
    mask[0, 60:64, 80:84] = True
    assert torch.equal(keep_main_part(mask), alone)


def test_drawing_needs_torch_alone() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(segmed.__file__).parents[1])!r})\n"
        "for name in ('nibabel', 'PIL', 'matplotlib', 'scipy'): sys.modules[name] = None\n"
        "import segmed.data.phantom as p\n"
        "print(tuple(p.generate(2, 32, 0).images.shape), hasattr(p, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 3, 32, 32) False"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_as_well() -> None:
    one, two = (generate(16, 64, 5, "cuda") for _ in range(2))
    assert one.images.is_cuda
    assert _equal(one, two)


def test_contact_sheet(tmp_path: Path) -> None:
    path = contact_sheet(tmp_path / "sheet.png", seed=2, rows=2, columns=2, size=64)
    assert path == tmp_path / "sheet.png"
    assert np.asarray(Image.open(path)).std() > 10


def test_a_wrong_sheet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.png, not as 'a\.jpg'"):
        contact_sheet(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="0 rows"):
        contact_sheet(tmp_path / "a.png", rows=0)
