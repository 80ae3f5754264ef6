"""Files are decoded in processes of their own: the same voxels, and nothing that a file does ends the
server."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bombs
import nibabel as nib
import numpy as np
import psutil
import pytest
from PIL import Image
from segmed.imaging.decoding.budget import Budget
from segmed.imaging.decoding.decoder import Decoder
from segmed.imaging.decoding.workers import Workers
from segmed.imaging.formats.limits import set_most_voxels
from segmed.imaging.formats.seg_nrrd import write_segments
from segmed.imaging.grid import Grid, read_grid, read_label_segments
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.picture import open_picture
from segmed.imaging.reading import read_volume

WriteSeries = Callable[..., list[Path]]
SICK = """
import os, time
import numpy as np
from segmed.imaging.decoding import tasks, worker

def read(path):
    word = path.read_text()
    if word == "loop":
        while True:
            pass
    if word == "sleep":
        time.sleep(1000)
    if word == "crash":
        os.abort()
    if word == "bug":
        raise KeyError("/home/secret")
    if word == "full":
        raise OSError(28, "No space left on device", "/home/secret")
    if word == "grow":
        found = []
        while True:
            found.append(np.ones(2**24))
    return {}, ()

tasks.TASKS["check"] = read
worker.main()
"""


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    one = Decoder()
    yield one
    one.workers.close()


@pytest.fixture
def sick(tmp_path: Path) -> Iterator[Decoder]:
    """Readers that do what a file says."""
    program = tmp_path / "sick.py"
    program.write_text(SICK, encoding="utf-8")
    budget = Budget(memory=256 * 2**20, seconds=0.5, shortest=8.0, waiting=1.0)
    one = Decoder(Workers(1, budget, (sys.executable, str(program))))
    yield one
    one.workers.close()


def test_a_volume_is_the_same(decoder: Decoder, tmp_path: Path, write_series: WriteSeries) -> None:
    voxels = np.random.default_rng(0).normal(0, 300, (20, 15, 6))
    affine = np.array([[-1.5, 0.1, 0, 7], [0.1, 2, 0, -3], [0, 0, 3, 1 / 3], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    write_series(tmp_path / "ct", voxels.astype(np.int16), np.diag([1, 1, 2.5, 1]))
    Image.fromarray(voxels[..., :3].astype(np.uint8)).save(tmp_path / "a.png")
    for name in ("a.nii.gz", "ct", "a.png"):
        mine, theirs = read_volume(tmp_path / name), decoder.volume(tmp_path / name)
        assert mine.array.dtype == theirs.array.dtype
        assert np.array_equal(mine.array, theirs.array)
        assert np.array_equal(mine.affine, theirs.affine)
        assert (mine.modality, mine.source) == (theirs.modality, theirs.source)


def test_so_are_a_picture_and_a_label_map(decoder: Decoder, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(0, 300, (20, 15, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    mine, theirs = open_picture(tmp_path / "a.nii.gz", "auto"), decoder.picture(tmp_path / "a.nii.gz")
    assert np.array_equal(mine.array, theirs.array)
    assert (mine.key, mine.window, mine.levels) == (theirs.key, theirs.window, theirs.levels)

    layers = tuple(np.zeros((20, 15, 6), np.uint8, order="F") for _ in range(2))
    layers[0][3:9, 3:9, 2], layers[1][5:12, 5:12, 2] = 1, 2
    parts = (StoredSegment("liver", 1, 0, 1), StoredSegment("tumour ä", 2, 1, 2).coloured((1, 2, 3)))
    write_segments(Segments(layers, parts), np.eye(4), tmp_path / "b.seg.nrrd")
    grid = read_grid(tmp_path / "a.nii.gz")
    ours, told = (
        read_label_segments(tmp_path / "b.seg.nrrd", grid),
        decoder.segments(tmp_path / "b.seg.nrrd", grid),
    )
    assert [np.array_equal(a, b) for a, b in zip(ours.layers, told.layers, strict=True)] == [True, True]
    assert ours.segments == told.segments
    assert ours.general == told.general


def test_errors_are_those_of_the_reader(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no image"):
        decoder.check(tmp_path / "none.nii.gz")
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged or not an image"):
        decoder.check(tmp_path / "a.nii.gz")
    Image.fromarray(np.eye(9, dtype=np.uint8)[..., None] * np.array([9, 8, 7], np.uint8)).save(
        tmp_path / "a.png"
    )
    with pytest.raises(ValueError, match="picture in colour"):
        decoder.segments(tmp_path / "a.png", Grid((9, 9, 1), np.eye(4)), grey=True)
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4)), tmp_path / "b.nii.gz")
    set_most_voxels(209)
    try:
        with pytest.raises(ValueError, match="at most 209 are read"):
            decoder.check(tmp_path / "b.nii.gz")
    finally:
        set_most_voxels(None)
    decoder.check(tmp_path / "b.nii.gz")


BOMBS: dict[str, Callable[[Path], None]] = {
    "a.nii.gz": bombs.nifti,
    "a.nii": bombs.nifti,
    "a.nrrd": bombs.nrrd,
    "deflated.dcm": bombs.deflated_dicom,
    "wide.dcm": bombs.wide_dicom,
    "runs.dcm": bombs.run_length_dicom,
    "frames.dcm": bombs.many_frames_dicom,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_costs_the_server_nothing(decoder: Decoder, tmp_path: Path, name: str) -> None:
    BOMBS[name](tmp_path / name)
    assert (tmp_path / name).stat().st_size < 16 * 2**20
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match=r"Export|Crop|resample") as caught:
        decoder.check(tmp_path / name)
    assert "/" not in str(caught.value).replace("damaged/", "")
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("loop", "takes longer"),
        ("sleep", "takes longer"),
        ("crash", "reader failed"),
        ("bug", "reader failed"),
    ],
)
def test_a_sick_reader_is_ended(sick: Decoder, tmp_path: Path, word: str, told: str) -> None:
    (tmp_path / "a.nii").write_text(word)
    (tmp_path / "b.nii").write_text("fine")
    with pytest.raises(ValueError, match=told) as caught:
        sick.check(tmp_path / "a.nii")
    assert "secret" not in str(caught.value)
    sick.check(tmp_path / "b.nii")
    assert not [one for one in psutil.Process().children() if one.status() == psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform limits no address space")
def test_so_is_one_that_grows(sick: Decoder, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("grow")
    # on a busy machine its time may end first
    with pytest.raises(ValueError, match=r"takes more memory|takes longer"):
        sick.check(tmp_path / "a.nii")


def test_a_full_disk_is_told_as_such(sick: Decoder, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("full")
    with pytest.raises(OSError, match="No space") as caught:
        sick.check(tmp_path / "a.nii")
    assert caught.value.errno == 28


def test_a_process_that_was_killed_is_replaced(decoder: Decoder, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    decoder.check(tmp_path / "a.nii.gz")
    for worker in decoder.workers._idle:
        worker._process.kill()
        worker._process.wait()
    decoder.check(tmp_path / "a.nii.gz")


def test_there_are_no_more_processes_than_allowed(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((50, 60, 7), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    decoder, seen, over = Decoder(Workers(2)), [0], threading.Event()

    def count() -> None:
        while not over.wait(0.01):
            seen.append(len(psutil.Process().children()))

    before = len(psutil.Process().children())
    watch = threading.Thread(target=count)
    watch.start()
    with ThreadPoolExecutor(8) as pool:
        shapes = list(pool.map(lambda _: decoder.volume(tmp_path / "a.nii.gz").shape, range(16)))
    over.set()
    watch.join()
    assert shapes == [(50, 60, 7)] * 16
    assert max(seen) <= before + 2
    decoder.workers.close()
    assert len(psutil.Process().children()) == before


def test_an_honest_file_has_room_and_time() -> None:
    budget = Budget()
    ct = 512 * 512 * 300
    assert budget.most_memory(80 * 2**20, ct) > 20 * ct
    assert budget.most_seconds(80 * 2**20, ct) > 30
    assert budget.most_waiting(0, 0) == budget.shortest
    assert budget.most_memory(0, 2**40) < psutil.virtual_memory().total
