"""`segmed train`: the shell's way to a served model, with one process and with two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from segmed.cli import app
from segmed.registry.versions import Registry
from small_training import make_discs, small_sam
from typer.testing import CliRunner

LIB = Path(__file__).resolve().parents[2] / "lib"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    make_discs(folder, volumes=4)
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_sam().save_pretrained(folder)
    return folder


def _words(task: Path, backbone: Path, registry: Path, **more: object) -> list[str]:
    options = {
        "method": "medsam",
        "data": "msd",
        "root": task,
        "backbone": backbone,
        "registry": registry,
        **more,
    }
    found = ["train", "--device", "cpu"]
    for key, value in {"epochs": 2, "epoch-steps": 1, "batch": 4, **options}.items():
        found += [f"--{key.replace('_', '-')}", str(value)]
    return found


def test_a_version_is_kept_and_the_verdict_told(task: Path, backbone: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, _words(task, backbone, tmp_path, set="preset=segmed"))
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    kept = Registry(tmp_path).versions("medsam")
    assert len(kept) == 1
    assert kept[0].record is not None
    assert kept[0].record.verdict is not None
    assert " ".join(kept[0].record.verdict.reason.split()) in told
    assert ("served from the next prompt on" in told) == kept[0].served


def test_torchrun_gives_the_same_weights(task: Path, backbone: Path, tmp_path: Path) -> None:
    weights = []
    for processes in (1, 2):
        registry = tmp_path / str(processes)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc_per_node={processes}",
            "--standalone",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(LIB),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        subprocess.run(
            [*command, "-m", "segmed.cli", *_words(task, backbone, registry)],
            env=environment,
            check=True,
            capture_output=True,
            timeout=300,
        )
        versions = Registry(registry).versions("medsam")
        assert len(versions) == 1, "the first process alone writes"
        weights.append(load_file(versions[0].folder / "weights.safetensors"))
    one, two = weights
    assert one.keys() == two.keys()
    largest = max(float((one[key] - two[key]).abs().max()) for key in one)
    assert largest < 1e-5
    assert any(not torch.equal(one[key], small_sam().state_dict()[key.removeprefix("model.")]) for key in one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "nothing"}, "There is no dataset 'nothing'"),
        ({"method": "vnet"}, "There is no method 'vnet'"),
        ({"set": "rank"}, "'rank' is not understood. Give KEY=VALUE."),
        ({"set": "rank=4"}, "medsam does not know 'rank'"),
        ({"studies": "."}, "Give either --studies FOLDER, or --data NAME"),
        ({"patients": 1}, "There are 1 labelled cases"),
    ],
)
def test_what_is_wrong_is_one_line(
    task: Path, backbone: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    result = CliRunner().invoke(app, _words(task, backbone, tmp_path, **change))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
