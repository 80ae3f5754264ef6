"""Windows: which one is taken, and the exact grey values it gives."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.imaging.intensity import CT_WINDOWS, WINDOWS, resolve_window, to_uint8
from segmed.imaging.volume import Volume

CLIPS = {
    "ct-soft-tissue": (-160, 240),
    "ct-lung": (-1350, 150),
    "ct-brain": (0, 80),
    "ct-bone": (-500, 1300),
}


def _volume(values: list[float], dtype: type = np.int16, modality: str = "") -> Volume:
    return Volume(np.array(values, dtype).reshape(-1, 1, 1), modality=modality)


def _hu_like(dtype: type = np.int16) -> np.ndarray:
    array: np.ndarray = np.random.default_rng(0).integers(-1000, 900, (16, 16, 8)).astype(dtype)
    array[0, 0, 0], array[1, 1, 1] = -1024, 1500
    return array


# --- exact values ---


def test_every_preset_is_checked_here() -> None:
    assert set(CLIPS) == set(CT_WINDOWS)
    assert WINDOWS == ("auto", "ct-soft-tissue", "ct-lung", "ct-brain", "ct-bone", "percentile", "minmax")


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize(("window", "clip"), CLIPS.items())
def test_ct_presets(window: str, clip: tuple[int, int], dtype: type) -> None:
    low, high = clip
    step = (high - low) / 255
    grey = to_uint8(
        _volume(
            [-3000, low - 1, low, low + 2 * step + 1, (low + high) / 2, high - 1, high, high + 1, 3000], dtype
        ),
        window,
    ).ravel()
    assert grey.dtype == np.uint8
    assert grey[[0, 1, 2]].tolist() == [0, 0, 0]
    assert grey[3] >= 2
    assert grey[4] == 127
    assert grey[5] == int((high - 1 - low) / step)
    assert grey[[6, 7, 8]].tolist() == [255, 255, 255]


def test_a_volume_within_a_ct_window_is_stretched_to_its_own_ends() -> None:
    assert to_uint8(_volume([0, 25, 50, 100]), "ct-soft-tissue").ravel().tolist() == [0, 63, 127, 255]


def test_a_volume_beside_a_ct_window_becomes_black() -> None:
    assert not to_uint8(_volume([-1000, -900, -500]), "ct-brain").any()
    assert not to_uint8(_volume([500, 900, 1000]), "ct-brain").any()


def test_minmax_is_over_the_volume_and_not_over_the_slice() -> None:
    array = np.zeros((2, 2, 2), np.int16)
    array[:, :, 0], array[:, :, 1] = 100, 500
    array[0, 0, 0] = 0
    grey = to_uint8(Volume(array), "minmax")
    assert grey[:, :, 0].tolist() == [[0, 51], [51, 51]]
    assert (grey[:, :, 1] == 255).all()


def test_the_largest_value_is_white_whatever_the_range() -> None:
    tops = {top: int(to_uint8(_volume([0, top]), "minmax")[1, 0, 0]) for top in range(1, 2000)}
    assert {top: grey for top, grey in tops.items() if grey != 255} == {}


def test_percentile_clips_and_leaves_zeros_zero() -> None:
    array = np.zeros((101, 10, 2), np.int16)
    array[1:, 0, 0] = np.arange(1, 101) * 10  # 10, 20, …, 1000
    array[1:, 0, 1] = np.arange(1, 101) * 10
    low, high = np.percentile(array[array > 0], (0.5, 99.5))
    grey = to_uint8(Volume(array), "percentile")
    assert (grey[array == 0] == 0).all()
    assert grey[1, 0, 0] == 0
    assert grey[100, 0, 1] == 255
    exact = (np.clip(array, low, high) - low) / (high - low) * 255
    exact[array == 0] = 0
    assert np.abs(grey - exact).max() <= 1
    assert grey[50, 0, 0] == int(exact[50, 0, 0])


def test_percentile_of_an_image_with_negative_values_takes_all_voxels() -> None:
    array = np.linspace(-1, 1, 1001).astype(np.float32).reshape(1001, 1, 1)
    grey = to_uint8(Volume(array), "percentile").ravel()
    assert grey[[0, 4, 5]].tolist() == [0, 0, 0]
    assert grey[500] == 127
    assert grey[[996, 1000]].tolist() == [255, 255]


def test_eight_bit_colour_stays_untouched() -> None:
    array = np.random.default_rng(1).integers(40, 200, (5, 4, 3, 3)).astype(np.uint8)
    assert np.array_equal(to_uint8(Volume(array)), array)
    assert np.array_equal(to_uint8(Volume(array), "minmax"), array)


def test_sixteen_bit_colour_is_stretched_over_all_channels() -> None:
    array = np.zeros((2, 1, 1, 3), np.uint16)
    array[1, 0, 0] = (0, 6000, 60000)
    assert to_uint8(Volume(array))[1, 0, 0].tolist() == [0, 25, 255]


@pytest.mark.parametrize("window", [w for w in WINDOWS if w != "auto"])
@pytest.mark.parametrize("value", [-1000, 0, 40, 3000])
def test_a_constant_image_becomes_black(window: str, value: int) -> None:
    grey = to_uint8(Volume(np.full((4, 3, 2), value, np.int16)), window)
    assert grey.shape == (4, 3, 2)
    assert not grey.any()


def test_slices_along_k_are_contiguous_and_the_input_stays() -> None:
    array = _hu_like()
    before = array.copy()
    grey = to_uint8(Volume(array))
    assert grey.flags.f_contiguous
    assert np.array_equal(array, before)


# --- the choice ---


@pytest.mark.parametrize(
    ("array", "modality", "expected"),
    [
        (_hu_like(), "", "ct-soft-tissue"),
        (_hu_like(np.float32), "", "ct-soft-tissue"),
        (_hu_like(np.float32) + np.float32(0.3), "", "percentile"),  # not integers
        (np.clip(_hu_like(), -499, None), "", "percentile"),  # no air
        (np.clip(_hu_like(), None, 200), "", "percentile"),  # nothing dense
        (_hu_like(), "MR", "percentile"),
        (_hu_like(), "PT", "percentile"),
        (np.abs(_hu_like()), "CT", "ct-soft-tissue"),
        (np.clip(_hu_like(), None, -400), "CT", "percentile"),  # black in the window of soft tissue
        (np.abs(_hu_like()), "MR", "percentile"),
        (np.abs(_hu_like()), "", "percentile"),
        (np.zeros((3, 3, 3), np.uint8), "", "minmax"),
        (np.zeros((3, 3, 3), np.uint8), "US", "minmax"),
        (np.zeros((3, 3, 1, 3), np.uint8), "", "minmax"),
        (np.zeros((3, 3, 1, 3), np.uint16), "", "minmax"),
    ],
)
def test_auto(array: np.ndarray, modality: str, expected: str) -> None:
    volume = Volume(array, modality=modality)
    assert resolve_window(volume) == expected
    assert np.array_equal(to_uint8(volume), to_uint8(volume, expected))


@pytest.mark.parametrize("window", [w for w in WINDOWS if w != "auto"])
def test_a_named_window_stays(window: str) -> None:
    assert resolve_window(Volume(_hu_like(), modality="CT"), window) == window


def test_an_unknown_window_lists_the_known() -> None:
    with pytest.raises(ValueError, match="Unknown intensity window 'ct-liver'") as caught:
        to_uint8(Volume(_hu_like()), "ct-liver")
    assert all(name in str(caught.value) for name in WINDOWS)
