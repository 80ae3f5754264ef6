"""Denoisers: filters, a DnCNN taught with added noise and one taught by noisy images alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.commands.denoiser import Noise, denoiser
from segmed.denoising.dncnn import DnCnn, DnCnnConfig, load_dncnn, save_dncnn
from segmed.denoising.pictures import Denoiser, gaussian
from segmed.denoising.training import DenoisingConfig, noisy, train_dncnn, training_pair
from segmed.imaging.picture import Picture
from skimage.metrics import peak_signal_noise_ratio

SMALL = DnCnnConfig(depth=5, width=12)


def _drawn(seed: int, count: int = 4, side: int = 64) -> Picture:
    """Discs on a slope."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    slices = []
    for _ in range(count):
        image = 60 + 40 * x / side
        for _ in range(6):
            cx, cy, r = *rng.uniform(0, side, 2), rng.uniform(5, 16)
            image = np.where((x - cx) ** 2 + (y - cy) ** 2 < r * r, rng.uniform(20, 220), image)
        slices.append(image)
    return Picture(np.stack(slices, 2).astype(np.uint8), np.eye(4), f"drawn {seed}", "auto")


def _noisy(picture: Picture, sigma: float, seed: int = 9) -> Picture:
    grain = np.random.default_rng(seed).normal(0, sigma, picture.array.shape)
    return Picture((picture.array + grain).round().clip(0, 255).astype(np.uint8), np.eye(4), "noisy", "auto")


@pytest.mark.parametrize(("noise", "gain"), [("gaussian", 3.0), ("own", 1.0)])
def test_what_was_learnt_takes_noise_away(noise: str, gain: float) -> None:
    clean = [_drawn(seed) for seed in range(6)]
    taught = clean if noise == "gaussian" else [_noisy(p, 20, n) for n, p in enumerate(clean)]
    config = DenoisingConfig(noise, 25, steps=150, batch=8, patch=32, learning_rate=3e-3)  # type: ignore[arg-type]
    model = train_dncnn(taught, config, SMALL)
    fresh = _drawn(77, count=1)
    grainy = _noisy(fresh, 20).slice(0)
    before = peak_signal_noise_ratio(fresh.slice(0), grainy)
    after = peak_signal_noise_ratio(fresh.slice(0), model.clean(grainy))
    assert before == pytest.approx(22.1, abs=0.5)
    assert after > before + gain


def test_the_noise_is_as_strong_as_it_says() -> None:
    torch.manual_seed(0)
    flat = torch.full((1, 1, 200, 200), 0.5)
    assert (noisy(flat, 0.1, "gaussian") - 0.5).std().item() == pytest.approx(0.1, rel=0.02)
    dark = noisy(torch.zeros(1, 1, 200, 200), 0.1, "rician")
    assert dark.min() >= 0 and dark.mean().item() == pytest.approx(
        0.1 * (np.pi / 2) ** 0.5, rel=0.02
    )  # Rayleigh


def test_of_its_own_noise_only_hidden_pixels_count() -> None:
    torch.manual_seed(0)
    patches = torch.rand(16, 1, 32, 32)
    shown, wanted, counted = training_pair(patches, DenoisingConfig("own"))
    changed = shown != patches
    assert torch.equal(wanted, patches)
    assert counted.mean().item() == pytest.approx(0.02, abs=0.005)
    inner = slice(2, -2), slice(2, -2)  # beyond the edge neighbours are mirrored
    assert torch.equal(
        changed[:, 0][:, *inner], (counted > 0)[:, 0][:, *inner]
    )  # what is hidden is never shown itself


def test_a_large_picture_is_cleaned_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = DnCnn(SMALL).eval()
    image = np.random.default_rng(0).integers(0, 255, (150, 40, 3), dtype=np.uint8)
    whole = model.clean(image)
    monkeypatch.setattr("segmed.denoising.dncnn._STRIP", 32)
    assert np.array_equal(model.clean(image), whole)
    assert np.array_equal(model.clean(image[:, :, 1]), whole[:, :, 1])


def test_the_network_has_the_published_size() -> None:
    model = DnCnn()
    assert (
        sum(p.numel() for p in model.parameters()) == 64 * 9 + 64 + 15 * (64 * 64 * 9 + 2 * 64) + 64 * 9 + 1
    )


def test_written_and_read(tmp_path: Path) -> None:
    model = DnCnn(SMALL).eval()
    save_dncnn(model, tmp_path / "a.safetensors", {"noise": "own"})
    read = load_dncnn(tmp_path / "a.safetensors")
    image = _drawn(1).slice(0)
    assert np.array_equal(read.clean(image), model.clean(image))
    save_dncnn(DnCnn(SMALL), tmp_path / "b.safetensors", {})
    assert load_dncnn(tmp_path / "b.safetensors").name != read.name  # their embeddings must not be mixed
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="segmed denoiser"):
        load_dncnn(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="segmed denoiser"):
        load_dncnn(tmp_path / "c.safetensors")


def test_a_cleaned_picture_keeps_what_it_was_made_from() -> None:
    asked: list[int] = []

    def darker(image: np.ndarray) -> np.ndarray:
        asked.append(1)
        return image // 2

    picture = _drawn(3)
    clean = Denoiser("darker", darker)(picture)
    assert np.array_equal(clean.slice(1), picture.slice(1) // 2) and np.array_equal(
        clean.slice(1), clean.slice(1)
    )
    assert len(asked) == 1
    assert clean.key != picture.key and clean.array is picture.array and clean.shape == picture.shape


def test_the_filter_blurs_space_and_not_colours() -> None:
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 10, 0] = 255
    blurred = gaussian(1.0).clean(image)
    assert blurred[10, 11, 0] > 0 and not blurred[:, :, 1:].any()
    with pytest.raises(ValueError, match="above 0"):
        gaussian(0)


def test_command(tmp_path: Path) -> None:
    from PIL import Image

    for n in range(2):
        Image.fromarray(_drawn(n).slice(0)).save(tmp_path / f"{n}.png")
    denoiser(tmp_path, tmp_path / "d.safetensors", Noise.RICIAN, 20, 2, 3, 4, "auto", "cpu")
    assert load_dncnn(tmp_path / "d.safetensors").name.startswith("dncnn ")


@pytest.mark.parametrize("wrong", [{"noise": "salt"}, {"sigma": 0}, {"patch": 3}])
def test_settings_that_cannot_be_used(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|not usable"):
        DenoisingConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="40 px or more"):
        train_dncnn([_drawn(0, side=20)], DenoisingConfig(steps=1))
