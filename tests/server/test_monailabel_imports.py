"""MONAI Label without what it only imports: which packages, for how long, and what users are told."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import ROOT
from segmed.server.monailabel_imports import NOT_INSTALLED, PINNED, STAND_INS, StandIn

_HIDDEN = sorted({spared.package for spared in STAND_INS.values()})
# as if they were not installed, which they may be here
_HIDE = f"""
import sys
from importlib.machinery import PathFinder
real = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name in {_HIDDEN!r} + HIDDEN_TOO else real(name, path, target)
PathFinder.find_spec = find_spec
"""


def _run(script: str, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    text = _HIDE.replace("HIDDEN_TOO", repr(list(hidden))) + script
    return subprocess.run([sys.executable, "-c", text], capture_output=True, encoding="utf-8")


@pytest.mark.parametrize("module", STAND_INS)
def test_monai_label_still_imports_what_is_stood_in_for(module: str) -> None:
    package = find_spec("monailabel")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], *module.split(".")[1:]).with_suffix(".py")
    imported = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert STAND_INS[module].package in imported, f"{module} no longer needs it: remove it from STAND_INS."


def test_nothing_that_segmed_pins_is_stood_in_for() -> None:
    lists = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("requirements*.txt"))
    assert not [s for s in STAND_INS.values() if f"\n{s.distribution}==" in lists]
    assert f"\n{PINNED}\n" in lists


def test_the_server_starts_without_them_and_monai_does_not_see_the_stand_ins() -> None:
    done = _run(
        "import segmed.server.asgi, segmed.server.app\n"
        "from monai.data.image_reader import has_itk\n"
        f"print(has_itk, [name for name in {_HIDDEN!r} if name in sys.modules])\n"
        "import monailabel.transform.writer as writer, numpy as np\n"
        "writer.write_itk(np.zeros((2, 2, 2)), 'x.nrrd', None, None, False)\n"
    )
    assert done.stdout.splitlines()[-1:] == ["False []"], done.stderr
    assert "itk.image_from_array was called, but SegMed is installed without that package" in done.stderr
    assert "pip install itk" in done.stderr


def test_what_a_stand_in_is_not_asked_for_is_missing() -> None:
    stand_in = StandIn(STAND_INS["monailabel.transform.writer"])
    with pytest.raises(AttributeError):
        stand_in.__path__  # noqa: B018
    with pytest.raises(ImportError, match="pip install itk"):
        stand_in.image_from_array()


def test_without_monai_label_the_command_says_how_to_install_it() -> None:
    script = "import sys; sys.argv = ['segmed', 'serve', '--port', '0']\nfrom segmed.cli import main\nmain()"
    done = _run(script, ("monailabel",))
    assert done.returncode == 2
    assert " ".join(done.stderr.split()) == " ".join(NOT_INSTALLED.split())
