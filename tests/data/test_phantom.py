"""Phantoms with known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segmed.data.phantom import Phantom, make_phantom, write_demo_study
from segmed.imaging.intensity import resolve_window
from segmed.imaging.reading import read_volume

SMALL = (96, 80, 16)
NAMES = {1: "liver", 2: "spleen", 3: "kidney right", 4: "kidney left", 5: "aorta", 6: "lesion"}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_same_seed_gives_the_same_voxels(modality: str) -> None:
    one, two, other = (make_phantom(modality, SMALL, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.image, other.image)
    assert not np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("seed", range(3))
def test_every_organ_is_there(modality: str, seed: int) -> None:
    made = make_phantom(modality, SMALL, seed=seed)
    assert (made.image.dtype, made.labels.dtype) == (np.int16, np.uint8)
    assert made.image.shape == made.labels.shape == SMALL
    assert made.names == NAMES
    assert np.unique(made.labels).tolist() == [0, *NAMES]
    assert all((made.labels == value).sum() >= 30 for value in NAMES)


def test_ct_values_are_hu(phantom: Phantom) -> None:
    assert phantom.image.min() >= -1024
    assert np.median(phantom.image[:8, :8]) == pytest.approx(-1000, abs=5)
    assert np.median(phantom.image[phantom.labels == 1]) == pytest.approx(110, abs=10)
    assert np.median(phantom.image[phantom.labels == 2]) == pytest.approx(125, abs=10)


def test_noise_can_be_left_out() -> None:
    clean, noisy = (make_phantom("CT", SMALL, noise=n) for n in (0.0, 1.0))
    assert np.array_equal(clean.labels, noisy.labels)
    assert clean.image[:5, :5].std() == 0
    assert noisy.image[:5, :5].std() > 3


def test_the_grid_is_left_posterior_superior_around_the_origin() -> None:
    made = make_phantom("MR", SMALL, spacing=(2.0, 3.0, 5.0))
    assert np.array_equal(made.affine[:3, :3], np.diag([-2.0, -3.0, 5.0]))
    assert made.affine[:3, 3].tolist() == [96.0, 120.0, -40.0]


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no phantom of modality 'PET'\. Choose CT or MR"):
        make_phantom("PET")


def test_demo_study(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    paths = write_demo_study(str(folder))
    assert sorted(folder.iterdir()) == sorted(paths)
    volumes = [read_volume(path) for path in paths]
    assert [v.shape for v in volumes] == [(192, 160, 48), (192, 160, 48), (192, 160, 1)]
    assert [resolve_window(v) for v in volumes] == ["ct-soft-tissue", "percentile", "minmax"]
    assert all(v.array.std() > 0 for v in volumes)


def test_the_demo_study_leaves_existing_files(tmp_path: Path) -> None:
    names = ["phantom_ct.nii.gz", "phantom_mr.nii.gz", "phantom_slice.png"]
    for name in names:
        (tmp_path / name).write_text("mine")
    assert [p.name for p in write_demo_study(tmp_path)] == names
    assert all((tmp_path / name).read_text() == "mine" for name in names)
