"""The packages of `clients/` can be built, and the client works without the rest of SegMed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from running import ROOT

_ALONE = """
import sys
sys.modules["segmed"] = None
sys.path.insert(0, sys.argv[1])
import segmed_client
try:
    segmed_client.SegMedClient("http://127.0.0.1:1").state()
except segmed_client.NoServerError as error:
    print(error, segmed_client.__file__)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Built from a copy, so that nothing is left in the checkout."""
    work = tmp_path_factory.mktemp("packages")
    for part in ("clients", "lib/segmed/client"):
        shutil.copytree(ROOT / part, work / part, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["-w", str(work / "dist"), str(work / "clients/python"), str(work / "clients/napari")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return sorted((work / "dist").glob("*.whl"))


def test_the_wheels_hold_what_belongs_to_them(wheels: list[Path]) -> None:
    found = [
        sorted(name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name)
        for wheel in wheels
    ]
    plugin = ROOT / "clients" / "napari" / "src"
    assert found[0] == sorted(
        p.relative_to(plugin).as_posix() for p in plugin.rglob("*") if p.suffix in (".py", ".yaml")
    )
    assert found[1] == sorted(f"segmed_client/{p.name}" for p in (ROOT / "lib/segmed/client").glob("*.py"))


def test_the_client_works_alone(wheels: list[Path]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _ALONE, str(wheels[1])], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "No server answers" in ran.stdout and str(wheels[1]) in ran.stdout
