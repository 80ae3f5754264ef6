"""The sheet that shows the features of a slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from segmed.evaluation.feature_sheet import draw_feature_sheet, enhance, feature_sheet, principal_colours
from segmed.methods.featup.featup import FeatUp
from segmed.methods.featup.featup_implicit import ImplicitConfig
from segmed.methods.featup.jbu import JbuStack, save_jbu
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.segmenter import Segmed
from tiny_sam import tiny_sam
from transformers import SamModel

SIZE = 64


@pytest.fixture(scope="module")
def model() -> SamModel:
    return tiny_sam(5, SIZE)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """(51, 70), a disc on a ramp."""
    y, x = np.mgrid[:51, :70]
    return (80 + x + 80 * (np.hypot(x - 30, y - 20) < 14)).astype(np.uint8)


def test_sheet_by_the_methods_own_upsampler(model: SamModel, picture: np.ndarray, tmp_path: Path) -> None:
    jbu = tmp_path / "jbu.safetensors"
    save_jbu(JbuStack(64), jbu)
    feature_sheet(FeatUp(model).eval(), picture, tmp_path / "a.png", (0, 1))
    feature_sheet(Sam(model), picture, tmp_path / "b.png", (0, 63, 7, 8), ("jet", "gray"), jbu)
    short = ImplicitConfig(views=3, fitted=2, steps=2, per_step=1, components=4, frequencies=3)
    told: list[int] = []
    feature_sheet(
        MedSam(model),
        picture,
        tmp_path / "c.png",
        (1,),
        implicit=short,
        tell=lambda done, _: told.append(done),
    )
    assert told == [1, 2, 3, 4, 5]
    sheets = [imread(tmp_path / f"{name}.png") for name in "abc"]
    assert sheets[1].shape[1] > sheets[0].shape[1] == sheets[2].shape[1]
    assert all(sheet[..., :3].std() > 0.05 for sheet in sheets)


def test_sheets_that_cannot_be_drawn(model: SamModel, picture: np.ndarray, tmp_path: Path) -> None:
    method, path = FeatUp(model).eval(), tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"\[64\].*0 to 63"):
        feature_sheet(method, picture, path, (64,))
    with pytest.raises(ValueError, match=r"no colormap.*rainbows.*viridis"):
        feature_sheet(method, picture, path, cmaps=("rainbows",))
    with pytest.raises(ValueError, match=r"\.png"):
        feature_sheet(method, picture, tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match="Make it first"):
        feature_sheet(method, picture, tmp_path / "none" / "a.png")
    with pytest.raises(ValueError, match="keeps slices"):
        feature_sheet(Segmed(PromptNetwork()), picture, path)
    save_jbu(JbuStack(8), tmp_path / "jbu.safetensors")
    with pytest.raises(ValueError, match="takes 8 channels, but this encoder gives 64"):
        feature_sheet(method, picture, path, jbu=tmp_path / "jbu.safetensors")


def test_colours_of_a_sheet(tmp_path: Path) -> None:
    maps = np.linspace(-3, 5, 100).reshape(1, 10, 10)
    shown = enhance(maps, maps)
    assert (shown.min(), shown.max()) == (0, 1)
    assert (np.diff(shown.ravel()) >= 0).all()
    assert np.isfinite(enhance(0 * maps + 3, 0 * maps + 3)).all()
    # a feature that stands out makes the red channel, coarse and fine alike
    generator = np.random.default_rng(0)
    low = 0.1 * generator.standard_normal((5, 8, 8))
    low[3, :, 4:] += 4
    coarse, fine = principal_colours(low, low.repeat(2, 1).repeat(2, 2))
    assert (coarse.shape, fine.shape) == ((8, 8, 3), (16, 16, 3))
    assert np.allclose(coarse.repeat(2, 0).repeat(2, 1), fine, atol=1e-6)
    assert abs(coarse[:, 4:, 0].mean() - coarse[:, :4, 0].mean()) > 0.8
    assert abs(coarse[:, 4:, 1].mean() - coarse[:, :4, 1].mean()) < 0.2
    image = np.full((20, 30, 3), 128, np.uint8)
    draw_feature_sheet(
        image, torch.from_numpy(low), torch.from_numpy(low), (3,), ("magma",), tmp_path / "a.png"
    )
    assert imread(tmp_path / "a.png").shape[2] == 4
