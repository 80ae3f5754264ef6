"""Examples and types of the workspace API in its description: the types are those of `segmed.client`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from segmed.client.answers import ImageEntry, ImageInfo, LabelChange, SavedLabel, ServerState, WorkAnswer

_IMAGE = "/api/images/{image}"
_WHO: dict[str, Any] = {"client": "Dr Lee", "revision": 3, "boot": "0c7d2a6f9b7f4f0e8a4a7c1d2e3f4a5b"}
_CHANGE = asdict(LabelChange(14, [40, 42], [30, 32], "eAFjZGJiBAAAEwAH"))  # values 1, 2, 2, 1
_ANSWER: dict[str, Any] = {
    "changes": [_CHANGE],
    "labels": {"liver": 1, "spleen": 2},
    "can_undo": True,
    "can_redo": False,
    "prompt": {"box": [40, 90, 30, 80, 14, 14], "foreground": [[60, 50, 14]], "background": []},
    "slices": [14],
    "replaced": {},
    "unsaved": True,
    "revision": 4,
    "boot": _WHO["boot"],
    "warnings": [],
    "seconds": {"open": 0.0, "segment": 0.12},
}
_SAVED: dict[str, Any] = {
    "label": "ct",
    "seg": None,
    "edition": 0,
    "note": "",
    "voxels": {"liver": 1204},
    "revision": 5,
    "boot": _WHO["boot"],
}
# path: the example of its body, and the type of its answer with an example
EXAMPLES: dict[str, tuple[dict[str, Any] | None, Any, Any]] = {
    "/api/state": (None, ServerState, None),
    "/api/images": (
        None,
        list[ImageEntry],
        [{"id": "ct", "name": "ct", "modality": "CT", "date": "", "labelled": False, "unsaved": True}],
    ),
    _IMAGE: (None, ImageInfo, None),
    f"{_IMAGE}/work": (None, WorkAnswer, _ANSWER),
    f"{_IMAGE}/prompt": (
        {
            **_WHO,
            "model": "segmed",
            "label": "liver",
            "box": [40, 90, 30, 80, 14, 14],
            "foreground": [[60, 50, 14]],
        },
        WorkAnswer,
        _ANSWER,
    ),
    f"{_IMAGE}/segment": ({**_WHO, "model": "lora"}, WorkAnswer, _ANSWER),
    f"{_IMAGE}/paint": ({**_WHO, "label": "spleen", "changes": [_CHANGE]}, WorkAnswer, _ANSWER),
    **{f"{_IMAGE}/{step}": (_WHO, WorkAnswer, _ANSWER) for step in ("accept", "undo", "redo", "clear")},
    f"{_IMAGE}/labelmap": (None, WorkAnswer, _ANSWER),
    f"{_IMAGE}/save": ({**_WHO, "tag": "final"}, SavedLabel, _SAVED),
}


def with_examples(told: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI description with the types of the answers of the workspace API, and examples."""
    schemas = told.setdefault("components", {}).setdefault("schemas", {})
    for path, (body, kind, example) in EXAMPLES.items():
        operation = next(iter(told["paths"][path].values()))
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        answer: dict[str, Any] = {"schema": schema}
        if example is not None:
            answer["example"] = example
        operation["responses"]["200"]["content"] = {"application/json": answer}
        if body is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = body
    return told
