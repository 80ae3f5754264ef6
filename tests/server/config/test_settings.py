"""`--conf` values."""

from __future__ import annotations

from pathlib import Path

import pytest
from segmed.methods import METHODS
from segmed.server.config.settings import ServerSettings
from tiny_sam import save_folder, tiny_sam

# methods by what they need: training on the embedded weights, training alone, nothing, SAM weights of users
FAMILY = tuple(m.name for m in METHODS.values() if not m.ready and m.needs_backbone and not m.weights)
ALONE = tuple(m.name for m in METHODS.values() if not m.ready and m.name not in FAMILY)
AT_ONCE = tuple(m.name for m in METHODS.values() if m.ready and (m.weights or not m.needs_backbone))
ON_SAM = tuple(m.name for m in METHODS.values() if m.ready and m.name not in AT_ONCE and not m.own_format)


def test_labels_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"spleen": 3, "liver": 1}')
    settings = ServerSettings.from_conf({"labels": str(path)})
    assert settings.labels == ("liver", "spleen")
    assert settings.structures == {"liver": 1, "spleen": 3}
    for text in ('{"liver": 0}', '{"liver": 1, "spleen": 1}', "[1]", "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match="must hold"):
            ServerSettings.from_conf({"labels": str(path)})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ServerSettings.from_conf({"labels": str(tmp_path / "none.json")})


def test_defaults_need_nothing() -> None:
    settings = ServerSettings.from_conf({})
    assert FAMILY and ALONE and AT_ONCE and ON_SAM
    assert settings.models[: len(AT_ONCE)] == AT_ONCE
    assert set(settings.models[len(AT_ONCE) :]) == {*FAMILY, *ALONE}
    assert {settings.backbones[name].source for name in FAMILY} == {"segmed-tiny"}
    assert settings.labels == ("object",)


def test_a_backbone_brings_its_methods(tmp_path: Path) -> None:
    folder = str(save_folder(tiny_sam(), tmp_path / "m"))
    assert set(ServerSettings.from_conf({"backbone": folder}).models) == {*AT_ONCE, *ON_SAM, *FAMILY, *ALONE}
    one = ServerSettings.from_conf({"backbone_medsam": folder, "labels": "liver, spleen ,liver"})
    assert set(one.models) == {*AT_ONCE, "medsam", *FAMILY, *ALONE}
    assert one.structures == {"liver": 1, "spleen": 2}
    assert one.labels == ("liver", "spleen")


def test_the_embedded_model_keeps_its_weights_unless_told_by_name(tmp_path: Path) -> None:
    folder = str(save_folder(tiny_sam(), tmp_path / "m"))
    assert (
        ServerSettings.from_conf({"backbone": folder, "image_size": "512"}).backbones["segmed"].image_size
        is None
    )
    assert ServerSettings.from_conf({"backbone": folder}).backbones["segmed"].source == "segmed-default"
    assert ServerSettings.from_conf({"backbone_segmed": folder}).backbones["segmed"].source == folder
    assert ServerSettings.from_conf({"backbone": "segmed-tiny"}).backbones["medsam"].source == "segmed-tiny"


def test_models_choose_and_order() -> None:
    chosen = ServerSettings.from_conf({"models": "medsam, classical", "backbone": "facebook/sam-vit-base"})
    assert chosen.models == ("medsam", "classical")
    assert chosen.backbones["medsam"].source == "facebook/sam-vit-base"


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"modles": "sam"}, "Unknown --conf modles"),
        ({"models": "vnet"}, "no method 'vnet'"),
        ({"models": "medsam"}, "needs SAM weights"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"window": "ct"}, "ct-lung"),
        ({"patient": "("}, "is not a regular expression"),
        ({"patient": "^p[0-9]+"}, "has no group"),
        ({"embedding_cache_mb": "-3"}, "whole number above 0"),
        ({"image_size": "big", "backbone": "facebook/sam-vit-base"}, "whole number above 0"),
    ],
)
def test_wrong_values_are_named(conf: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServerSettings.from_conf(conf)


def test_missing_weights() -> None:
    with pytest.raises(FileNotFoundError, match="no SAM weights"):
        ServerSettings.from_conf({"backbone": "/no/such/medsam_vit_b.pth"})


def test_files_must_be_there(tmp_path: Path) -> None:
    for key in ("codes", "denoiser"):
        (tmp_path / key).write_text("{}", encoding="utf-8")
        assert getattr(ServerSettings.from_conf({key: str(tmp_path / key)}), key) == tmp_path / key
        with pytest.raises(FileNotFoundError, match=f"--conf {key}"):
            ServerSettings.from_conf({key: str(tmp_path / "absent")})


def test_switches_are_true_or_false() -> None:
    assert not ServerSettings.from_conf({}).loose_parts
    assert ServerSettings.from_conf({"loose_parts": "true"}).loose_parts
    with pytest.raises(ValueError, match="must be true or false"):
        ServerSettings.from_conf({"loose_parts": "yes"})
