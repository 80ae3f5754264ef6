"""Refinements of masks: each does what it is for on a drawn object, and none may lose the object."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Prompt, SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.predictor import Predictor
from segmed.inference.refinement.crf import CrfConfig, crf
from segmed.inference.refinement.level_set import LevelSetConfig, level_set
from segmed.inference.refinement.outline import OutlineConfig, outline_prompt
from segmed.inference.refinement.refinement import REFINEMENTS, Rough, by_crf, by_outline, guarded
from segmed.methods.classical import Classical

Y, X = np.mgrid[:96, :96]
DISC = (Y - 48) ** 2 + (X - 44) ** 2 < 20**2


def _picture(mask: np.ndarray, noise: float = 6.0) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, noise, mask.shape)
    return (np.where(mask, 170, 90) + grain).clip(0, 255).astype(np.uint8)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _frayed(mask: np.ndarray) -> np.ndarray:
    """Probability of a mask whose edge is off by up to 3 px, here and there."""
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    wave = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=mask.shape), 3)
    return np.asarray(1 / (1 + np.exp(-(signed + 2.5 * wave / wave.std()) / 2)))


def _rough(probability: np.ndarray, image: np.ndarray) -> Rough:
    return Rough(image, probability, SlicePrompt(box=(20, 24, 68, 72)), lambda prompt: probability)


def test_the_field_finds_the_edge_of_the_picture() -> None:
    image, frayed = _picture(DISC), _frayed(DISC)
    assert _dice(frayed > 0.5, DISC) < 0.94
    assert _dice(crf(image, frayed) > 0.5, DISC) > 0.985


def test_without_weights_the_field_changes_nothing() -> None:
    frayed = _frayed(DISC)
    same = crf(_picture(DISC), frayed, CrfConfig(smooth_weight=0, edge_weight=0))
    assert np.allclose(same, frayed, atol=1e-5)


def test_messages_are_weighted_means_of_the_neighbours() -> None:
    """One update, computed pixel by pixel."""
    rng = np.random.default_rng(2)
    image, p = rng.integers(0, 255, (9, 12), dtype=np.uint8), rng.uniform(0.1, 0.9, (9, 12))
    config = CrfConfig(smooth_width=100, edge_width=300, edge_contrast=40, iterations=1)
    smooth, edge = 100.0, 300.0 * 12 / 500
    expected = np.zeros_like(p)
    for y in range(9):
        for x in range(12):
            near, far = [], []
            for v in range(9):
                for u in range(12):
                    away = (v - y) ** 2 + (u - x) ** 2
                    if away and max(abs(v - y), abs(u - x)) <= 5:
                        near.append((np.exp(-away / (2 * smooth**2)), p[v, u]))
                    if away and max(abs(v - y), abs(u - x)) <= 10:
                        grey = float(image[v, u]) - float(image[y, x])
                        far.append((np.exp(-away / (2 * edge**2) - grey**2 / (2 * 40**2)), p[v, u]))
            pull = sum(
                weight * (2 * sum(w * q for w, q in m) / sum(w for w, _ in m) - 1)
                for weight, m in ((config.smooth_weight, near), (config.edge_weight, far))
            )
            expected[y, x] = 1 / (1 + np.exp(-(np.log(p[y, x] / (1 - p[y, x])) + pull)))
    assert np.allclose(crf(image, p, config), expected, atol=1e-4)


def test_large_pictures_give_what_small_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    image, frayed = _picture(DISC), _frayed(DISC)
    kept = crf(image, frayed)
    monkeypatch.setattr("segmed.inference.refinement.crf._KEPT_BYTES", 0)
    assert np.array_equal(crf(image, frayed), kept)


@pytest.mark.parametrize("kind", ["regions", "edges"])
def test_the_level_set_moves_the_edge_within_its_band(kind: str) -> None:
    image = _picture(DISC, noise=2)
    wide = ndimage.binary_dilation(DISC, iterations=4)
    config = LevelSetConfig(kind, iterations=40)  # type: ignore[arg-type]
    assert _dice(wide, DISC) < 0.86
    assert _dice(level_set(image, wide, config), DISC) > 0.95
    other = DISC | ((Y - 80) ** 2 + (X - 80) ** 2 < 8**2)  # an alike object that the mask does not touch
    moved = level_set(_picture(other, noise=2), wide, config)
    assert not moved[74:, 74:].any()


def test_an_empty_mask_stays_empty() -> None:
    nothing = np.zeros((40, 50))
    image = np.full((40, 50), 80, np.uint8)
    for refine in REFINEMENTS.values():
        assert not refine(_rough(nothing, image)).any()


def test_points_lie_evenly_inside_the_outline() -> None:
    prompt = outline_prompt(DISC, OutlineConfig(spacing=100, outward=60))
    inner, outer = prompt.foreground[:-1], prompt.background
    radius = np.linalg.norm(inner - [44, 48], axis=1)
    assert abs(len(inner) - 2 * np.pi * 20 * (1024 / 96) / 100) < 1.5  # an outline of pixels has steps
    assert np.allclose(radius, 0.85 * 20, atol=1.0)  # 15 % of the inscribed radius
    angles = np.sort(np.arctan2(*(inner - [44, 48]).T))
    assert np.allclose(np.diff(angles), 2 * np.pi / len(inner), atol=0.12)
    assert np.linalg.norm(prompt.foreground[-1] - [44, 48]) < 2  # the innermost point
    assert len(outer) == len(inner) and np.allclose(
        np.linalg.norm(outer - [44, 48], axis=1), 20 + 60 * 96 / 1024, atol=1
    )
    assert prompt.box == pytest.approx((24.5, 28.5, 63.5, 67.5), abs=1.1)
    assert prompt.mask is not None and np.array_equal(prompt.mask, DISC)


def test_thin_and_parted_masks_get_points_inside_only() -> None:
    thin = (abs(Y - 30) < 2) & (X > 8) & (X < 90)
    parted = thin | DISC & (Y > 50) | ((Y == 90) & (X == 3))  # the last one too small for points
    prompt = outline_prompt(parted, OutlineConfig(min_area=300))
    pixels = prompt.foreground.round().astype(int)
    assert parted[pixels[:, 1], pixels[:, 0]].all()
    assert (pixels[:, 1] < 40).sum() >= 5 and (pixels[:, 1] > 50).sum() >= 5 and not (pixels[:, 0] == 3).any()


def test_a_mask_at_the_border_of_the_picture() -> None:
    corner = (Y < 30) & (X < 25)
    prompt = outline_prompt(corner, OutlineConfig(outward=40))
    assert prompt.box == (0, 0, pytest.approx(24.5, abs=0.6), pytest.approx(29.5, abs=0.6))
    assert (prompt.points >= 0).all()
    assert not corner[
        prompt.background[:, 1].round().astype(int), prompt.background[:, 0].round().astype(int)
    ].any()


def test_the_outline_is_asked_until_it_settles_and_keeps_the_users_words() -> None:
    asked: list[SlicePrompt] = []
    better = ndimage.binary_dilation(DISC, iterations=1)

    def again(prompt: SlicePrompt) -> np.ndarray:
        asked.append(prompt)
        return better.astype(float)

    user = SlicePrompt((20, 24, 68, 72), np.array([[44, 48], [5, 5]], np.float32), np.array([1, 0]))
    refined = by_outline(Rough(_picture(DISC), DISC.astype(float), user, again), OutlineConfig(rounds=5))
    assert np.array_equal(refined, better)
    assert len(asked) == 2  # the second answer is the first again
    assert asked[0].box == user.box
    assert [5, 5] in asked[0].background.tolist() and [44, 48] in asked[0].foreground.tolist()


def test_a_refinement_that_loses_the_object_is_dropped() -> None:
    assert np.array_equal(guarded(DISC, DISC & (X < 40)), DISC)
    assert np.array_equal(guarded(DISC, np.zeros_like(DISC)), DISC)
    almost = ndimage.binary_erosion(DISC)
    assert np.array_equal(guarded(DISC, almost), almost)
    swallowed = by_crf(_rough(_frayed(DISC), np.full((96, 96), 80, np.uint8)), CrfConfig(edge_weight=1000))
    assert _dice(swallowed, _frayed(DISC) > 0.5) > 0.8


def test_the_predictor_refines_every_slice() -> None:
    array = np.stack([_picture(DISC)] * 3, axis=2).swapaxes(0, 1)
    picture = Picture(array, np.eye(4), "drawn", "auto")
    predictor = Predictor(Classical(), ByteBoundedStore(2**24))
    prompt = Prompt(foreground=((44, 48, 1),))
    plain = predictor.segment_slices(picture, prompt)
    swapped = predictor.segment_slices(picture, prompt, refine=lambda rough: ~rough.mask)
    assert np.array_equal(swapped[1], ~plain[1])
    for refine in REFINEMENTS.values():
        assert _dice(predictor.segment_slices(picture, prompt, refine=refine)[1], DISC) > 0.9
    volume = predictor.segment_volume(picture, prompt, refine=REFINEMENTS["crf"])
    assert sorted(volume) == [0, 1, 2] and all(_dice(mask, DISC) > 0.9 for mask in volume.values())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CrfConfig(edge_width=0), "above 0"),
        (lambda: LevelSetConfig(band=0), "above 0"),
        (lambda: OutlineConfig(fewest=5, most=4), "fewest"),
    ],
)
def test_settings_that_cannot_be_used(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
