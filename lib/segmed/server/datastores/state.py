"""The state of the studies, as clients see it: whether they can be reached, and what is not offered."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from segmed.data.left_out import LeftOut, sentence

logger = logging.getLogger(__name__)

_LOGGED = 20
_TOLD = 200  # files and series that are named as left out


def state_json(kind: str, left: Sequence[LeftOut], trouble: str = "") -> dict[str, Any]:
    """The state of studies that can be reached.

    Args:
        kind: folder, dicom or pacs.
        left: what is not offered.
        trouble: a sentence that comes before what is said of it.
    """
    told: dict[str, Any] = {
        "kind": kind,
        "state": "ok",
        "message": " ".join(filter(None, (trouble, sentence(left)))),
    }
    return told | ({"left_out": [one.to_json() for one in left[:_TOLD]]} if left else {})


def log_left_out(state: Mapping[str, Any]) -> None:
    """Log the first files that are not offered, with the reasons, from what `state_json` gives."""
    left = state.get("left_out", [])
    for one in left[:_LOGGED]:
        logger.warning("left out of the studies: %s: %s", one["name"], one["reason"])
    if len(left) > _LOGGED:
        logger.warning("and %d more, see GET /info/ or `segmed info`", len(left) - _LOGGED)
