"""How many requests of one client may wait, so that one that asks too often keeps nobody else from an
answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from segmed.server.http.errors import BadRequest

TOO_MANY = 429


class Turns:
    """Counts requests that are under way.

    Each takes a thread while it waits for the device, and there are 40 of these.

    Args:
        per_image: of a client on one image.
        per_client: of a client on all images.
    """

    def __init__(self, per_image: int = 6, per_client: int = 12) -> None:
        self.per_image, self.per_client = per_image, per_client
        self._guard = threading.Lock()
        self._count: Counter[tuple[str, ...]] = Counter()

    @contextmanager
    def take(self, client: str, image: str) -> Iterator[None]:
        """One request, from when it came to its answer.

        Args:
            client: whose it is.
            image: that it is about; "" for none.

        Raises:
            BadRequest: (429) too many of this client are under way.
        """
        keys = (client,), (client, image)
        with self._guard:
            if self._count[keys[0]] >= self.per_client or self._count[keys[1]] >= self.per_image:
                raise BadRequest(
                    "Too many of your requests wait for their answers already. Wait for one, then ask again.",
                    TOO_MANY,
                )
            self._count.update(keys)
        try:
            yield
        finally:
            with self._guard:
                self._count.subtract(keys)
                for key in keys:
                    if self._count[key] <= 0:
                        del self._count[key]
