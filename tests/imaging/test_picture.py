"""Windowed volumes, read once and kept while they fit."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from segmed.imaging import picture as picture_module
from segmed.imaging.picture import Picture, PictureCache, open_picture
from segmed.imaging.reading import fingerprint, read_volume
from segmed.imaging.volume import Volume

SHAPE = (12, 10, 6)
NBYTES = 720


def _save(path: Path, seed: int = 0) -> Path:
    voxels = np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)
    voxels[0, 0, 0], voxels[1, 1, 1] = -1024, 1500
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -2, 3, 1])), path)
    return path


def test_open_picture(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz")
    picture = open_picture(path)
    assert (picture.shape, picture.nbytes, picture.window) == (SHAPE, NBYTES, "ct-soft-tissue")
    assert picture.array.dtype == np.uint8
    assert np.allclose(picture.affine, np.diag([-1.0, -2, 3, 1]))
    assert picture.slice(2).shape == (10, 12)
    assert picture.slice(2)[7, 3] == picture.array[3, 7, 2]


def test_colour_slices(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = open_picture(str(tmp_path / "a.png"))
    assert (picture.shape, picture.window) == ((11, 7, 1), "minmax")
    assert np.array_equal(picture.slice(0), pixels)


def test_eight_threads_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.nii.gz")
    calls: list[str] = []

    def slow(name: str | os.PathLike[str]) -> Volume:
        calls.append(str(name))
        time.sleep(0.1)
        return read_volume(name)

    monkeypatch.setattr(picture_module, "read_volume", slow)
    cache, start = PictureCache(2**20), threading.Barrier(8)
    found: list[Picture] = []

    def ask() -> None:
        start.wait()
        found.append(cache.get(path))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(picture is found[0] for picture in found)
    assert (cache.reads, len(calls)) == (1, 1)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz")
    cache = PictureCache(2**20)
    first = cache.get(path)
    assert cache.get(str(path)) is first
    _save(path, seed=1)
    os.utime(path, ns=(10**18, 10**18))
    second = cache.get(path)
    assert cache.reads == 2
    assert second.key != first.key
    assert not np.array_equal(second.array, first.array)
    assert np.array_equal(second.array, open_picture(path).array)


def test_a_volume_that_was_read_for_another_purpose_is_taken(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz")
    cache = PictureCache(2**20)
    cache.offer(read_volume(path), fingerprint(path))
    found, alone = cache.get(path), open_picture(path)
    assert cache.reads == 0
    assert (found.key, found.window, found.levels) == (alone.key, alone.window, alone.levels)
    assert np.array_equal(found.array, alone.array)
    cache.offer(read_volume(_save(tmp_path / "b.nii.gz", seed=1)), fingerprint(path))
    assert cache.get(path) is found  # what is there stays


def test_another_window_is_another_picture(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz")
    cache = PictureCache(2**20)
    soft, lung = cache.get(path, "ct-soft-tissue"), cache.get(path, "ct-lung")
    assert cache.reads == 2
    assert soft.key != lung.key
    assert not np.array_equal(soft.array, lung.array)
    assert cache.get(path, "ct-lung") is lung


def test_bounded_in_bytes(tmp_path: Path) -> None:
    paths = [_save(tmp_path / f"{n}.nii.gz", n) for n in range(3)]
    cache = PictureCache(2 * NBYTES)
    for path in (paths[0], paths[1], paths[0], paths[2]):  # 2 pushes 1 out
        cache.get(path)
    assert cache.reads == 3
    cache.get(paths[0])
    assert cache.reads == 3
    cache.get(paths[1])
    assert cache.reads == 4


def test_a_picture_above_the_bound_is_read_each_time(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii.gz")
    cache = PictureCache(NBYTES - 1)
    assert np.array_equal(cache.get(path).array, cache.get(path).array)
    assert cache.reads == 2


def test_errors_reach_the_user_and_block_nobody(tmp_path: Path) -> None:
    cache = PictureCache(2**20)
    path = tmp_path / "a.nii.gz"
    with pytest.raises(FileNotFoundError, match="There is no image"):
        cache.get(path)
    path.write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be read"):
            cache.get(path)
    _save(path)
    with pytest.raises(ValueError, match="Unknown intensity window"):
        cache.get(path, "x-ray")
    assert cache.get(path).shape == SHAPE
