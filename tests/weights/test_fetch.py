"""Published weights by name: fetched, noted in the lock file, verified, found again."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from httpx2 import ReadTimeout, RemoteProtocolError
from segmed.sam.preparation import PREPARATIONS
from segmed.sam.sources import is_name
from segmed.weights import hub
from segmed.weights.errors import DamagedError, FetchError
from segmed.weights.fetch import fetch, verify
from segmed.weights.lock import Lock
from segmed.weights.lookup import fetched, resolve
from segmed.weights.places import weights_folder
from segmed.weights.table import PUBLISHED, Published, find
from weights.file_server import FileServer, file_server

CONTENT = b"weights" * 500
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """Serves as a plain server and as a hub; what is fetched lies below `tmp_path`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SEGMED_WEIGHTS", str(tmp_path / "own"))
    with file_server() as served:
        served.content, served.etag = CONTENT, f'"{SHA256}"'
        served.headers = {"X-Repo-Commit": COMMIT}
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield served


@pytest.fixture
def plain(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Published:
    """On a plain server, its checksum unknown."""
    weights = Published("mine", "sam", "tests", "MIT", 1, ("w.pth",), url=f"{server.url}/w.pth")
    monkeypatch.setitem(PUBLISHED, "mine", weights)
    return weights


@pytest.fixture
def hosted(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Two files on a hub."""
    weights = Published("theirs", "sam", "tests", "MIT", 1, ("config.json", "model.safetensors"), "me/theirs")
    monkeypatch.setitem(PUBLISHED, "theirs", weights)
    return weights


def test_what_is_fetched_is_noted_verified_and_found_by_name(server: FileServer, plain: Published) -> None:
    with pytest.raises(FileNotFoundError, match="segmed weights get mine"):
        resolve("mine")
    path = fetch(plain)
    assert resolve("mine") == path == weights_folder() / "w.pth"
    locked = json.loads((weights_folder() / "lock.json").read_text())["weights"]["mine"]
    assert locked["source"] == plain.url
    assert locked["files"] == {"w.pth": {"sha256": SHA256, "bytes": len(CONTENT), "etag": server.etag}}
    assert "first download" in verify(plain)
    fetch(plain)
    assert len(server.asked) == 1


def test_a_change_after_the_first_download_is_noticed(server: FileServer, plain: Published) -> None:
    path = fetch(plain)
    path.write_bytes(b"changed")
    for check in (verify, fetch):
        with pytest.raises(
            DamagedError, match=f"not the one that was fetched on .*then it was {SHA256}.*--update"
        ):
            check(plain)
    server.content, server.etag = b"new version", '"new"'
    fetch(plain, update=True)
    assert path.read_bytes() == b"new version"
    assert "first download" in verify(plain)


def test_what_the_server_changed_is_not_taken_unasked(server: FileServer, plain: Published) -> None:
    fetch(plain).unlink()
    server.content, server.etag = b"another", '"new"'
    with pytest.raises(DamagedError, match="--update"):
        fetch(plain)
    locked = Lock(weights_folder()).get("mine")
    assert locked
    assert locked.files["w.pth"].sha256 == SHA256


def test_a_known_checksum_is_compared(plain: Published) -> None:
    right = replace(plain, sha256=SHA256)
    path = fetch(right)
    assert verify(right).startswith("the published SHA-256 and the first download")
    path.write_bytes(b"changed")
    with pytest.raises(DamagedError, match=f"not the published file.*expected was {SHA256}"):
        verify(right)
    path.write_bytes(b"<html>saved by hand</html>")
    with pytest.raises(DamagedError, match="is a web page and not weights"):
        verify(right)


def test_a_damaged_lock_file_says_so(plain: Published) -> None:
    fetch(plain)
    for text in ("{", "[]", '{"schema": 2}', '{"schema": 1, "weights": {"mine": {}}}'):
        (weights_folder() / "lock.json").write_text(text)
        with pytest.raises(ValueError, match=r"lock\.json is damaged .* Delete it"):
            fetched(plain)


def test_weights_of_a_hub_come_into_its_cache(server: FileServer, hosted: Published) -> None:
    told: list[tuple[int, int]] = []
    folder = fetch(hosted, lambda *at: told.append(at))
    assert folder.name == COMMIT
    assert (folder / "config.json").read_bytes() == (folder / "model.safetensors").read_bytes() == CONTENT
    assert (len(CONTENT), len(CONTENT)) in told
    assert resolve("theirs") == folder
    locked = Lock(weights_folder()).get("theirs")
    assert locked
    assert locked.revision == COMMIT
    assert verify(hosted).startswith("the SHA-256 of the hub and the first download")


@pytest.mark.parametrize(
    "error",
    [
        RemoteProtocolError("peer closed connection"),
        ReadTimeout("timed out"),
        OSError("Consistency check failed: size"),
    ],
)
def test_a_hub_that_breaks_off(hosted: Published, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def cut(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", cut)
    with pytest.raises(FetchError, match=r"me/theirs \(config\.json\) was cut off.*same command again"):
        fetch(hosted)


def test_the_commit_of_the_first_download_is_fetched_again(
    server: FileServer, hosted: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetch(hosted)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "another machine"))
    asked = len(server.asked)
    fetch(hosted)
    assert {path.split("/")[4] for _, path, _ in server.asked[asked:]} == {COMMIT}
    newer = COMMIT[::-1]
    server.headers, server.content = {"X-Repo-Commit": newer}, b"newer" * 100
    server.etag = f'"{hashlib.sha256(server.content).hexdigest()}"'
    assert fetch(hosted, update=True).name == newer
    assert resolve("theirs").name == newer


def test_one_file_of_a_hub_is_a_file(hosted: Published) -> None:
    single = replace(hosted, files=("model.pt",))
    assert fetch(single).read_bytes() == CONTENT
    assert fetched(single) == fetch(single)


def test_what_another_program_has_fetched_is_found(hosted: Published) -> None:
    folder = hub.fetch_files("me/theirs", hosted.files)
    assert not (weights_folder() / "lock.json").exists()
    assert resolve("theirs") == folder


def test_a_damaged_blob_is_noticed(hosted: Published) -> None:
    folder = fetch(hosted)
    (folder / "model.safetensors").resolve().write_bytes(b"changed")
    with pytest.raises(DamagedError, match=f"that of the hub is {SHA256}"):
        verify(hosted)


def test_a_hub_offline(server: FileServer, hosted: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(
            FetchError, match=r"me/theirs \(config\.json\) is not on this machine, and HF_HUB_OFFLINE"
        ):
            fetch(hosted)
    assert server.asked == []
    folder = fetch(hosted)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve("theirs") == fetch(hosted) == folder


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, "There is no 'me/theirs' on 127.0.0.1"),
        (404, {"X-Error-Code": "EntryNotFound"}, "me/theirs has no file config.json"),
        (403, {"X-Error-Code": "GatedRepo"}, "accept its terms first"),
        (200, {}, "did not answer like Hugging Face: a web page"),
    ],
)
def test_refusals_of_a_hub_say_what_to_do(
    server: FileServer, hosted: Published, status: int, headers: dict[str, str], text: str
) -> None:
    server.status, server.headers = status, headers
    with pytest.raises(FetchError, match=text):
        fetch(hosted)


def test_a_full_disk_under_the_cache(hosted: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "hf_hub_download", full)
    with pytest.raises(FetchError, match=r"not enough space in .*HF_HOME"):
        fetch(hosted)


def test_weights_that_no_program_can_fetch_are_taken_from_the_folder(plain: Published) -> None:
    by_hand = replace(plain, url="", page="https://example.org/weights")
    with pytest.raises(
        ValueError, match=r"by hand: open https://example\.org/weights .* save w\.pth in .*own"
    ):
        fetch(by_hand)
    weights_folder().mkdir(parents=True)
    (weights_folder() / "w.pth").write_bytes(CONTENT)
    assert fetch(by_hand) == fetched(by_hand) == weights_folder() / "w.pth"
    assert "first download" in verify(by_hand)


def test_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Did you mean medsam-vit-base"):
        find("medsam-vit-b")
    unknown = Published(
        "theirs", "", "its encoder is not supported", "MIT", 1, ("w.pth",), page="https://x.org"
    )
    monkeypatch.setitem(PUBLISHED, "theirs", unknown)
    with pytest.raises(ValueError, match="SegMed cannot load theirs: its encoder is not supported"):
        resolve("theirs")
    assert is_name("medsam2")
    Path("medsam2").mkdir()
    assert not is_name("medsam2")
    assert not is_name("segmed-tiny")


def test_the_table_is_complete() -> None:
    for name, weights in PUBLISHED.items():
        assert name == weights.name == name.lower()
        assert sum(bool(source) for source in (weights.repository, weights.url, weights.page)) == 1
        assert weights.licence
        assert weights.good_for
        assert len(weights.files) == 1 or weights.repository
        assert len(weights.sha256) in (0, 64)
        assert weights.preparation in ("", *PREPARATIONS)
        assert not weights.member or weights.url
        assert bool(weights.setting) == bool(weights.kind) == bool(weights.options)


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGMED_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert weights_folder() == Path("/data/segmed/weights")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert weights_folder() == Path.home() / ".local/share/segmed/weights"
    monkeypatch.setenv("SEGMED_WEIGHTS", "~/w")
    assert weights_folder() == Path.home() / "w"
