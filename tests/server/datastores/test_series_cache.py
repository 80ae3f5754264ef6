"""The cache of series that a PACS has sent: bounded, never of half a series, and safe for whoever reads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from segmed.server.datastores.series_cache import SeriesCache


def _fetch(size: int, calls: list[str], name: str = "x") -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        calls.append(name)
        (folder / "a.dcm").write_bytes(bytes(size))

    return fetch


def _use(cache: SeriesCache, series: str, size: int, calls: list[str], state: str = "") -> None:
    with cache.use(series, state, _fetch(size, calls, series)) as folder:
        assert (folder / "a.dcm").stat().st_size == size


def test_the_cache_is_bounded_and_the_least_recently_used_series_goes(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 250, just_used=0), list[str]()
    for n, series in enumerate(("1.1", "1.2", "1.1", "1.3")):
        _use(cache, series, 100, calls)
        os.utime(tmp_path / "c" / f"{series}.lock", (n, n))
    assert calls == ["1.1", "1.2", "1.3"]
    assert cache.size() == 200
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.is_dir()) == ["1.1", "1.3"]
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_a_series_in_use_is_never_removed(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 150, just_used=0), list[str]()
    other = SeriesCache(tmp_path / "c", 150, just_used=0)  # as of another process
    with cache.use("1.1", "", _fetch(100, calls)) as folder:
        os.utime(tmp_path / "c" / "1.1.lock", (0, 0))
        _use(other, "1.2", 100, calls)
        assert (folder / "a.dcm").exists()
    os.utime(tmp_path / "c" / "1.1.lock", (0, 0))
    _use(other, "1.3", 100, calls)
    assert not folder.exists()
    lately = SeriesCache(tmp_path / "c", 150)
    _use(lately, "1.4", 100, calls)
    assert (tmp_path / "c" / "1.3").exists()  # who was just given its path still reads it
    for series in ("1.2", "1.3", "1.4"):  # noted when the clock was a week ahead
        os.utime(tmp_path / "c" / f"{series}.lock", (time.time() + 7 * 86400,) * 2)
    _use(lately, "1.5", 100, calls)
    assert lately.size() == 100


def test_a_download_that_breaks_off_is_not_taken_for_a_series(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 10**6), list[str]()

    def break_off(folder: Path) -> None:
        (folder / "a.dcm").write_bytes(b"half")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError), cache.use("1.1", "", break_off):
        pass
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["1.1.lock"]
    (tmp_path / "c" / "1.1").mkdir()  # a process that was killed after the last step but one
    (tmp_path / "c" / "1.9.part").mkdir()
    _use(cache, "1.1", 7, calls)
    assert calls == ["1.1"] and not (tmp_path / "c" / "1.9.part").exists()


def test_a_series_is_fetched_once_by_many_and_again_when_it_has_grown(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 10**6), list[str]()

    def slow(folder: Path) -> None:
        time.sleep(0.2)
        _fetch(5, calls, "1.1")(folder)

    def work() -> None:
        with cache.use("1.1", "3", slow) as folder:
            assert (folder / "a.dcm").exists()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["1.1"]
    _use(cache, "1.1", 9, calls, "4")
    assert calls == ["1.1", "1.1"]
    with cache.use("1.1", "", _fetch(0, calls)):
        _use(cache, "1.1", 9, calls, "5")  # somebody reads the older state: it is used once more
    assert calls == ["1.1", "1.1"]
