"""Weights that come in an archive: one file is kept, or nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from segmed.weights.errors import DamagedError, FetchError
from segmed.weights.fetch import fetch, verify
from segmed.weights.places import weights_folder
from segmed.weights.table import PUBLISHED, Published
from weights.file_server import FileServer, file_server

CONTENT = b"weights" * 500
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SEGMED_WEIGHTS", str(tmp_path / "own"))
    with file_server() as served:
        served.content = CONTENT
        yield served


@pytest.fixture
def packed(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Published:
    """One file in an archive on a plain server, its checksum known."""
    weights = Published(
        "packed",
        "sam",
        "tests",
        "MIT",
        1,
        ("w.pth",),
        url=f"{server.url}/package.whl",
        sha256=SHA256,
        member="package/w.pth",
    )
    monkeypatch.setitem(PUBLISHED, "packed", weights)
    return weights


def _archive(server: FileServer, member: str, content: bytes) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("package/__init__.py", "")
        opened.writestr(member, content)
    server.content = held.getvalue()


def test_one_file_is_kept_of_an_archive(server: FileServer, packed: Published) -> None:
    _archive(server, "package/w.pth", CONTENT)
    assert fetch(packed).read_bytes() == CONTENT
    assert verify(packed).startswith("the published SHA-256 and the first download")
    assert {path.name for path in weights_folder().iterdir()} == {"w.pth", "lock.json"}


@pytest.mark.parametrize(
    ("member", "content", "text"),
    [
        ("package/w.pth", b"other", f"not the published file: .*expected was {SHA256}"),
        ("package/x.pth", CONTENT, r"not an archive with package/w\.pth in it"),
        ("", CONTENT, "not an archive"),
    ],
)
def test_a_wrong_archive_leaves_nothing(
    server: FileServer, packed: Published, member: str, content: bytes, text: str
) -> None:
    if member:
        _archive(server, member, content)
    with pytest.raises(DamagedError, match=text):
        fetch(packed)
    assert list(weights_folder().iterdir()) == []


def test_a_full_disk_while_an_archive_is_unpacked(
    server: FileServer, packed: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    _archive(server, "package/w.pth", CONTENT)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segmed.weights.archive.shutil.copyfileobj", full)
    with pytest.raises(FetchError, match=r"not enough space.*could not be unpacked"):
        fetch(packed)
    assert list(weights_folder().iterdir()) == []
