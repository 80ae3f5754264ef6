"""`segmed models` on a registry with a served, a rejected and a damaged version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segmed.commands.models import app
from segmed.evaluation.case_scores import CaseScore
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from typer.testing import CliRunner, Result


def _scores(dice: float) -> tuple[CaseScore, ...]:
    return tuple(CaseScore(f"case{n}", "liver", dice, 2.5) for n in range(4))


def _record(dice: float, images: tuple[str, ...], epochs: int) -> VersionRecord:
    return VersionRecord(_scores(dice), DataFingerprint(images, {}, {"train": images}), {"epochs": epochs})


def _writer(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file({"a": torch.full((4,), value)}, folder / "weights.safetensors")
        facts = {"method": "lora", "backbone": "abc", "image_size": 96, "config": {"rank": 4}}
        (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")

    return write


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def versions(registry: Registry) -> list[str]:
    """Served, rejected, damaged."""
    first = registry.decide("lora", _writer(1), _record(0.7, ("a", "b"), 3), None, _scores(0.5)).version
    second = registry.decide("lora", _writer(2), _record(0.6, ("b", "c"), 9), first, _scores(0.7)).version
    third = registry.add("lora", _writer(3), _record(0.9, ("a",), 3))
    (third.folder / "metrics.json").write_text("[red]{")
    return [first, second, third.version]


def _run(registry: Registry, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--registry", str(registry.folder)], env={"COLUMNS": "220"})


def _text(result: Result) -> str:
    return " ".join(result.output.split())


def test_list_shows_every_version(registry: Registry, versions: list[str]) -> None:
    result = _run(registry, "list")
    assert result.exit_code == 0
    rows = [line for line in result.output.splitlines() if "lora" in line]
    for row, version, words in zip(
        rows, versions, (("yes", "0.700", "accepted"), ("0.600", "rejected"), ("damaged: ",)), strict=True
    ):
        assert version in row and all(word in row for word in words)
    assert "yes" not in rows[1] and "yes" not in rows[2]
    assert _run(registry, "list", "lora").output == result.output


def test_show_explains(registry: Registry, versions: list[str]) -> None:
    text = _text(_run(registry, "show", "lora"))
    assert f"lora {versions[0]}, served" in text
    assert "Better than the untrained method" in text and "epochs: 3" in text and "2 images (2 train)" in text
    text = _text(_run(registry, "show", "lora", versions[1]))
    assert "served" not in text.split("created")[0]
    assert "Not served, the served version" in text and "-0.100" in text
    damaged = _run(registry, "show", "lora", versions[2])
    assert damaged.exit_code == 2 and "is damaged and is never served" in _text(damaged)


def test_diff_lists_data_settings_and_scores(registry: Registry, versions: list[str]) -> None:
    lines = [
        line.replace("│", " ").split()
        for line in _run(registry, "diff", "lora", *versions[:2]).output.splitlines()
    ]
    for row in (["added", "c"], ["removed", "a"], ["training.epochs", "3", "9"]):
        assert row in lines
    assert ["liver", "4", "0.600", "0.700", "-0.100", "2.5", "2.5", "0", "0"] in lines


def test_promote_and_rollback_move_what_is_served(registry: Registry, versions: list[str]) -> None:
    refused = _run(registry, "promote", "lora", versions[1])
    assert refused.exit_code == 2 and "--anyway" in _text(refused)
    assert _run(registry, "promote", "lora", versions[2], "--anyway").exit_code == 2
    assert registry.served("lora").version == versions[0]  # type: ignore[union-attr]
    assert _run(registry, "promote", "lora", versions[1], "--anyway", "--reason", "more cases").exit_code == 0
    assert registry.served("lora").version == versions[1]  # type: ignore[union-attr]
    assert registry.history("lora")[-1].reason == "more cases"
    assert versions[0] in _text(_run(registry, "rollback", "lora"))
    assert registry.served("lora").version == versions[0]  # type: ignore[union-attr]
    assert "lora untrained is served" in _text(_run(registry, "rollback", "lora"))
    assert _run(registry, "rollback", "lora").exit_code == 2
    assert "No version of lora is served" in _text(_run(registry, "show", "lora"))


@pytest.mark.parametrize(
    "args",
    [("show", "../x", "0001-00000000"), ("show", "lora", "../x"), ("rollback", "other"), ("list", "other")],
)
def test_what_is_not_there_is_one_line(
    registry: Registry, versions: list[str], args: tuple[str, ...]
) -> None:
    result = _run(registry, *args)
    assert result.exit_code == 2
    assert "Traceback" not in result.output and result.output.strip()


def test_a_missing_registry(tmp_path: Path) -> None:
    result = _run(Registry(tmp_path / "none"), "list")
    assert result.exit_code == 2 and "There is no folder" in _text(result)
