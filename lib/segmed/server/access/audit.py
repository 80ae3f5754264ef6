"""Who changed what: one line of JSON for each request, chained by hashes, so that a change afterwards
shows."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmed.server.access.users import User

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 2**20  # of a file; then the next one is begun
_FIRST = "0" * 64
_SAFE = ("GET", "HEAD", "OPTIONS")
_LOGIN = "/login/oidc/callback"  # by which browsers come back from an identity provider
_ID = re.compile(r"(?<=/images/)[^/]+")
_REST = re.compile(r"(?<=/history/)[^/]+|(?<=/session/)[^/]+|(?<=/labels/)\d+")


class Audit:
    """A log that is only added to.

    Args:
        path: of the file; full ones are kept beside it as `NAME.1`, `NAME.2`, … The key by which image ids
            become pseudonyms lies in `NAME.key`. All are readable by their owner only.

    Raises:
        ValueError: the end of the log is damaged.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._key = _key(path.with_name(f"{path.name}.key"))
        self._count, self._last = _end(path)

    def pseudonym(self, image: str) -> str:
        """What stands for an image id: the same for the same id, and nothing to whoever lacks the key."""
        return hmac.new(self._key, image.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]

    def add(self, **facts: Any) -> None:
        """Write a line; it is on the disk when this returns. Raises OSError."""
        with self._guard:
            entry = {
                "n": self._count + 1,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                **facts,
            }
            entry["previous"] = self._last
            entry["hash"] = _hash(entry)
            line = json.dumps(entry).encode() + b"\n"
            if self.path.exists() and self.path.stat().st_size + len(line) > MOST_BYTES:
                number = 1 + sum(1 for _ in older(self.path))
                self.path.replace(self.path.with_name(f"{self.path.name}.{number}"))
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                _append(handle, line)
            finally:
                os.close(handle)
            self._count, self._last = entry["n"], entry["hash"]


class Audited:
    """ASGI middleware: notes each request that may change something, and each login.

    Args:
        app: what is behind it.
        audit: where it is noted.
    """

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self.app, self.audit = app, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"] in _SAFE and not scope["path"].endswith(_LOGIN)):
            await self.app(scope, receive, send)
            return
        status = 0
        guard = threading.Lock()

        def first(told: int) -> None:
            nonlocal status
            with guard:
                status = told
                self._note(scope, status)

        def end(outcome: str) -> None:
            with guard:
                scope["segmed.audit"]["outcome"] = outcome
                if status:
                    self._note(scope, status)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                # before the client learns that it was done, and on a thread, as the disk may take its time
                await run_in_threadpool(first, message["status"])
            await send(message)

        scope = {**scope, "segmed.audit": {}, "segmed.audit.end": end}
        try:
            await self.app(scope, receive, answer)
        finally:
            if not status:
                await run_in_threadpool(first, 0)

    def _note(self, scope: Scope, status: int) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        query = parse_qs(scope["query_string"].decode("latin-1"))
        found = _ID.search(path)
        image = (
            found[0] if found else next((query[k][0] for k in ("image", "label", "id") if query.get(k)), "")
        )
        user: User | None = scope.get("segmed.user")
        try:
            self.audit.add(
                user=user.name if user else "",
                role=user.role if user else "",
                action=f"{scope['method']} {_REST.sub('…', _ID.sub('…', path))[:100]}",
                image=self.audit.pseudonym(image) if image else "",
                status=status,
                **scope["segmed.audit"],
            )
        except OSError as error:  # it is done already
            logger.error("A request could not be noted in the audit log: %s", error)


def note(http: HTTPConnection, **facts: str) -> None:
    """Add to what is noted of a request, for instance `model`, `version`, and `prompt` and `result` as
    hashes."""
    if (known := http.scope.get("segmed.audit")) is not None:
        known.update(facts)


def note_outcome(http: HTTPConnection, outcome: str) -> None:
    """Note what came of a request: in its line or, if its status was sent before, in another line."""
    if end := http.scope.get("segmed.audit.end"):
        end(outcome)


def digest(content: bytes | Path) -> str:
    """SHA-256 of a text or file."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def older(path: Path) -> Iterator[Path]:
    """Full files of a log, the first one first."""
    number = 1
    while (one := path.with_name(f"{path.name}.{number}")).exists():
        yield one
        number += 1


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """All entries of a log.

    Raises:
        ValueError: an entry was changed, removed, added or moved afterwards, with its place.
        FileNotFoundError: there is no log.
    """
    count, last = 0, _FIRST
    for file in (*older(path), path):
        with file.open("rb") as lines:
            for place, line in enumerate(lines, start=1):
                where = f"line {place} of {file.name}"
                try:
                    entry = dict(json.loads(line))
                    given, previous, number = entry.pop("hash"), entry["previous"], entry["n"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"The audit log is damaged at {where}.") from error
                if (
                    number != count + 1
                    or previous != last
                    or not hmac.compare_digest(str(given), _hash(entry))
                ):
                    raise ValueError(
                        f"The audit log was changed at {where}: entry {number} does not follow {count}."
                    )
                count, last = number, given
                yield {**entry, "hash": given}


def _append(handle: int, line: bytes) -> None:
    """Write all of a line or, where the disk is full, nothing: half a line would end the log."""
    size = os.fstat(handle).st_size
    try:
        while line:
            line = line[os.write(handle, line) :]
        os.fdatasync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _end(path: Path) -> tuple[int, str]:
    """Number and hash of the last entry."""
    files = [*older(path), *([path] if path.exists() else [])]
    for file in reversed(files):
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 2**16))
            lines = opened.read().splitlines()
        if lines:
            try:
                last = json.loads(lines[-1])
                return int(last["n"]), str(last["hash"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"The end of the audit log {file} is damaged. Keep it, and name another file."
                ) from error
    return 0, _FIRST


def _key(path: Path) -> bytes:
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()
