"""Augmentations: replayable, of image and labels alike, and without mirrors where labels tell sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from segmed.data.augment import MEAN, STANDARD_DEVIATION, Augmentation, AugmentConfig, normalised
from segmed.data.slices import LabelledSlice, sided

NOTHING = AugmentConfig(crop=0, flip=0, rotate=0, clahe=0, contrast=0, gamma=0)
ALL = AugmentConfig(crop=1, flip=1, rotate=1, clahe=1, contrast=1, gamma=1)


def _sample(colour: bool = False) -> LabelledSlice:
    """Labels are the image's value over 80, so that the two can be compared after any move."""
    image = np.random.default_rng(0).integers(0, 240, (40, 32), np.uint8)
    labels = image // 80
    return LabelledSlice(np.stack([image] * 3, -1) if colour else image, labels, "a", (2.0, 3.0))


def _same(a: LabelledSlice, b: LabelledSlice) -> bool:
    same = np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels)
    return same and (a.patient, a.spacing) == (b.patient, b.spacing)


@pytest.mark.parametrize("colour", [False, True])
def test_a_seed_is_replayed(colour: bool) -> None:
    sample = _sample(colour)
    augment = Augmentation(ALL)
    for seed in ((0,), (3, 1, 4)):
        first = augment(sample, *seed)
        assert _same(first, augment(sample, *seed))
        assert first.image.dtype == np.uint8
        assert first.image.shape == (*first.labels.shape, *sample.image.shape[2:])
    assert not _same(augment(sample, 0), augment(sample, 1))
    assert _same(sample, _sample(colour))
    assert _same(Augmentation(NOTHING)(sample, 5), sample)


def test_image_and_labels_move_together() -> None:
    augment = Augmentation(replace(NOTHING, crop=0.7, flip=0.5, rotate=0.7))
    shapes, moved = set(), 0
    for seed in range(40):
        out = augment(_sample(), seed)
        assert np.array_equal(out.image // 80, out.labels)
        wide = max(out.labels.shape) <= 40 and min(out.labels.shape) >= round(32 * 0.7)
        assert wide
        shapes.add(out.labels.shape)
        moved += out.spacing == (3.0, 2.0)
    assert len(shapes) > 20
    assert 5 < moved < 35
    turned = Augmentation(replace(NOTHING, rotate=1.0))
    whole = {turned(_sample(), seed).labels.shape for seed in range(20)}
    assert whole == {(40, 32), (32, 40)}


def test_sides_are_kept() -> None:
    names = ["liver", "Left kidney", "kidney_r", "brightness", "inferior vena cava", "Anterior"]
    assert sided(names) == ("Left kidney", "kidney_r", "Anterior")
    augment = Augmentation(replace(ALL, crop=0, clahe=0, contrast=0, gamma=0), lateralised=sided(names))
    for seed in range(20):
        assert _same(augment(_sample(), seed), _sample())
    assert not _same(Augmentation(replace(NOTHING, flip=1.0))(_sample(), 0), _sample())


def test_crops_keep_an_object() -> None:
    labels = np.zeros((40, 32), np.uint8)
    labels[0, 0] = 1
    sample = LabelledSlice(np.zeros((40, 32), np.uint8), labels, "a")
    crop = Augmentation(replace(NOTHING, crop=1.0, least_side=0.5))
    outs = [crop(sample, seed) for seed in range(30)]
    assert all(out.labels.sum() == 1 for out in outs)
    assert any(out.labels.shape == (40, 32) for out in outs)


def test_intensity_changes_leave_labels_and_are_bounded() -> None:
    for name in ("clahe", "contrast", "gamma"):
        if name == "clahe":  # histograms of few pixels are hardly clipped
            image = np.random.default_rng(0).normal(120, 8, (160, 144)).astype(np.uint8)
            sample = LabelledSlice(image, image // 80, "a")
        else:
            sample = _sample()
        outs = [Augmentation(replace(NOTHING, **{name: 1.0}))(sample, seed) for seed in range(5)]
        assert all(np.array_equal(out.labels, sample.labels) for out in outs)
        assert len({out.image.tobytes() for out in outs}) >= 3, name
    dark = Augmentation(replace(NOTHING, gamma=1.0, powers=(2.0, 2.0)))(sample, 0)
    assert np.allclose(dark.image, 255 * (sample.image / 255) ** 2, atol=1)
    flat = LabelledSlice(np.full((20, 20), 90, np.uint8), np.zeros((20, 20), np.uint8), "a")
    out = Augmentation(ALL)(flat, 1)
    assert out.image.min() == out.image.max()


def test_normalised() -> None:
    image = _sample(colour=True).image
    out = normalised(image)
    assert out.dtype == np.float32
    assert np.allclose(out * STANDARD_DEVIATION + MEAN, image / 255, atol=1e-6)
    assert np.array_equal(normalised(image[..., 0]), out)
    assert Augmentation(replace(NOTHING, normalise=True))(_sample(), 0).image.shape == (40, 32, 3)


def test_odd_settings() -> None:
    with pytest.raises(ValueError, match=r"flip 1\.5 is a chance"):
        AugmentConfig(flip=1.5)
    with pytest.raises(ValueError, match="least_side 0 is a share"):
        AugmentConfig(least_side=0)
    with pytest.raises(ValueError, match=r"powers \(2, 1\)"):
        AugmentConfig(powers=(2, 1))
