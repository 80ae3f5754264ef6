"""A training as a whole: who is held out, what is kept, and what the next one begins with."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from segmed.data.selection import selected
from segmed.data.slices import SliceDataset
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods import find_method
from segmed.methods.base.trained_facts import read_facts
from segmed.registry.versions import Registry
from segmed.training.candidate import build_trainable, scores_of_served
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, fingerprint_of, hold_out, train_model
from segmed.training.validation import validate
from small_training import make_discs, small_sam

SHORT = FinetuneConfig(epochs=2, batch=3)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    folder = tmp_path_factory.mktemp("base")
    small_sam().save_pretrained(folder)
    return BackboneConfig(str(folder), precision="fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    return make_discs(tmp_path_factory.mktemp("cases"), volumes=4)


def test_who_is_held_out_stays_so_when_others_come() -> None:
    few = [f"p{n}" for n in range(20)]
    before = set(hold_out(few, 0.2, 0)["validation"])
    after = hold_out([*few, *(f"q{n}" for n in range(30))], 0.2, 0)
    assert before == {p for p in after["validation"] if p.startswith("p")}
    assert 3 <= len(after["validation"]) <= 17
    assert not set(after["validation"]) & set(after["train"])
    assert hold_out(few, 0.2, 0) != hold_out(few, 0.2, 1)


@pytest.mark.parametrize("count", [2, 3])
def test_few_patients_leave_one_on_each_side(count: int) -> None:
    for seed in range(20):
        split = hold_out([f"p{n}" for n in range(count)], 0.9, seed)
        assert split["train"]
        assert split["validation"]


@pytest.mark.parametrize("method", ["gafl", "featup", "lora"])
def test_a_first_version_has_to_beat_what_the_untrained_method_finds(
    backbone: BackboneConfig, data: SliceDataset, method: str
) -> None:
    """Untrained, `gafl` and `featup` are MedSAM; the new heads of `lora` find nothing."""
    found = find_method(method)
    candidate, version = build_trainable(found, backbone, {}, data, "cpu")
    scores = scores_of_served(found, backbone, None, candidate, version, data, True, "cpu")
    if method == "lora":
        assert all(score.dice == float(not score.present) for score in scores)
        return
    medsam, version = build_trainable(find_method("medsam"), backbone, {}, data, "cpu")
    wanted = [score.dice for score in validate(medsam.eval(), data.with_object(), True).scores]
    assert [score.dice for score in scores] == pytest.approx(wanted, abs=1e-6)
    assert max(wanted) > 0


def test_the_seed_is_that_of_new_weights_too(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def keep(*arguments: Any) -> Any:
        built.append(build_trainable(*arguments)[0])
        raise InterruptedError

    monkeypatch.setattr("segmed.training.job.build_trainable", keep)
    for seed in (0, 1, 1):
        config = JobConfig({}, replace(SHORT, seed=seed))
        with pytest.raises(InterruptedError):
            train_model("lora", backbone, data, Registry(tmp_path), tmp_path / "run", config)
    weights = [torch.cat([p.flatten() for p in method.parameters()]) for method in built]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])


def test_structures_that_no_label_map_names_are_refused(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    volumes = [replace(volume, values={1: 0, 2: 0}) for volume in data.volumes]
    other = SliceDataset(volumes, {1: "liver"}, data.unit, data.binary, data.slices)
    with pytest.raises(ValueError, match="No label map contains liver"):
        train_model("lora", backbone, other, Registry(tmp_path), tmp_path / "run", JobConfig({}, SHORT))


def test_one_case_is_too_few() -> None:
    with pytest.raises(ValueError, match="There are 1 labelled cases; training needs at least two"):
        hold_out(["only"], 0.2, 0)


def test_the_next_training_begins_with_what_is_served(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    config = JobConfig({"preset": "full"}, SHORT)
    first = train_model("medsam", backbone, data, registry, tmp_path / "run", config).version
    assert first is not None
    assert first.record is not None
    assert first.record.parent is None
    assert first.record.verdict is not None
    assert first.served == first.record.verdict.accepted
    assert first.record.data == fingerprint_of(data, hold_out(data.patients, 0.2, 0))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    registry.promote("medsam", first.version)
    second = train_model("medsam", backbone, data, registry, tmp_path / "run", config)
    assert second.version is not None
    assert second.version.record is not None
    assert second.version.record.parent == first.version
    assert second.before == first.record.scores
    third = train_model(
        "medsam", backbone, data, registry, tmp_path / "run", replace(config, fresh=True)
    ).version
    assert third is not None
    assert third.record is not None
    assert third.record.parent is None
    assert (
        third.folder.joinpath("weights.safetensors").read_bytes()
        == first.folder.joinpath("weights.safetensors").read_bytes()
    ), "the same data and settings give the same weights"


def test_dicom_series_are_known_by_their_ids(data: SliceDataset, tmp_path: Path) -> None:
    found = []
    for run in ("a", "b"):  # temporary folders of two processes
        volumes = []
        for n, volume in enumerate(data.volumes):
            folder = tmp_path / run / f"1.2.{n}"
            folder.mkdir(parents=True)
            volumes.append(replace(volume, image=folder, image_id=f"1.2.{n}"))
        series = SliceDataset(volumes, data.classes, data.unit, data.binary, data.slices)
        found.append(fingerprint_of(series, hold_out(data.patients, 0.2, 0)))
    assert found[0] == found[1] and "1.2.0" in found[0].images


def test_nothing_starts_from_weights_that_learned_from_held_out_cases(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    registry, config = Registry(tmp_path / "registry"), JobConfig({"preset": "full"}, SHORT)
    first = train_model("medsam", backbone, data, registry, tmp_path / "run", config).version
    assert first
    registry.promote("medsam", first.version)
    held = set(hold_out(data.patients, 0.2, 0)["validation"])
    seed = next(n for n in range(1, 99) if set(hold_out(data.patients, 0.2, n)["validation"]) != held)
    other = replace(config, training=replace(SHORT, seed=seed))
    result = train_model("medsam", backbone, data, registry, tmp_path / "run", other)
    assert result.version and result.version.record and result.version.record.parent is None
    assert f"the served version {first.version} has an advantage" in result.message
    registry.promote("medsam", first.version)
    again = train_model("medsam", backbone, data, registry, tmp_path / "run", config)
    assert again.version and again.version.record and again.version.record.parent
    assert "advantage" not in again.message


def test_a_version_that_lacks_a_structure_is_not_served(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    registry, config = Registry(tmp_path / "registry"), JobConfig({}, SHORT)
    first = train_model("lora", backbone, data, registry, tmp_path / "run", config).version
    assert first
    registry.promote("lora", first.version)
    kept, *lost = data.classes.values()
    narrow = train_model("lora", backbone, selected(data, kept), registry, tmp_path / "run", config).version
    assert narrow and narrow.record and narrow.record.verdict and not narrow.served
    assert f"{', '.join(lost)} would not be segmented any more" in narrow.record.verdict.reason
    served = registry.served("lora")
    assert served and served.version == first.version


def test_classes_are_those_of_the_data_and_the_loader_serves_them(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    done = train_model("lora", backbone, data, registry, tmp_path / "run", JobConfig({"rank": 2}, SHORT))
    assert done.version is not None
    # nobody would use new heads as they are, so the first version has no rival but an empty mask
    assert done.before and all(
        (s.dice, math.isinf(s.hd95)) == (not s.present, s.present) for s in done.before
    )
    assert "a model that finds nothing" in done.message
    facts = read_facts(done.version.folder)
    assert (facts["config"]["labels"], facts["config"]["rank"]) == (["bright", "dark"], 2)
    served = Loader().get("lora", backbone, trained=done.version.folder)
    assert served.labels == ("bright", "dark")
    assert facts["backbone"] in served.version
    sample = data[1]
    with torch.no_grad():
        assert served.decode(served.embed([sample.image]), None, sample.labels.shape).masks.shape == (
            1,
            3,
            36,
            40,
        )
    assert done.version.record is not None
    registry.promote("lora", done.version.version)
    again = train_model("lora", backbone, data, registry, tmp_path / "run", JobConfig({"rank": 2}, SHORT))
    assert again.before == done.version.record.scores, "the rival is what is served, not the untrained method"


def test_a_stopped_training_keeps_no_version_and_goes_on(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    steps: list[int] = []
    stopped = train_model(
        "medsam",
        backbone,
        data,
        registry,
        tmp_path / "run",
        JobConfig({}, SHORT),
        stop=lambda: len(steps) >= 2,
        tell=lambda progress: steps.append(progress.step),
    )
    assert stopped.training.ended == "stopped"
    assert stopped.version is None
    assert not registry.names()
    train_model(
        "medsam",
        backbone,
        data,
        registry,
        tmp_path / "run",
        JobConfig({}, SHORT),
        tell=lambda progress: steps.append(progress.step),
    )
    assert steps == sorted(set(steps)), "no step is made twice"


def test_a_run_of_other_settings_in_the_folder_is_cleared_away(
    backbone: BackboneConfig, data: SliceDataset, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    train_model("medsam", backbone, data, registry, tmp_path / "run", JobConfig({}, SHORT), stop=lambda: True)
    other = JobConfig({}, replace(SHORT, seed=1))
    assert train_model("medsam", backbone, data, registry, tmp_path / "run", other).version is not None


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("classical", {}, "classical does not learn"),
        ("lora", {"depth": 3}, "lora does not know 'depth'; allowed are decoder, labels, prompt_token, rank"),
        ("lora", {"rank": 0}, "rank is 0; allowed are whole numbers from 1"),
        ("lora", {"rank": "four"}, "rank is 'four'; allowed are whole numbers"),
        ("gafl", {"strict_reference": "False"}, "strict_reference is 'False'; allowed are true and false"),
        ("featup", {"jbu": 1}, "jbu is '1'; allowed are words"),
        ("detector", {"confidence": "high"}, "confidence is 'high'; allowed are numbers"),
        ("gafl", {"activation": ["relu"]}, "activation is .*; allowed are relu, sigmoid, relu6"),
        ("unet", {"atrous_rate": 6}, "unet does not know 'atrous_rate'"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    backbone: BackboneConfig,
    data: SliceDataset,
    tmp_path: Path,
    method: str,
    settings: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        train_model(method, backbone, data, Registry(tmp_path), tmp_path / "run", JobConfig(settings, SHORT))
