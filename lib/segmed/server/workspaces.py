"""All workspaces of the server, bounded in memory and number."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

from segmed.server.workspace import Workspace

Key = tuple[str, ...]
_LOST = "Unsaved work of yours on this image had to make room for the work of others. Save more often."
_TOLD = 10_000  # keys of dropped work that are remembered


class Workspaces:
    """Workspaces by user and image; those that were not used for the longest time go first.

    Args:
        max_bytes: that all of them may fill.
        max_count: how many are kept.
    """

    def __init__(self, max_bytes: int = 2**30, max_count: int = 200) -> None:
        self._max_bytes, self._max_count = max_bytes, max_count
        self._kept: OrderedDict[Key, Workspace] = OrderedDict()
        self._users: dict[Key, int] = {}
        self._sizes: dict[Key, int] = {}
        self._lost: OrderedDict[Key, None] = OrderedDict()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @contextlib.contextmanager
    def use(self, key: Key, make: Callable[[], Workspace]) -> Iterator[tuple[Workspace, list[str]]]:
        """The workspace of a user and image, for nobody else meanwhile, and sentences for the user.

        Args:
            key: user and image.
            make: opens it if there is none; others are not kept waiting.
        """
        with self._guard:
            missing = key not in self._kept
            self._users[key] = self._users.get(key, 0) + 1
        try:
            fresh = make() if missing else None
            with self._guard:
                if fresh is not None:
                    self._kept.setdefault(key, fresh)
                work = self._kept[key]
                self._kept.move_to_end(key)
                notes = [_LOST] if key in self._lost else []
                self._lost.pop(key, None)
            with work.lock:
                yield work, notes
        finally:
            with self._guard:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]
                if key in self._kept:
                    self._sizes[key] = self._kept[key].nbytes
                self._make_room()

    def forget(self, image: str) -> None:
        """Drop what users had on an image of this name, which is another one now."""
        with self._guard:
            for key in [key for key in self._kept if key[-1] == image and key not in self._users]:
                del self._kept[key]
                self._sizes.pop(key, None)
            for key in [key for key in self._lost if key[-1] == image]:
                del self._lost[key]

    def _make_room(self) -> None:
        """Drop what is too much; work in use stays."""
        for key in list(self._kept):
            if len(self._kept) <= self._max_count and sum(self._sizes.values()) <= self._max_bytes:
                return
            if key in self._users:
                continue
            if self._kept.pop(key).unsaved:
                self._lost[key] = None
            self._sizes.pop(key, None)
        while len(self._lost) > _TOLD:
            self._lost.popitem(last=False)
