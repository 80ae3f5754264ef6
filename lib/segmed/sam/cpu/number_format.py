"""Number formats of the image encoder by name, and whether the processor has them; without PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

PRECISIONS = ("auto", "bf16", "fp32")
_CPUINFO = Path("/proc/cpuinfo")


def check_precision(precision: str) -> None:
    """Raises ValueError if it is none of `PRECISIONS`."""
    if precision not in PRECISIONS:
        allowed = ", ".join(repr(name) for name in PRECISIONS)
        raise ValueError(
            f"unknown precision {precision!r}; allowed are {allowed}; use 'auto' to let the device decide."
        )


def cpuinfo_has_bf16() -> bool:
    """Whether Linux lists a bf16 matrix instruction set for this CPU."""
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16)\b", _CPUINFO.read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return False
