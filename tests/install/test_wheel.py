"""The wheel is the product: built, installed beside nothing of the checkout, and asked for a mask over
HTTP."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from running import ROOT, free_port, stop, wait_for
from segmed.data.phantom import Phantom

_PAGE = ROOT / "apps" / "segmed" / "web" / "dist" / "index.html"


def _outside() -> dict[str, str]:
    """The environment without what leads to the checkout."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XDG_DATA_HOME", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because a build leaves files behind that the next one would take along."""
    work = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(
        "node_modules", "trained", "logs", "*.egg-info", "__pycache__", ".build-*"
    )
    for folder in ("lib", "apps"):
        shutil.copytree(ROOT / folder, work / "source" / folder, ignore=unwanted)
    (work / "source/apps/segmed/model/trained/unet").mkdir(parents=True)
    (work / "source/apps/segmed/model/trained/unet/current").write_text("somebody's model")
    names = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
    for path in [*(ROOT / name for name in names), *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, work / "source" / path.name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "-w", str(work), str(work / "source")], check=True)
    return next(work.glob("segmed-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel, and with the other packages of this one by way of a path file."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(home / "bin" / "python"),
        "install",
        "--quiet",
        "--no-deps",
    ]
    subprocess.run([*install, "--no-index", str(wheel)], check=True, env=_outside())
    packages = next((home / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin" / "python"


@dataclass
class Running:
    url: str
    home: Path


@pytest.fixture(scope="module")
def served(python: Path, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    work = tmp_path_factory.mktemp("served")
    for folder in ("studies", "home", "tmp"):
        (work / folder).mkdir()
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), work / "studies" / "ct.nii.gz")
    port, log = free_port(), work / "log.txt"
    environment = _outside() | {
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        str(python.parent / "segmed"),
        "serve",
        "--studies",
        str(work / "studies"),
        "--port",
        str(port),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=work)
    try:
        wait_for("SegMed is ready", log, process)
        yield Running(f"http://127.0.0.1:{port}", work / "home")
    finally:
        stop(process)


def test_the_wheel_has_what_comes_along_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {
            name.removeprefix("segmed/app/") for name in file.namelist() if name.startswith("segmed/app/")
        }
    assert {
        "main.py",
        "ohif/ohif.js",
        "model/segmed-default/model.safetensors",
        "model/segmed-tiny/config.json",
    } <= names
    assert not {
        name for name in names if "trained" in name or "node_modules" in name or name.startswith("web/src")
    }
    assert ("web/dist/index.html" in names) == _PAGE.is_file()


def test_the_wheel_asks_for_what_is_pinned(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        told = file.read(next(name for name in file.namelist() if name.endswith("/METADATA"))).decode()
    assert "Requires-Dist: numpy==2." in told
    assert "Requires-Dist: monailabel" not in told  # pip could not resolve it
    assert {"baselines", "cluster", "dev", "onnx", "openvino", "yolo"} == set(
        re.findall(r"^Provides-Extra: (\w+)$", told, re.MULTILINE)
    )
    assert "Requires-Python: <3.14,>=3.11" in told


def test_an_installed_server_gives_a_mask(served: Running) -> None:
    box = {"roi": [28, 70, 30, 60, 8, 8], "result_extension": ".nii.gz"}
    answer = requests.post(
        f"{served.url}/infer/segmed?image=ct&output=image",
        data={"params": str(box).replace("'", '"')},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text
    path = served.home / "mask.nii.gz"
    path.write_bytes(answer.content)
    assert np.asarray(nib.load(path).dataobj).any()


def test_an_installed_server_has_the_page_and_the_tool_bar(served: Running) -> None:
    assert requests.get(f"{served.url}/", timeout=20).status_code == (200 if _PAGE.is_file() else 503)
    assert requests.get(f"{served.url}/segmed/ohif.js", timeout=20).status_code == 200


def test_what_it_keeps_lies_with_the_user(served: Running, python: Path) -> None:
    """Site-packages may belong to somebody else, and is replaced by the next version."""
    assert (served.home / ".local/share/segmed/app/main.py").is_file()
    package = next((python.parents[1] / "lib").glob("python*/site-packages/segmed/app"))
    assert not {"logs", "bin", "lib"} & {path.name for path in package.iterdir()}
