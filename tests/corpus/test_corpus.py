"""The corpus through the reader, a server and the command line: read as it is meant, or refused for the true
reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from running import Server, Start
from segmed.cli import app
from segmed.imaging.grid import read_grid
from segmed.imaging.reading import extension_of, read_volume
from typer.testing import CliRunner

from corpus.row import Row
from corpus.table import ROWS

PRIVATE = ("environ", "PATH=", "Traceback")
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def _like(found: np.ndarray, truth: np.ndarray, name: str) -> bool:
    lossy = 6 if name.endswith((".jpg", ".jpeg")) else 0
    return found.shape == truth.shape and bool(np.allclose(found, truth, rtol=1e-5, atol=lossy + 1e-7))


def test_the_table_is_large_and_names_its_threads() -> None:
    assert len(ROWS) >= 150
    assert len({row.name.lower() for row in ROWS}) == len(ROWS)
    assert sum(bool(row.thread) for row in ROWS) >= 100
    assert all(re.fullmatch(r"[\w-]+/[\w-]+#\d+.*", row.thread) for row in ROWS if row.thread)


@each_row
def test_reader(row: Row, corpus_file: Callable[[Row], Path]) -> None:
    path = corpus_file(row)
    if row.truth is None:
        for read in (read_volume, read_grid):
            if read is read_grid and not _header_tells(row):
                continue
            with pytest.raises(ValueError, match=row.words) as refused:
                read(path)
            assert not any(word in str(refused.value) for word in PRIVATE)
        return
    volume, grid = read_volume(path), read_grid(path)
    assert _like(volume.array, row.truth, row.name)
    assert grid.shape == volume.shape
    if row.affine is not None:
        assert np.allclose(volume.affine, row.affine, atol=1e-3)
        assert grid.affine is not None and np.allclose(grid.affine, row.affine, atol=1e-3)
    if row.labels is not None:
        assert np.array_equal(read_volume(path, labels=True).array, row.labels)


def _header_tells(row: Row) -> bool:
    """Whether the header alone shows the fault; damaged or unusable voxels do not, nor do axes that some
    files use."""
    voxels = (
        "cut_off",
        "times_",
        "vectors.",
        "complex.",
        "only_nan.",
        "place_nan.",
        "size_huge.",
        "offset_nan.",
    )
    return not any(word in row.name for word in voxels)


@each_row
def test_command_line(row: Row, corpus_file: Callable[[Row], Path], tmp_path: Path) -> None:
    path, out = corpus_file(row), tmp_path / "mask.nii.gz"
    words = ["predict", str(path), "--box", "2,8,1,7,0,0", "--model", "classical", "-o", str(out)]
    done = CliRunner().invoke(app, words)
    said = " ".join(done.output.split())
    if row.truth is None:
        assert done.exit_code == 2, said
        assert re.search(row.words, said), said
        assert not out.exists() and not any(word in said for word in PRIVATE)
    else:
        assert done.exit_code == 0, said
        assert nib.load(out).shape == row.truth.shape[:3]


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return start(tmp_path_factory.mktemp("studies"), "--conf", "models", "classical")


@each_row
def test_server(row: Row, corpus_file: Callable[[Row], Path], server: Server, tmp_path: Path) -> None:
    path = corpus_file(row)
    parts = sorted(path.iterdir()) if path.is_dir() else [path]
    kept = [part for part in parts if part.name != "DICOMDIR" and not part.name.startswith(".")]
    files = [("files", (part.name, part.read_bytes())) for part in kept]
    sent = requests.put(f"{server.url}/session/", files=files, timeout=120)
    if row.truth is None or row.sent:
        words = row.words if not row.sent else f"{row.words}|{row.sent}".strip("|")
        if not path.is_dir() or row.truth is None:
            _refused(sent, words)
        if not path.is_dir() and extension_of(path) != ".dcm":
            put = requests.put(
                f"{server.url}/datastore/image?image=refused", files={"file": files[0][1]}, timeout=120
            )
            _refused(put, words)
            info = requests.get(f"{server.url}/datastore/image/info?image=refused", timeout=30)
            assert info.status_code == 404
        return
    assert sent.status_code == 200, sent.text
    requests.delete(f"{server.url}/session/{sent.json()['session_id']}", timeout=30)
    if path.is_dir() or extension_of(path) == ".dcm":
        return
    name = f"corpus {row.name.replace('.', '_')}"
    put = requests.put(
        f"{server.url}/datastore/image", params={"image": name}, files={"file": files[0][1]}, timeout=120
    )
    assert put.status_code == 200, put.text
    again = requests.put(
        f"{server.url}/datastore/image", params={"image": name}, files={"file": files[0][1]}, timeout=120
    )
    assert again.status_code == 409 and "not replaced" in again.json()["detail"]
    volume = requests.get(f"{server.url}/api/images/{name}/volume.nii", timeout=120)
    (tmp_path / "volume.nii").write_bytes(volume.content)
    stored = np.asarray(nib.load(tmp_path / "volume.nii").dataobj)
    if stored.dtype.fields:
        stored = np.stack([stored[c] for c in "RGB"], axis=-1)
    if row.truth.ndim == 3 or row.truth.dtype == np.uint8:
        assert _like(stored, row.truth, row.name)
    requests.delete(f"{server.url}/datastore/image", params={"id": name}, timeout=30)


def _refused(answer: requests.Response, words: str) -> None:
    assert answer.status_code == 400, answer.text
    detail = answer.json()["detail"]
    assert re.search(words, detail), detail
    assert not any(word in detail for word in PRIVATE)
