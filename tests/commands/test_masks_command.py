"""`segmed masks`: everything on a slice, from a grid of clicks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmed.cli import app
from segmed.commands.prediction.masks import numbered
from segmed.imaging.reading import read_volume
from segmed.inference.automatic_masks import ProposedMask
from typer.testing import CliRunner


def _masks(image: Path, out: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["masks", str(image), "-o", str(out), "--model", "classical", *words])
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def volume(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two bright discs on slice 1 of 3, off the middle and of different size."""
    x, y = np.mgrid[:48, :60]
    truth = np.zeros((48, 60, 3), np.uint8)
    truth[:, :, 1] = 2 * ((x - 12) ** 2 + (y - 15) ** 2 < 60) + ((x - 33) ** 2 + (y - 40) ** 2 < 150)
    grey = 100.0 * (truth > 0) + np.random.default_rng(0).normal(0, 3, truth.shape)
    path = tmp_path / "discs.nii.gz"
    nib.save(nib.Nifti1Image(grey.astype(np.float32), np.diag([-2, 2, 3, 1])), path)
    return path, truth


def test_everything_on_a_slice_is_numbered(volume: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    image, truth = volume
    code, said = _masks(image, tmp_path / "out.nii.gz", "--points", "6", "--preset", "all")
    assert code == 0, said
    out = read_volume(tmp_path / "out.nii.gz")
    assert np.allclose(out.affine, read_volume(image).affine)
    assert not out.array[:, :, [0, 2]].any()
    for value in (1, 2):
        found = np.bincount(out.array[truth == value].astype(int))
        both = (out.array == found.argmax()) & (truth == value)
        dice = 2 * both.sum() / ((out.array == found.argmax()).sum() + (truth == value).sum())
        assert found.argmax() > 0 and dice > 0.85
    assert "label px score" in said.replace("┃", "").replace("  ", " ")


def test_larger_masks_come_first_and_the_best_fit() -> None:
    def one(size: int, score: float) -> ProposedMask:
        mask = np.zeros((20, 30), bool)
        mask.flat[:size] = True
        return ProposedMask(mask, score, 1.0, (0.0, 0.0))

    labels, kept = numbered([one(10, 0.9), one(40, 0.8)], (30, 20, 2), 1)
    assert [int(k.mask.sum()) for k in kept] == [40, 10]
    assert np.bincount(labels.ravel()).tolist() == [1160, 30, 10] and not labels[:, :, 0].any()
    many = [one(1 + n, 1 - n / 1000) for n in range(300)]
    labels, kept = numbered(many, (30, 20, 1), 0)
    assert len(kept) == 255 and labels.max() == 255 and min(k.score for k in kept) == pytest.approx(1 - 0.254)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--slice", "3"], "--slice 3 must be one of 0 to 2"),
        (["--preset", "best"], "must be one of published, sam2, relaxed, all"),
        (["--points", "0"], "points_per_side is 0"),
        (["--model", "nothing"], "nothing"),
    ],
)
def test_bad_words_are_sentences(
    volume: tuple[Path, np.ndarray], tmp_path: Path, words: list[str], says: str
) -> None:
    code, said = _masks(volume[0], tmp_path / "out.nii.gz", *words)
    assert code == 2 and says in said
    assert not (tmp_path / "out.nii.gz").exists()
