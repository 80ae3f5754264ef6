"""Sessions of users who have logged in, and how often somebody may try to."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from segmed.server.http.errors import BadRequest

IDLE = 12 * 3600.0  # s until a session that is not used ends
_LONGEST = 7 * 86400.0  # s until any session ends
PROVIDED_LONGEST = 12 * 3600.0  # s, where only a new login shows that the provider still knows somebody
_MOST = 10_000
_FREE, _WAIT, _WAIT_MOST = 5, 1.0, 300.0  # failures without a wait; s after the next, doubled up to the most
_FORGET = 900.0  # s without a failure


@dataclass(frozen=True)
class Owner:
    """Whose session it is.

    Attributes:
        name: of the user.
        provided: whether an identity provider has vouched for the user, who then is not in the file of users.
    """

    name: str
    provided: bool = False


class Sessions:
    """Who has logged in, by secrets of which only digests are kept; all end with the server.

    Args:
        clock: s, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._open: OrderedDict[str, tuple[Owner, float, float]] = OrderedDict()  # digest: whose, begun, used

    def begin(self, name: str, provided: bool = False) -> str:
        """A new session; its secret."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._guard:
            self._open[_digest(secret)] = Owner(name, provided), now, now
            while len(self._open) > _MOST:
                self._open.popitem(last=False)
        return secret

    def owner(self, secret: str) -> Owner | None:
        """Whose session it is; None if it is not known or has ended."""
        key, now = _digest(secret), self._clock()
        with self._guard:
            found = self._open.get(key)
            if found is None:
                return None
            owner, begun, used = found
            if now - used > IDLE or now - begun > (PROVIDED_LONGEST if owner.provided else _LONGEST):
                del self._open[key]
                return None
            self._open[key] = owner, begun, now
            return owner

    def end(self, secret: str) -> None:
        """Log out."""
        with self._guard:
            self._open.pop(_digest(secret), None)


class Attempts:
    """Makes guessing passwords slow: after five failures of a name or address, each costs twice the wait
    before.

    Args:
        clock: s, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count, last

    def begin(self, *keys: str) -> None:
        """Note an attempt, as a failure until it has succeeded: attempts side by side wait for each other,
        too.

        Raises:
            BadRequest: (429) it is too early to try again.
        """
        with self._guard:
            wait = max(self._wait(key) for key in keys)
            if wait > 0:
                raise BadRequest(f"Too many wrong passwords. Try again in {int(wait) + 1} s.", 429)
            now = self._clock()
            for key in keys:
                count, last = self._failures.get(key, (0, now))
                self._failures[key] = (1 if now - last > _FORGET else count + 1), now
                self._failures.move_to_end(key)
            while len(self._failures) > _MOST:
                self._failures.popitem(last=False)

    def succeeded(self, name: str, *others: str) -> None:
        """Forget the failures of a name; of other keys only that one attempt, as others may have failed
        there."""
        with self._guard:
            self._failures.pop(name, None)
            for key in others:
                count, last = self._failures.get(key, (0, 0.0))
                if count > 1:
                    self._failures[key] = count - 1, last
                else:
                    self._failures.pop(key, None)

    def _wait(self, key: str) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        if count < _FREE:
            return 0.0
        return last + min(_WAIT * 2 ** (count - _FREE), _WAIT_MOST) - self._clock()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
