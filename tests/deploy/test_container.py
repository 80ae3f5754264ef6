"""The image: what goes into it, and what must not. Nothing is built, so no container engine is needed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from deploy.tools import DEPLOY, check, tool
from running import ROOT

DOCKERFILE = DEPLOY / "Dockerfile"
SELECT = runpy.run_path(str(DEPLOY / "select_packages.py"))


def _instructions() -> list[list[str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace(
        "\\\n", " "
    )
    return [line.split() for line in text.splitlines() if line.strip()]


def _context(root: Path) -> set[str]:
    """The files that the builder gets of a folder, according to .dockerignore."""
    build = pytest.importorskip("docker.utils.build")
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return set(build.exclude_paths(str(root), [p for p in patterns if p and not p.startswith("#")]))


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    check(tool("hadolint"), DOCKERFILE)


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    copied = [
        word
        for first, *words in _instructions()
        if first == "COPY" and not words[0].startswith("--from")
        for word in words[:-1]
    ]
    assert len(copied) > 5
    for pattern in copied:
        found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)]
        assert found, f"{pattern} is not there"
        assert set(found) & _context(ROOT), f"{pattern} is excluded by .dockerignore"


def test_every_stage_that_is_named_is_defined() -> None:
    stages: set[str] = set()
    for first, *words in _instructions():
        if first == "FROM":
            base = words[0]
            if base.startswith("packages"):
                assert set(base.replace("${VARIANT}", v) for v in ("cpu", "cuda")) <= stages
            stages.add(words[-1])
        elif first == "COPY" and words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
    assert {"web", "packages-cpu", "packages-cuda", "server"} <= stages


def test_studies_models_and_secrets_stay_outside(tmp_path: Path) -> None:
    inside = ("lib/segmed/cli.py", "apps/segmed/model/segmed-default/model.safetensors", "requirements.txt")
    outside = (
        "studies/demo/ct.nii.gz",
        "apps/segmed/model/trained/unet/current",
        "apps/segmed/model/medsam_vit_b.pth",
        "apps/segmed/logs/app.log",
        "deploy/.env",
        ".git/config",
        ".venv/bin/python",
        "apps/segmed/web/node_modules/x/index.js",
        "lib/segmed/__pycache__/cli.pyc",
    )
    for name in (*inside, *outside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = _context(tmp_path)
    assert set(inside) <= found
    assert not set(outside) & found


def test_the_server_is_no_root_and_has_a_health_check() -> None:
    last = [words for words in _instructions()][
        max(n for n, w in enumerate(_instructions()) if w[0] == "FROM") :
    ]
    by_name = {words[0]: words[1:] for words in last}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", by_name["USER"][0])
    assert "/opt/healthcheck.py" in " ".join(by_name["HEALTHCHECK"])


LOCK = """# comment
numpy==1.26.4 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
nvidia-cublas==13.1 \\
    --hash=sha256:cc
Torch==2.14.1 \\
    --hash=sha256:dd
triton==3.8.0 ; sys_platform == 'linux' \\
    --hash=sha256:ee
"""


@pytest.mark.parametrize(
    ("build", "names"),
    [
        ("cpu", {"numpy"}),
        ("cuda", {"numpy", "nvidia-cublas", "torch", "triton"}),
        ("cuda-without-gpu", {"numpy", "nvidia-cublas", "torch"}),
    ],
)
def test_packages_are_selected_with_their_hashes(build: str, names: set[str]) -> None:
    chosen = SELECT["select"](LOCK, build)
    assert SELECT["named"](chosen) == names
    assert "--hash=sha256:bb" in chosen
    assert ("sha256:dd" in chosen) == ("torch" in names)
    assert ("sha256:ee" in chosen) == ("triton" in names)
    assert "#" not in chosen


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="Choose cuda, cpu"):
        SELECT["select"](LOCK, "rocm")


def test_the_lock_has_all_that_the_image_needs() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    wanted = SELECT["named"]((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    tools = SELECT["named"]((ROOT / "requirements-dev.txt").read_text(encoding="utf-8"))
    chosen = SELECT["named"](SELECT["select"](lock, "cuda"))
    assert {"torch", "monailabel", "setuptools"} < chosen
    assert wanted <= chosen
    assert not tools & chosen
    assert wanted - SELECT["named"](SELECT["select"](lock, "cpu")) == {"torch", "torchvision"}
