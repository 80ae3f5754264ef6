"""Which version of a model is served: a small file that is replaced as a whole, and the history of its moves.

A move is written into the history first and then made. The pointer has the last word: a move that a crash or a full
disk kept from it counts for nothing.
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
        time: UTC, ISO 8601.
        action: what was asked for.
        version: served from then on; None for the untrained method.
        previous: served until then.
        reason: why.
    """

    time: str
    action: Literal["promote", "rollback"]
    version: str | None
    previous: str | None
    reason: str


_MOVES = TypeAdapter(PointerMove)


@dataclass(frozen=True)
class PointerState:
    """What the pointer says, and marks that change whenever it is replaced.

    Attributes:
        text: version name, `none`, or whatever a damaged file holds.
        changed: time of the last change in ns.
        inode: of the file.
    """

    text: str = _NONE
    changed: int = 0
    inode: int = 0

    @property
    def version(self) -> str | None:
        """None for the untrained method."""
        return None if self.text == _NONE else self.text


class Pointer:
    """`current` and `history.jsonl` of a model. Whoever moves it holds the lock of the model.

    Args:
        folder: of the model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> PointerState:
        """Where it points; without a file, to the untrained method."""
        try:
            with (self.folder / "current").open(encoding="utf-8", errors="replace") as file:
                status = os.fstat(file.fileno())
                return PointerState(file.read(100).strip(), status.st_mtime_ns, status.st_ino)
        except FileNotFoundError:
            return PointerState()

    def history(self) -> list[PointerMove]:
        """Moves, oldest first; damaged lines are left out."""
        path = self.folder / "history.jsonl"
        moves = []
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                moves.append(_MOVES.validate_json(line))
            except ValidationError:
                logger.warning("A line of the history of %s is damaged and left out.", self.folder.name)
        return moves

    def stack(self) -> list[str]:
        """What is served, last, and before it what rollbacks uncover."""
        before: list[str] = []
        stack: list[str] = []
        for move in self.history():
            stack, before = _moved(_settled(before, stack, move.previous), move), stack
        version = self.read().version
        if version is not None and not VERSION_NAME.fullmatch(version):
            return stack
        return _settled(before, stack, version)

    def move(self, action: Literal["promote", "rollback"], version: str | None, reason: str) -> None:
        """Point to a version, or with None to the untrained method.

        Raises:
            OSError: it points where it did.
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
    if move.action == "promote" and move.version:
        return stack if stack[-1:] == [move.version] else [*stack, move.version]
    rest = stack[:-1]
    while rest and rest[-1] != move.version:
        rest = rest[:-1]
    return rest


def _settled(before: list[str], stack: list[str], pointer: str | None) -> list[str]:
    """The stack that agrees with the pointer, if the last move may not have been made.

    Args:
        before: stack before the last move of the history.
        stack: the one after it.
        pointer: what was really served then.
    """
    for possible in (stack, before):
        if (possible[-1] if possible else None) == pointer:
            return possible
    return [*stack, pointer] if pointer else []
