"""The pointer to the served version of a model: a file that is replaced atomically, and its history.

A move is first written to the history and then made. The pointer is authoritative: a move in the history that
was not made because of a crash or a full disk does not count.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from segmed.imaging.durable import flush

logger = logging.getLogger(__name__)

VERSION_NAME = re.compile(r"[0-9]{4,9}-[0-9a-f]{8}")
_NONE = "none"


@dataclass(frozen=True)
class PointerMove:
    """A line of the history.

    Attributes:
        time: Time in UTC, ISO 8601.
        action: The requested action.
        version: The version served from then on; None for the untrained method.
        previous: The version served until then; None for the untrained method.
        reason: The reason for the move.
    """

    time: str
    action: Literal["promote", "rollback"]
    version: str | None
    previous: str | None
    reason: str


_MOVES = TypeAdapter(PointerMove)


@dataclass(frozen=True)
class PointerState:
    """The content of the pointer, and a fingerprint of its file that changes whenever it is replaced.

    Attributes:
        text: Name of the version, `none`, or the content of a damaged file.
        changed: Time of the last change in ns.
        inode: Inode of the file.
    """

    text: str = _NONE
    changed: int = 0
    inode: int = 0

    @property
    def version(self) -> str | None:
        """Name of the served version, or None for the untrained method."""
        return None if self.text == _NONE else self.text


class Pointer:
    """The files `current` and `history.jsonl` of a model; moving it requires the lock of the model.

    Args:
        folder: Folder of the model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> PointerState:
        """Read the pointer; without a file it points to the untrained method."""
        try:
            with (self.folder / "current").open(encoding="utf-8", errors="replace") as file:
                status = os.fstat(file.fileno())
                return PointerState(file.read(100).strip(), status.st_mtime_ns, status.st_ino)
        except FileNotFoundError:
            return PointerState()

    def history(self) -> list[PointerMove]:
        """Read the moves, oldest first; damaged lines are skipped."""
        path = self.folder / "history.jsonl"
        moves = []
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                moves.append(_MOVES.validate_json(line))
            except ValidationError:
                logger.warning("A line of the history of %s is damaged and is skipped.", self.folder.name)
        return moves

    def stack(self) -> list[str]:
        """The served version as the last item, after the versions to which rollbacks return, oldest first."""
        before: list[str] = []
        stack: list[str] = []
        for move in self.history():
            stack, before = _moved(_settled(before, stack, move.previous), move), stack
        version = self.read().version
        if version is not None and not VERSION_NAME.fullmatch(version):
            return stack
        return _settled(before, stack, version)

    def move(self, action: Literal["promote", "rollback"], version: str | None, reason: str) -> None:
        """Move the pointer to a version, or with None to the untrained method.

        Raises:
            OSError: If a file cannot be written; the pointer has not moved.
        """
        stack = self.stack()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        move = PointerMove(now, action, version, stack[-1] if stack else None, reason)
        history, fresh = self.folder / "history.jsonl", self.folder / ".current"
        with history.open("a+b") as file:
            torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + _MOVES.dump_json(move) + b"\n")
        flush(history)
        fresh.write_text(f"{version or _NONE}\n", encoding="utf-8")
        flush(fresh)
        fresh.replace(self.folder / "current")
        flush(self.folder)


def _moved(stack: list[str], move: PointerMove) -> list[str]:
    """The stack of served versions after a move."""
    if move.action == "promote" and move.version:
        return stack if stack[-1:] == [move.version] else [*stack, move.version]
    rest = stack[:-1]
    while rest and rest[-1] != move.version:
        rest = rest[:-1]
    return rest


def _settled(before: list[str], stack: list[str], pointer: str | None) -> list[str]:
    """The stack that agrees with the pointer, as the last move may not have been made.

    Args:
        before: The stack before the last move of the history.
        stack: The stack after that move.
        pointer: The version that was really served then.
    """
    for possible in (stack, before):
        if (possible[-1] if possible else None) == pointer:
            return possible
    return [*stack, pointer] if pointer else []
