"""The options of a training under the names of MONAI Label, whose viewers and scripts send them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_SAME = {"max_epochs": "epochs", "train_batch_size": "batch", "val_split": "validation"}
_WITHOUT_EFFECT = {
    "dataset": "SegMed reads the labels by itself, encodes each slice once, and keeps little in memory",
    "val_batch_size": "held-out cases are measured one after the other",
}
_QUIET = {"client_id", "model"}  # who asks, and for what, which the address says too


def own_names(request: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The options of a request under SegMed's names.

    Args:
        request: Options as they were sent.
        known: Names of the options of the trainer.

    Returns:
        The known options, and one sentence for each that has no effect.
    """
    options = {key: value for key, value in request.items() if key in known}
    warnings = []
    for key, value in request.items():
        if key in known or key in _QUIET:
            continue
        if key in _WITHOUT_EFFECT:
            warnings.append(f"{key} has no effect: {_WITHOUT_EFFECT[key]}.")
            continue
        name = "fresh" if key == "pretrained" else _SAME.get(key, "")
        if name not in known:
            allowed = ", ".join(sorted(known))
            warnings.append(f"{key[:60]!r} is not known and was ignored. This trainer takes {allowed}.")
        elif name in request:
            warnings.append(f"{key} was ignored, because {name} was sent too.")
        else:
            options[name] = _opposite(value) if key == "pretrained" else value
    return options, warnings


def _opposite(value: Any) -> Any:
    """The opposite of a switch, which may come as a word; anything else stays, to be refused by its name."""
    words = {"true": False, "false": True}
    return words.get(str(value).lower(), value)
