"""Phantoms with known truth: volumes to try and to test with, and synthetic images to train on. No patient
data.

Parts are imported when they are used, because training in a process without nibabel needs synthetic images
only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmed.data.phantom.volume import Phantom, make_phantom, write_demo_study
    from segmed.data.synthetic.sample import PhantomBatch, PhantomConfig, generate
    from segmed.data.synthetic.sheet import contact_sheet

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
    "Phantom": "phantom.volume",
    "make_phantom": "phantom.volume",
    "write_demo_study": "phantom.volume",
    "PhantomBatch": "synthetic.sample",
    "PhantomConfig": "synthetic.sample",
    "generate": "synthetic.sample",
    "contact_sheet": "synthetic.sheet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"segmed.data.{_HOME[name]}"), name)
