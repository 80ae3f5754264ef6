"""What commands import: whoever asks for help, a list or a wrong option does not wait for PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import segmed
from segmed.inference.refinement.refinement import REFINEMENTS
from segmed.methods import METHODS
from segmed.methods.base.method import REFINEMENT_NAMES

_HEAVY = ("torch", "monai", "monailabel", "torchvision", "transformers", "peft", "skimage", "matplotlib")
_RUN = f"""
import atexit, sys
atexit.register(lambda: print("HEAVY", *[name for name in {_HEAVY!r} if name in sys.modules]))
sys.argv = ["segmed", *sys.argv[1:]]
from segmed.cli import main
main()
"""


def _imported(*words: str) -> tuple[list[str], int, str]:
    """The heavy packages that a command has imported, its exit code, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words],
        capture_output=True,
        encoding="utf-8",
        env={
            "PYTHONPATH": str(Path(segmed.__file__).parents[1]),
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
        },
    )
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("HEAVY"), done.stdout + done.stderr
    return last.split()[1:], done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--help",), 0, "segmed serve"),
        (("--version",), 0, f"segmed {segmed.__version__}"),
        (("info",), 0, "classical"),
        (("models", "list", "--registry", "."), 2, "no trained version"),
        (("serve", "--conf", "models", "vnet"), 2, "no method 'vnet'"),
        (("predict", "a.nii.gz", "--box", "1,2", "-o", "b.nii.gz"), 2, "must be 4 or 6 numbers"),
        (("predict", "a.nii.gz", "--refinement", "shiny", "-o", "b.nii.gz"), 2, "must be one of outline"),
        (("predict", "a.nii.gz", "--model", "vnet", "-o", "b.nii.gz"), 2, "no method 'vnet'"),
        (("train", "--method", "vnet", "--studies", "."), 2, "no method 'vnet'"),
        (("train", "--method", "lora"), 2, "Give either --studies"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_it_answers_without_heavy_imports(words: tuple[str, ...], code: int, said: str) -> None:
    heavy, returned, text = _imported(*words)
    assert (heavy, returned) == ([], code), text
    assert said in " ".join(text.split())


def test_heavy_imports_are_seen() -> None:
    heavy, _, _ = _imported(
        "info", "--conf", "models=classical"
    )  # asks the server's engine what it would offer
    assert {"torch", "monailabel"} <= set(heavy)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_what_the_list_says(name: str) -> None:
    method = METHODS[name]
    assert method.ready == (method.build is not None)
    assert method.learns == (method.training is not None)
    assert method.own_format == (method.read is not None)


def test_finishes_are_those_that_there_are() -> None:
    assert tuple(REFINEMENTS) == REFINEMENT_NAMES
