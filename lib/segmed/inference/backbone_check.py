"""The base weights that a server names, checked before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig
from segmed.sam.sources import EMBEDDED_FOLDERS, local_source


def check_backbones(methods: Iterable[str], backbones: Mapping[str, BackboneConfig]) -> None:
    """Fetch base weights that are Hugging Face ids, and refuse those that their method cannot use.

    Args:
        methods: Names of the methods that are offered.
        backbones: Base weights by method.

    Raises:
        ValueError: Weights are damaged, or belong to another model.
        FileNotFoundError: Weights do not exist and cannot be fetched.
    """
    seen: set[tuple[str, str]] = set()
    for name in methods:
        method, source = find_method(name), backbones[name].source
        kind = "sam" if not method.own_format else "" if method.weights else "sam2"
        if not method.needs_backbone or not source or (kind, source) in seen:
            continue
        seen.add((kind, source))
        path = Path(local_source(source))
        if kind and source not in EMBEDDED_FOLDERS:
            from segmed.sam.checkpoints.inspection import inspect  # PyTorch comes with it

            try:
                inspect(path, kind)
            except ValueError as error:
                raise ValueError(f"The model {name!r} cannot use {source}: {error}") from error
