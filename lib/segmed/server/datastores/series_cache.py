"""Series on disk, fetched once, the least recently used out first; shared by all processes of a server.

Each series has a lock file: shared by those who use it, exclusive for who fetches or removes it. The file
tells how large the fetched series is and which state of it that was; its time is that of the last use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from segmed.imaging import file_locks

_JUST_USED = 60.0  # s; who was given a path reads it in that time
_CLOCKS = 60.0  # s by which clocks of processes and of file systems may differ


class SeriesCache:
    """Bounded in bytes, but for what is in use.

    Args:
        folder: made with mode 700.
        max_bytes: that series may fill; the one that is fetched comes on top for as long as that takes.
        just_used: s after its last use in which a series is not removed.
    """

    def __init__(self, folder: Path, max_bytes: int, just_used: float = _JUST_USED) -> None:
        self.folder, self.max_bytes, self.just_used = folder, max_bytes, just_used

    @contextlib.contextmanager
    def use(self, series: str, state: str, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """The folder of a series, which stays as long as the context lasts.

        Args:
            series: UID, a name that is safe as that of a folder.
            state: which state of it is wanted, one word; "" for whichever is there.
            fetch: writes the series into an empty folder; called by one at a time, and only if it is not
                there.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        asked = fetched = False
        with (self.folder / f"{series}.lock").open("a+") as lock:
            while True:
                file_locks.share(lock)
                there = self._state(series, lock)
                if there is not None and (asked or state in ("", there)):
                    break
                asked = True
                if there is None:
                    file_locks.lock(lock)
                elif not file_locks.try_lock(lock):
                    continue  # an older state is better than waiting for those who use it
                there = self._state(series, lock)
                if there is None or state not in ("", there):
                    self._fetch(series, state, lock, fetch)
                    fetched = True
            os.utime(self.folder / f"{series}.lock")  # not by its descriptor, which Windows does not take
            if fetched:
                self._make_room()
            yield self.folder / series

    def size(self) -> int:
        """Bytes of all fetched series."""
        return sum(size for _, _, size in self._fetched())

    def _state(self, series: str, lock: TextIO) -> str | None:
        """Of the fetched series; None if there is none, or only part of one."""
        lock.seek(0)
        size, _, state = lock.read().partition(" ")
        return state if size and (self.folder / series).is_dir() else None

    def _fetch(self, series: str, state: str, lock: TextIO, fetch: Callable[[Path], None]) -> None:
        target, part = self.folder / series, self.folder / f"{series}.part"
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(mode=0o700)
        try:
            fetch(part)
            lock.truncate(0)
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        lock.write(f"{sum(path.stat().st_size for path in target.iterdir())} {state}")
        lock.flush()

    def _fetched(self) -> list[tuple[float, str, int]]:
        """Last use, series and bytes of all that are there, the least recently used first."""
        found = []
        for path in self.folder.glob("*.lock"):
            try:
                size = path.read_text(encoding="ascii").partition(" ")[0]
            except PermissionError:  # on Windows, of a series that is being fetched
                continue
            if size.isdecimal():
                used = path.stat().st_mtime
                if used > time.time() + _CLOCKS:  # noted before the clock was set back: it tells nothing
                    used = 0.0
                found.append((used, path.stem, int(size)))
        return sorted(found)

    def _make_room(self) -> None:
        fetched = self._fetched()
        known = {series for _, series, _ in fetched}
        for path in self.folder.iterdir():  # what was left by processes that were killed
            if path.is_dir() and path.name not in known:
                with self._alone(path.name.removesuffix(".part")) as lock:
                    if lock:
                        shutil.rmtree(path, ignore_errors=True)
        total = sum(size for _, _, size in fetched)
        for used, series, size in fetched:
            if total <= self.max_bytes or time.time() - used < self.just_used:
                return
            with self._alone(series) as lock:
                if lock:
                    lock.truncate(0)
                    shutil.rmtree(self.folder / series, ignore_errors=True)
                    total -= size

    @contextlib.contextmanager
    def _alone(self, series: str) -> Iterator[TextIO | None]:
        """The lock file of a series that nobody uses; None if somebody does."""
        with (self.folder / f"{series}.lock").open("a+") as lock:
            yield lock if file_locks.try_lock(lock) else None
