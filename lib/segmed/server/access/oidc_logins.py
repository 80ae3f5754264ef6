"""Logins that somebody has begun at an identity provider, and what each has to come back with."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from segmed.server.http.errors import BadRequest

WITHIN = 600.0  # s that a login may take
_MOST = 10_000


@dataclass(frozen=True)
class Begun:
    """A login that the provider has not answered yet.

    Attributes:
        browser: digest of the secret that the browser keeps in a cookie.
        nonce: that the ID token has to hold.
        verifier: of PKCE.
        target: path to go on to.
        at: s, when it was begun.
    """

    browser: str
    nonce: str
    verifier: str
    target: str
    at: float


class Logins:
    """Logins that were begun, each of which ends once.

    Args:
        clock: s, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._begun: OrderedDict[str, Begun] = OrderedDict()  # by digest of the state

    def begin(self, target: str) -> tuple[str, str, Begun]:
        """A new login: its state, the secret of its browser, and the rest. `target` is the path to go on
        to."""
        state, browser, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        begun = Begun(_digest(browser), nonce, verifier, target, self._clock())
        with self._guard:
            self._begun[_digest(state)] = begun
            while len(self._begun) > _MOST:
                self._begun.popitem(last=False)
        return state, browser, begun

    def end(self, state: str, browser: str) -> Begun:
        """The login of a state, which cannot be used again.

        Raises:
            BadRequest: (401) it is not known, has been used, is too old, or another browser began it.
        """
        with self._guard:
            begun = self._begun.pop(_digest(state), None)
        if begun is None or self._clock() - begun.at > WITHIN:
            raise BadRequest(
                "This login was used already, or took longer than ten minutes. Begin again.", 401
            )
        if not hmac.compare_digest(begun.browser, _digest(browser)):
            raise BadRequest("This login was not begun in this browser. Begin again.", 401)
        return begun


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
