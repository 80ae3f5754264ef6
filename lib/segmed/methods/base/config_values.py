"""Builds the config of a method from values that users gave, and refuses those of a wrong type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

_KINDS = {bool: "true and false", int: "whole numbers", float: "numbers", str: "words"}


def build_config(kind: type, values: Mapping[str, Any]) -> Any:
    """Build a config; lists become tuples.

    Dataclasses accept any type, and a word such as "False" would count as true.

    Args:
        kind: The dataclass of the config.
        values: Values of some of its fields.

    Raises:
        ValueError: If a field is unknown, a value has the wrong type, or the config refuses it.
    """
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{kind.__name__} does not know the settings {', '.join(unknown)}; allowed are "
            f"{', '.join(sorted(known))}."
        )
    hints = get_type_hints(kind)
    for name, value in values.items():
        if allowed := _misfit(value, hints[name]):
            raise ValueError(f"{name} is {str(value)[:60]!r}; allowed are {allowed}.")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _misfit(value: Any, hint: Any) -> str:
    """The values that a field of this type allows if `value` is none of them, else ""."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        fits = any(type(value) is type(choice) and value == choice for choice in choices)
        return "" if fits else ", ".join(map(str, choices))
    if hint not in _KINDS:
        return ""
    accepted = (int, float) if hint is float else hint
    wrong = not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool)
    return _KINDS[hint] if wrong else ""
