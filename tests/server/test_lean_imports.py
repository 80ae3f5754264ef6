"""What the server's process does not import."""

from __future__ import annotations

import subprocess
import sys

from segmed.server.lean_imports import SPARED

_SCRIPT = """
import sys
import segmed.server.serve  # must not have brought MONAI along, or sparing comes too late
from segmed.server.lean_imports import spare_imports
print(spare_imports())
import segmed.server.asgi
import segmed.methods.lora, segmed.methods.imedsam.imedsam
from monai.losses import DiceCELoss
print([name for name in {spared} if sys.modules.get(name) is not None])
"""


def test_the_server_does_without_experiment_tracking() -> None:
    script = _SCRIPT.replace("{spared}", repr(SPARED))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    lines = done.stdout.strip().splitlines()
    assert lines[0] == str(list(SPARED))
    assert lines[-1] == "[]"
