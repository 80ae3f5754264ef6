"""Next Sample: the strategies of `active`, as MONAI Label's clients ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy as MonaiStrategy

from segmed.active.strategies import STRATEGIES, Strategy
from segmed.server.access.gate import login_name
from segmed.server.errors import BadRequest

if TYPE_CHECKING:
    from segmed.server.learning import ActiveLearning

_ANYBODY = ("", "user-xyz")  # what 3D Slicer says until it is told a name


def user_name(client_id: object, http: Request) -> str:
    """Whom a request comes from: who has logged in, or the name that a client gives; else machines are told apart."""
    if login := login_name(http):
        return login
    name = str(client_id or "").strip()[:100]
    return f"{name}@{http.client.host if http.client else ''}" if name in _ANYBODY else name


def strategies(learning: ActiveLearning) -> dict[str, MonaiStrategy]:
    """All of them by name, that of the settings first, which viewers choose."""
    first = learning.settings.strategy
    order = sorted(STRATEGIES.values(), key=lambda strategy: strategy.name != first)
    return {strategy.name: NextSample(strategy, learning) for strategy in order}


class NextSample(MonaiStrategy):
    """One strategy.

    Args:
        strategy: that chooses.
        learning: knows the images and their users.
    """

    def __init__(self, strategy: Strategy, learning: ActiveLearning) -> None:
        super().__init__(strategy.title)
        self.strategy = strategy
        self.learning = learning

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Reserve images for a user.

        Args:
            request: `user`; `count`, 1 if not given; `keep`, whether images that the user has already and has not
                labelled come first, else they are given back, which is so for one image if not given.
            datastore: not asked.

        Returns:
            `id` of the first image, `samples` with all, and `note` for the user; nothing if no image is left.

        Raises:
            BadRequest: an impossible count.
        """
        count = request.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool):
            raise BadRequest(f"count {str(count)[:40]!r} must be a whole number such as 1.")
        keep = request.get("keep", count > 1)
        if not isinstance(keep, bool):
            raise BadRequest(f"keep {str(keep)[:40]!r} must be true or false.")
        found = self.learning.next(self.strategy.name, request["user"], count, keep)
        if not found:
            return {}
        samples = [{"id": p.image, "again": p.again, "note": p.note} for p in found]
        return {"id": found[0].image, "path": "", "note": found[0].note, "samples": samples}
