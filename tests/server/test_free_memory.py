"""Memory between pieces that are in use goes back to the operating system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import numpy as np, psutil
from segmed.server.free_memory import return_free_memory
pieces = [np.ones(50_000, np.uint8) for _ in range(4000)]  # 200 MB, too small for mappings of their own
kept = pieces[::40]
del pieces
before = psutil.Process().memory_info().rss
return_free_memory()
print((before - psutil.Process().memory_info().rss) // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps such memory")
def test_what_lies_between_used_pieces_is_returned() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    from segmed.server import free_memory

    def refuse(name: None) -> None:
        raise TypeError(name)

    free_memory._trim.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    free_memory.return_free_memory()
    free_memory._trim.cache_clear()
