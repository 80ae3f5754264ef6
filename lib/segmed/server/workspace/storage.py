"""How a workspace is loaded from the final label of the studies, and what is stored with a label that it
saves.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments
from segmed.imaging.reading import fingerprint
from segmed.server.datastores.label_check import noted, open_label
from segmed.server.datastores.studies import FINAL, label_map
from segmed.server.http.errors import BadRequest
from segmed.server.workspace.workspace import Workspace

if TYPE_CHECKING:
    from segmed.server.app import SegMedApp

logger = logging.getLogger(__name__)


def load_final_label(app: SegMedApp, image: str, grid: Grid, work: Workspace) -> list[str]:
    """Begin a workspace with the final label of an image, if there is one.

    Args:
        app: App with the datastore.
        image: Identifier of the image.
        grid: Grid of the image.
        work: Workspace to load the label into.

    Returns:
        Messages for the user, such as that the label cannot be read.

    Raises:
        BadRequest: A PACS does not answer.
    """
    work.base = stored_label_id(app, image)
    try:
        final = label_map(app.datastore(), image, FINAL, app.engine.settings.structures)
        if final is None:
            return []
        segments = open_label(final.file, grid, final.names)
        work.open(segments, final.file.name.lower().endswith(SEGMENTATION))
    except BadRequest:  # such as of a PACS that does not answer
        raise
    except OSError as error:  # its text would tell folders of the server
        logger.warning("the final label of %s cannot be opened: %s", image, error)
        return ["The finished label of this image cannot be opened: its file is missing or cannot be read."]
    except ValueError as error:
        return [f"The finished label of this image cannot be opened: {error}"]
    info = app.datastore().get_label_info(image, FINAL)
    note, records = info.get("note"), info.get("provenance")
    work.records = dict(records) if isinstance(records, dict) else {}
    return [message for message in (str(note or ""), work.stored.sentence()) if message]


def stored_label_id(app: SegMedApp, image: str) -> str:
    """Identifier of the final label in the studies; "" if there is none or it cannot be read."""
    try:
        final = label_map(app.datastore(), image, FINAL, {})
    except BadRequest:
        raise
    except ValueError:
        return ""
    return fingerprint(final.file) if final and final.file.exists() else ""


def label_info(work: Workspace, segments: Segments, names: Collection[str]) -> dict[str, Any]:
    """The info that the datastore keeps with a saved label.

    Args:
        work: Workspace that is saved.
        segments: Segments that are written.
        names: Names of the segments that have voxels.
    """
    return {
        "label_info": [{"name": s.name, "idx": s.value} for s in segments.segments if s.name in names],
        "segments": noted(segments),
        "model": work.model,
        "model_version": work.version,
        "automatic": bool(work.model) and not work.prompts and not work.by_hand,
        "prompts": work.prompts,
        "seconds": round(work.seconds, 3),
        "provenance": {name: record for name, record in work.records.items() if name in names},
    }
