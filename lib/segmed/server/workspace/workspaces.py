"""The workspaces of the server: bounded in memory and number, and journalled to disk while unsaved."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator

from segmed.server.workspace.journal import Journal, Key
from segmed.server.workspace.workspace import Workspace

_LOST = "Unsaved work of yours on this image had to make room for the work of others. Save more often."
_BACK = "Your unsaved work on this image was brought back. Earlier steps cannot be undone."
_OTHER = (
    "Unsaved work of yours was on another image of this name, or is damaged; it could not be brought back."
)
_BEHIND = (
    "The server cannot write your unsaved work to its disk, so that a restart would lose it. Save, or "
    "free space."
)
_TOLD = 10_000  # keys of dropped work that are remembered


class Workspaces:
    """Workspaces by user and image; the least recently used ones are removed first.

    Args:
        max_bytes: Largest size of all workspaces in bytes.
        max_count: Largest number of workspaces in memory.
        journal: Journal that keeps unsaved work on disk; None for memory only.

    Attributes:
        boot: Identifier of this run of the server, by which clients notice a restart.
    """

    def __init__(self, max_bytes: int = 2**30, max_count: int = 200, journal: Journal | None = None) -> None:
        self._max_bytes, self._max_count, self._journal = max_bytes, max_count, journal
        self.boot = uuid.uuid4().hex
        self._highest = 0  # revision of work that was dropped: what is made again is never taken for it
        self._kept: OrderedDict[Key, Workspace] = OrderedDict()
        self._users: dict[Key, int] = {}
        self._sizes: dict[Key, int] = {}
        self._lost: OrderedDict[Key, None] = OrderedDict()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @contextlib.contextmanager
    def use(
        self, key: Key, make: Callable[[], Workspace], identity: Callable[[], str] = str
    ) -> Iterator[tuple[Workspace, list[str]]]:
        """The workspace of a user and image, for exclusive use, and messages for the user.

        Changes are on disk before the block ends.

        Args:
            key: User and image.
            make: Function that opens the workspace if there is none; other workspaces stay available
                meanwhile.
            identity: Function that returns the identity of the image's content; unsaved work is restored from
                disk for the same content only.
        """
        with self._guard:
            missing = key not in self._kept
            self._users[key] = self._users.get(key, 0) + 1
        try:
            fresh, notes = self._opened(key, make, identity) if missing else (None, [])
            with self._guard:
                if fresh is not None:
                    self._kept.setdefault(key, fresh)
                work = self._kept[key]
                self._kept.move_to_end(key)
                notes += [_LOST] if key in self._lost else []
                self._lost.pop(key, None)
            notes += [_BEHIND] if self._journal and self._journal.behind(key) else []
            with work.lock:
                before = work.settle(), work.unsaved
                try:
                    yield work, notes
                finally:
                    self._write(key, work, before)
        finally:
            with self._guard:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]
                if key in self._kept:
                    self._sizes[key] = self._kept[key].nbytes
                self._make_room()

    def revision(self, key: Key) -> int | None:
        """Revision of the work of a user on an image; None if it is not in memory. Takes no lock."""
        work = self._kept.get(key)
        return work.revision if work else None

    def unsaved(self, user: Key) -> set[str]:
        """Images on which a user (the key without the image) has unsaved work, in memory or on disk."""
        with self._guard:
            kept = {key: work.unsaved for key, work in self._kept.items()}
        on_disk = self._journal.keys() if self._journal else []
        keys = [key for key, is_unsaved in kept.items() if is_unsaved] + [
            key for key in on_disk if key not in kept
        ]
        return {key[-1] for key in keys if key[:-1] == user}

    def forget(self, image: str) -> None:
        """Drop all users' work on an image id that now belongs to another image."""
        if self._journal:
            self._journal.forget(image)
        with self._guard:
            for key in [key for key in self._kept if key[-1] == image and key not in self._users]:
                self._drop(key)
                self._sizes.pop(key, None)
            for key in [key for key in self._lost if key[-1] == image]:
                del self._lost[key]

    def _opened(
        self, key: Key, make: Callable[[], Workspace], identity: Callable[[], str]
    ) -> tuple[Workspace, list[str]]:
        """The workspace, opened because it is not in memory, and messages for the user."""
        work = make()
        work.settle()
        work.revision = self._highest
        if not self._journal:
            return work, []
        work.identity = identity()
        restored = self._journal.read(key, work)
        return work, [] if restored is None else [_BACK if restored else _OTHER]

    def _write(self, key: Key, work: Workspace, before: tuple[int, bool]) -> None:
        if not self._journal or before == (work.settle(), work.unsaved):
            return
        if work.unsaved:
            self._journal.write(key, work)
        else:
            self._journal.drop(key)

    def _drop(self, key: Key) -> Workspace:
        work = self._kept.pop(key)
        self._highest = max(self._highest, work.revision + 1)
        return work

    def _make_room(self) -> None:
        """Remove workspaces beyond the bounds; those in use stay."""
        for key in list(self._kept):
            if len(self._kept) <= self._max_count and sum(self._sizes.values()) <= self._max_bytes:
                return
            if key in self._users:
                continue
            if self._drop(key).unsaved and not (self._journal and self._journal.holds(key)):
                self._lost[key] = None
            self._sizes.pop(key, None)
        while len(self._lost) > _TOLD:
            self._lost.popitem(last=False)
