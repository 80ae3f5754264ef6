"""Sessions of users who have logged in, and how often somebody may try to."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from segmed.server.errors import BadRequest

IDLE = 12 * 3600.0  # s until a session that is not used ends
_LONGEST = 7 * 86400.0  # s until any session ends
_MOST = 10_000
_FREE, _WAIT, _WAIT_MOST = 5, 1.0, 300.0  # failures without a wait; s after the next, doubled up to the most
_FORGET = 900.0  # s without a failure


class Sessions:
    """Who has logged in, by secrets of which only digests are kept; all end with the server.

    Args:
        clock: s, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._open: OrderedDict[str, tuple[str, float, float]] = OrderedDict()  # digest: name, begun, used

    def begin(self, name: str) -> str:
        """A new session; its secret."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._guard:
            self._open[_digest(secret)] = name, now, now
            while len(self._open) > _MOST:
                self._open.popitem(last=False)
        return secret

    def name(self, secret: str) -> str | None:
        """Whose session it is; None if it is not known or has ended."""
        key, now = _digest(secret), self._clock()
        with self._guard:
            found = self._open.get(key)
            if found is None:
                return None
            name, begun, used = found
            if now - used > IDLE or now - begun > _LONGEST:
                del self._open[key]
                return None
            self._open[key] = name, begun, now
            return name

    def end(self, secret: str) -> None:
        """Log out."""
        with self._guard:
            self._open.pop(_digest(secret), None)


class Attempts:
    """Makes guessing passwords slow: after five failures of a name or address, each costs twice the wait before.

    Args:
        clock: s, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count, last

    def check(self, *keys: str) -> None:
        """Raises BadRequest (429) where it is too early to try again."""
        with self._guard:
            wait = max(self._wait(key) for key in keys)
        if wait > 0:
            raise BadRequest(f"Too many wrong passwords. Try again in {int(wait) + 1} s.", 429)

    def failed(self, *keys: str) -> None:
        """Note a wrong password."""
        now = self._clock()
        with self._guard:
            for key in keys:
                count, last = self._failures.get(key, (0, now))
                self._failures[key] = (1 if now - last > _FORGET else count + 1), now
                self._failures.move_to_end(key)
            while len(self._failures) > _MOST:
                self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures."""
        with self._guard:
            for key in keys:
                self._failures.pop(key, None)

    def _wait(self, key: str) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        if count < _FREE:
            return 0.0
        return last + min(_WAIT * 2 ** (count - _FREE), _WAIT_MOST) - self._clock()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
