"""The convolutional stem: same places as SAM's patches, kept by saving and loading, refused where it cannot
fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.stem import ConvStem, build_sam
from segmed.sam.tiny import initialised, tiny_config
from segmed.sam.weights import load_sam, weights_version
from transformers import SamConfig


def _config(**changes: object) -> SamConfig:
    settings = {
        "hidden": 32,
        "heads": 2,
        "width": 32,
        "stem_channels": (16, 24, 32, 40),
        "stem_depths": (0, 1, 1, 1),
    }
    return tiny_config(64, **{**settings, **changes})  # type: ignore[arg-type]


def test_a_token_sees_its_patch() -> None:
    torch.manual_seed(0)
    stem = ConvStem([8, 8, 8], [0, 0, 0], 3, 8)
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, 20:28, 36:44] += 1  # around the pixel that its strides begin with
    moved = (stem(changed) - stem(image)).abs().sum(-1)[0]
    y, x = divmod(int(moved.argmax()), 8)
    assert (y, x) == (3, 5)
    assert stem(image).shape == (1, 8, 8, 8)


@torch.no_grad()
def test_deeper_stages_give_context() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[:, :, :8, :8] += 1
    far = {}
    for name, stem in (
        ("flat", ConvStem([8, 8, 8], [0, 0, 0], 3, 8)),
        ("deep", ConvStem([8] * 6, [0] * 6, 3, 8)),
    ):
        far[name] = float((stem(changed) - stem(image)).abs()[0, 7, 7].max())
    assert far["flat"] == 0
    assert far["deep"] > 0


def test_it_is_kept_by_saving_loading_and_resizing(tmp_path: Path) -> None:
    model = initialised(_config(), 3).eval()
    model.save_pretrained(tmp_path)
    loaded = load_sam(str(tmp_path))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted, got = (m.vision_encoder(image).last_hidden_state for m in (model, loaded))
    assert torch.equal(wanted, got)
    assert weights_version(model) == weights_version(loaded)
    larger = load_sam(str(tmp_path), 128)
    with torch.no_grad():
        assert larger.vision_encoder(torch.rand(1, 3, 128, 128)).last_hidden_state.shape == (1, 32, 32, 32)


def test_bf16_changes_little() -> None:
    model = initialised(_config(), 3).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = model.vision_encoder(image).last_hidden_state
        fast = prepare_encoder(model.vision_encoder, "cpu", "bf16")(image).last_hidden_state.float()
    assert torch.nn.functional.cosine_similarity(exact, fast, dim=1).min() > 0.999


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        ConvStem([12, 16, 16], [0, 0, 0], 3, 8)
    with pytest.raises(ValueError, match="at least 3"):
        ConvStem([8, 8], [0, 0], 3, 8)
    with pytest.raises(ValueError, match="stem_depths"):
        ConvStem([8, 8, 8], [0], 3, 8)
    config = _config()
    config.vision_config.patch_size = 12
    with pytest.raises(ValueError, match="power of two"):
        build_sam(config)
