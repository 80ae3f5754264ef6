"""Procedural phantoms with known truth: pictures to train on, volumes to try and to test with. No patient data.

`sample` and everything it imports need torch alone; what draws volumes and figures is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmed.data.phantom.sample import PhantomBatch, PhantomConfig, generate
    from segmed.data.phantom.sheet import contact_sheet
    from segmed.data.phantom.volume import Phantom, make_phantom, write_demo_study

__all__ = [
    "Phantom",
    "PhantomBatch",
    "PhantomConfig",
    "contact_sheet",
    "generate",
    "make_phantom",
    "write_demo_study",
]

_HOME = {
    "Phantom": "volume",
    "make_phantom": "volume",
    "write_demo_study": "volume",
    "PhantomBatch": "sample",
    "PhantomConfig": "sample",
    "generate": "sample",
    "contact_sheet": "sheet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
