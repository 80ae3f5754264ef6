"""Several values per voxel are colours only where the header says so."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from segmed.imaging.grid import read_grid
from segmed.imaging.reading import read_volume

STEPS = np.diag([1.0, 1, 2])


def _nrrd(
    path: Path, channels: int, kind: str, last: bool = False, dtype: type = np.uint8, **more: str
) -> np.ndarray:
    array = np.random.default_rng(channels).integers(0, 255, (channels, 9, 8, 7)).astype(dtype)
    none = np.full((1, 3), np.nan)
    header = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([STEPS, none] if last else [none, STEPS]),
        "space origin": [0, 0, 0],
        "kinds": ["domain"] * 3 + [kind] if last else [kind] + ["domain"] * 3,
        **more,
    }
    nrrd.write(str(path), np.moveaxis(array, 0, -1) if last else array, header)
    return array


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("channels", "kind"), [(3, "RGB-color"), (4, "RGBA-color"), (3, "3-color"), (4, "4-color")]
)
def test_colours(tmp_path: Path, channels: int, kind: str, last: bool) -> None:
    array = _nrrd(tmp_path / "a.nrrd", channels, kind, last)
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.is_colour and np.array_equal(np.moveaxis(volume.array, -1, 0), array[:3])
    assert read_grid(tmp_path / "a.nrrd").channels == channels


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["list", "vector", "covariant-vector", "point", "time"])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_sequences_and_vectors_are_no_colours(tmp_path: Path, channels: int, kind: str, last: bool) -> None:
    kind = "3-vector" if kind == "vector" and channels == 3 else kind
    _nrrd(tmp_path / "a.nrrd", channels, kind, last, np.int16)
    for read in (read_volume, read_grid):
        with pytest.raises(ValueError, match=rf"a\.nrrd has {channels} channels; SegMed takes grey or RGB"):
            read(tmp_path / "a.nrrd")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [2, 3, 4, 6])
def test_meta_images_cannot_say_what_their_values_are(tmp_path: Path, channels: int, dtype: type) -> None:
    image = sitk.GetImageFromArray(np.zeros((5, 7, 11, channels), dtype), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    for read in (read_volume, read_grid):
        with pytest.raises(ValueError, match=rf"a\.mha has {channels} channels.* does not call them colours"):
            read(tmp_path / "a.mha")


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_a_layered_segmentation_is_no_image(tmp_path: Path, layers: int) -> None:
    names = {
        f"Segment{n}_{key}": value
        for n in range(layers)
        for key, value in (("Layer", str(n)), ("Name", f"s{n}"))
    }
    _nrrd(tmp_path / "a.seg.nrrd", layers, "list", **names)
    with pytest.raises(
        ValueError, match=f"a.seg.nrrd is a segmentation of {layers} layers, which is not an image"
    ):
        read_volume(tmp_path / "a.seg.nrrd")
