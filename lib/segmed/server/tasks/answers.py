"""How the answers of models came about, for the viewer that asked and for the labels that it submits."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.imaging.labels.provenance import Provenance, array_checksum, known_checksum_of
from segmed.imaging.picture import Picture
from segmed.inference.predictor import Predictor
from segmed.server.http.requests import InferParams

HEADER = "X-SegMed-Provenance"
_LONGEST_HEADER = 2000  # letters; proxies such as nginx allow 4 KiB for all headers of an answer
_REMEMBERED = 2000  # pairs of user and image
_LABELS = 64  # of each pair
_UNUSED = ("", "nothing", "mask", None)


def provenance_of(
    model: str,
    predictor: Predictor,
    image: str | Path,
    picture: Picture,
    prompt: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Provenance:
    """How a mask was made.

    Args:
        model: Model as the viewers name it.
        predictor: Predictor that made the mask.
        image: Path of the image.
        picture: The image in its window.
        prompt: Parts of the prompt as JSON values; empty ones are left out.
        options: Options of the request; those that change nothing are left out.
    """
    version, weights = predictor.origin
    device = next((str(p.device) for p in predictor.segmenter.parameters()), "cpu")
    told = {name: value for name, value in options.items() if value not in _UNUSED}
    told |= {"device": device, "batch": predictor.batch}
    if predictor.loose_parts:
        told["loose_parts"] = True
    given = {name: value for name, value in prompt.items() if value}
    return Provenance(
        model,
        version,
        weights or predictor.segmenter.version,
        known_checksum_of(image),
        picture.window,
        given,
        told,
    )


def prompt_of(params: InferParams, mask: Any = None) -> dict[str, Any]:
    """The prompt of a request as it is recorded; a mask is named by its checksum."""
    return {
        "roi": params.roi or [],
        "foreground": params.foreground,
        "background": params.background,
        "mask": {"SHA256": array_checksum(mask)} if mask is not None and mask.any() else {},
    }


def header_value(record: Mapping[str, Any]) -> str:
    """A record as the value of an HTTP header: ASCII on one line, without a prompt that is too long."""
    text = json.dumps(record, separators=(",", ":"))
    if len(text) > _LONGEST_HEADER:
        text = json.dumps({**record, "Prompt": "too long for a header"}, separators=(",", ":"))
    return text[:_LONGEST_HEADER]


class AnswerLog:
    """The last answer of a model by user, image and label, until the label is submitted.

    3D Slicer and OHIF send a label back without saying where it comes from. The log is in memory: after a
    restart of the server, labels that were segmented before it have no record.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], dict[str, dict[str, Any]]] = OrderedDict()

    def note(self, user: str, image: str, labels: Mapping[str, int], record: Mapping[str, Any]) -> None:
        """Note an answer.

        Args:
            user: Who asked.
            image: Id of the image.
            labels: Labels of the answer.
            record: Record as `Provenance.to_json` makes it.
        """
        with self._lock:
            mine = self._known.setdefault((user, image), {})
            self._known.move_to_end((user, image))
            for name in labels:
                mine.pop(name, None)
                mine[name] = dict(record)
            while len(mine) > _LABELS:
                del mine[next(iter(mine))]
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def of(self, user: str, image: str) -> dict[str, dict[str, Any]]:
        """The records of a user's labels on an image by the names of the labels."""
        with self._lock:
            return dict(self._known.get((user, image), {}))
