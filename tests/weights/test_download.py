"""Downloads over HTTP: resumed, refused, whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from segmed.weights import download as module
from segmed.weights.download import download
from segmed.weights.errors import DamagedError, FetchError
from weights.file_server import FileServer, file_server

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with file_server() as served:
        served.content = CONTENT
        yield served


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_is_told_about(server: FileServer, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    got = download(f"{server.url}/w.pth", tmp_path / "new" / "w.pth", SHA256, lambda *at: told.append(at))
    assert (tmp_path / "new" / "w.pth").read_bytes() == CONTENT
    assert (got.sha256, got.bytes, got.etag) == (SHA256, len(CONTENT), '"one"')
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert _names(tmp_path / "new") == {"w.pth"}


def test_a_truncated_download_is_not_taken_and_goes_on_next_time(server: FileServer, tmp_path: Path) -> None:
    server.cut = 3000
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 broke off .* same command again"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256)
    assert _names(tmp_path) == {"w.pth.partial", "w.pth.etag"}
    server.cut = None
    download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256)
    assert [asked[2] for asked in server.asked] == ["", "bytes=3000-"]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert _names(tmp_path) == {"w.pth"}


def test_a_file_that_changed_meanwhile_begins_anew(server: FileServer, tmp_path: Path) -> None:
    server.cut = 3000
    with pytest.raises(FetchError):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    server.cut, server.etag, server.content = None, '"two"', CONTENT[::-1]
    download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_nothing_is_continued(server: FileServer, tmp_path: Path, etag: str) -> None:
    server.cut, server.etag = 3000, etag
    with pytest.raises(FetchError):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    server.cut = None
    download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256)
    assert [asked[2] for asked in server.asked] == ["", ""]


def test_a_server_without_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.cut, server.ranges = 3000, False
    with pytest.raises(FetchError):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    server.cut = None
    download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_download_that_was_killed_before_its_end_is_finished(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth.partial").write_bytes(CONTENT)
    (tmp_path / "w.pth.etag").write_text('"one"')
    assert download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256).etag == '"one"'
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_rest_that_is_too_long_is_refused(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth.partial").write_bytes(CONTENT + b"more")
    (tmp_path / "w.pth.etag").write_text('"one"')
    with pytest.raises(FetchError, match=r"does not fit .* Delete the \.partial file"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256)
    assert not (tmp_path / "w.pth").exists()


def test_a_wrong_checksum_leaves_the_old_file(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"old")
    with pytest.raises(DamagedError, match=f"SHA-256 is {SHA256}, expected was {'0' * 64}. It was deleted"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", "0" * 64)
    assert (tmp_path / "w.pth").read_bytes() == b"old"
    assert _names(tmp_path) == {"w.pth"}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/html; charset=utf-8", CONTENT),
        ("application/octet-stream", b"\n<!DOCTYPE html><html>log in</html>"),
        ("application/octet-stream", b"<HTML>consent</HTML>"),
    ],
)
def test_a_web_page_is_no_weights(server: FileServer, tmp_path: Path, kind: str, content: bytes) -> None:
    server.kind, server.content = kind, content
    with pytest.raises(DamagedError, match="sent a web page instead of the weights"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()
    assert "w.pth.partial" not in _names(tmp_path)


def test_a_pointer_is_no_weights(server: FileServer, tmp_path: Path) -> None:
    server.content = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    with pytest.raises(DamagedError, match="a Git LFS pointer"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")


def test_an_empty_answer_is_no_file(server: FileServer, tmp_path: Path) -> None:
    server.content = b""
    with pytest.raises(FetchError, match="shorter than announced"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "refuses this machine"), (404, "not there any more"), (503, "Try again later")],
)
def test_a_refusal_says_what_to_do(server: FileServer, tmp_path: Path, status: int, advice: str) -> None:
    server.status = status
    with pytest.raises(FetchError, match=f"answers {status} .*{advice}.*/w.pth"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert _names(tmp_path) == set()


def test_a_disk_that_fills_up_is_freed_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(done: int, total: int) -> None:
        if done:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FetchError, match=r"not enough space in .*SEGMED_WEIGHTS"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256, full)
    assert _names(tmp_path) == set()


def test_a_disk_that_is_too_small_is_noticed_beforehand(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(FetchError, match="not enough space"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256)
    assert not (tmp_path / "w.pth").exists()


def test_other_troubles_of_the_disk_are_not_hidden(server: FileServer, tmp_path: Path) -> None:
    def broken(done: int, total: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth", SHA256, broken)


def test_offline_asks_nobody(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE forbids downloads"):
        download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert server.asked == []


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 cannot be reached .*HTTPS_PROXY"):
        download("http://127.0.0.1:9/w.pth", tmp_path / "w.pth")


def test_the_proxy_of_the_environment_is_asked(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.url)
    download("http://weights.invalid/w.pth", tmp_path / "w.pth", SHA256)
    assert server.asked[0][1] == "http://weights.invalid/w.pth"


def test_two_processes_do_not_write_the_same_file(server: FileServer, tmp_path: Path) -> None:
    with (tmp_path / "w.pth.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match=r"Another process is downloading w\.pth"):
            download(f"{server.url}/w.pth", tmp_path / "w.pth")
    assert server.asked == []
