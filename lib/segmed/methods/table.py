"""The table of methods as Markdown, which README.md and docs/methods.md repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # methods import torch, and --help has to answer at once
    from segmed.methods.base.method import Method

HEAD = ("method", "what it does", "mode", "base weights", "training on your labels", "models in the viewers")


def method_table() -> str:
    """All methods as a Markdown table, one row each, in the order in which they are listed."""
    from segmed.methods import METHODS

    rows = [HEAD, ("---",) * len(HEAD), *(_row(method) for method in METHODS.values())]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _row(method: Method) -> tuple[str, ...]:
    models = ", ".join(f"`{name}`" for name in method.offered_as())
    return f"`{method.name}`", method.title, _mode(method), _weights(method), _training(method), models


def _mode(method: Method) -> str:
    if method.detects:
        return "automatic"
    return "automatic, or prompts" if method.automatic else "prompts"


def _weights(method: Method) -> str:
    if method.weights:
        return f"included (`{method.weights}`)"
    if not method.needs_backbone:
        return "none"
    if method.own_format:
        return f"`--conf backbone_{method.name}`"
    return "`--conf backbone`, else `segmed-tiny` (included)" if not method.ready else "`--conf backbone`"


def _training(method: Method) -> str:
    if not method.learns:
        return "no"
    return "required" if not method.ready else "optional"
