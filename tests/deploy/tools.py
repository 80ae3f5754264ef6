"""Programs that check files of the repository; scripts/build_docs.sh installs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from running import ROOT

DEPLOY = ROOT / "deploy"


def tool(name: str) -> str:
    """The path of a program in .venv-docs, or of the system; skips the test where there is none."""
    own = ROOT / ".venv-docs" / "bin" / name
    found = str(own) if own.is_file() else shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(
            f"{name} is not installed: ./scripts/build_docs.sh installs the tools of the documentation"
        )
    return found


def check(*command: str | Path) -> None:
    """Runs a program, which has to find nothing."""
    done = subprocess.run([str(word) for word in command], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def check_schema(schema: str, *files: Path) -> None:
    """Compares files with a schema that check-jsonschema includes."""
    assert files
    check(tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *files)
