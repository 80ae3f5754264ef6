"""Next Sample: the strategies of `active` as MONAI Label's clients request them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy as MonaiStrategy

from segmed.active.scoring.strategies import STRATEGIES, Strategy
from segmed.server.access.gate import login_name
from segmed.server.http.errors import BadRequest

if TYPE_CHECKING:
    from segmed.server.learning.learning import ActiveLearning

_ANYBODY = ("", "user-xyz")  # what 3D Slicer sends until the user sets a name


def user_name(client_id: object, http: Request) -> str:
    """The user of a request: the login, or the name that a client gives, or else the machine."""
    if login := login_name(http):
        return login
    name = str(client_id or "").strip()[:100]
    return f"{name}@{http.client.host if http.client else ''}" if name in _ANYBODY else name


def strategies(learning: ActiveLearning) -> dict[str, MonaiStrategy]:
    """All strategies by name, that of the settings first, which viewers preselect."""
    first = learning.settings.strategy
    order = sorted(STRATEGIES.values(), key=lambda strategy: strategy.name != first)
    return {strategy.name: NextSample(strategy, learning) for strategy in order}


class NextSample(MonaiStrategy):
    """A strategy of Next Sample.

    Args:
        strategy: Strategy that chooses the images.
        learning: Active learning with the images and their users.
    """

    def __init__(self, strategy: Strategy, learning: ActiveLearning) -> None:
        super().__init__(strategy.title)
        self.strategy = strategy
        self.learning = learning

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Reserve images for a user.

        Args:
            request: `user`; `count`, default 1; `keep`, whether unlabelled images that the user holds come
                first instead of being released, default false for one image; `open`, an image that is not to
                be proposed, default none.
            datastore: Not used.

        Returns:
            `id` of the first image, `samples` with all, and `note` for the user; nothing if no image is left.

        Raises:
            BadRequest: The count is out of range.
        """
        count = request.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool):
            raise BadRequest(f"count {str(count)[:40]!r} must be a whole number such as 1.")
        keep = request.get("keep", count > 1)
        if not isinstance(keep, bool):
            raise BadRequest(f"keep {str(keep)[:40]!r} must be true or false.")
        proposals = self.learning.next(
            self.strategy.name, request["user"], count, keep, str(request.get("open") or "")
        )
        if not proposals:
            return {}
        samples = [{"id": p.image, "again": p.again, "note": p.note} for p in proposals]
        return {"id": proposals[0].image, "path": "", "note": proposals[0].note, "samples": samples}
