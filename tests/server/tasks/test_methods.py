"""Every method of the family through the server, before and after training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch
from running import Server, Start
from segmed.data.phantom import Phantom
from segmed.evaluation.case_scores import CaseScore
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.methods.base.trainable import save_trained
from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.methods.sam.sharing import share_weights
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from segmed.sam.weights import load_sam, weights_version

K = 14
PROMPTED = ("gafl", "featup", "imedsam", "lora_prompt", "adapter_prompt")
RECORD = VersionRecord(
    (CaseScore("ct", "liver", 0.9, 3.0),), DataFingerprint(("ct",), {}, {"train": ("ct",)}), {}
)


@pytest.fixture(scope="module")
def family(start: Start, phantom: Phantom, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that offers everything untrained, with an empty registry."""
    studies = tmp_path_factory.mktemp("family")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    registry = tmp_path_factory.mktemp("registry")
    words = {
        "backbone": str(weights),
        "labels": "liver,spleen",
        "untrained": "true",
        "registry": str(registry),
    }
    return start(studies, *(w for key, value in words.items() for w in ("--conf", key, value)))


@pytest.fixture(scope="module")
def params(phantom: Phantom) -> dict[str, Any]:
    i, j = (np.flatnonzero((phantom.labels[:, :, K] == 1).any(axis)) for axis in (1, 0))
    roi = [int(i[0]), int(i[-1]), int(j[0]), int(j[-1]), K, K]
    return {"roi": roi, "result_extension": ".nrrd", "device": "cpu", "label": "liver"}


def _infer(server: Server, model: str, params: dict[str, Any]) -> tuple[np.ndarray, Any]:
    file, told = server.client.infer(model, "ct", params)
    return nrrd.read(file)[0], told


def test_info_lists_prompted_and_automatic_models(family: Server) -> None:
    models = family.client.info()["models"]
    assert {n + s for n in PROMPTED for s in ("", "_3d")} | {"lora", "adapter"} <= set(models)
    assert {models[n]["type"] for n in ("lora", "adapter")} == {"segmentation"}
    assert models["lora"]["labels"] == ["liver", "spleen"]
    assert models["imedsam"]["config"]["output"] == ["mask", "uncertainty"]
    assert "output" not in models["gafl"]["config"]


@pytest.mark.parametrize("model", PROMPTED)
def test_a_box_gives_a_mask_on_its_slice(
    family: Server, model: str, params: dict[str, Any], phantom: Phantom
) -> None:
    mask, told = _infer(family, model, params)
    assert mask.shape == phantom.image.shape
    assert set(np.unique(mask)) <= {0, 1}
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() in ([K], [])
    assert told["label_names"] == {"liver": 1}


@pytest.mark.parametrize(("model", "share"), [("gafl", 0.005), ("featup", 0.0)])
def test_methods_that_start_as_medsam_agree_with_it(
    family: Server, model: str, share: float, params: dict[str, Any]
) -> None:
    mine, medsam = (_infer(family, name, params)[0][:, :, K] for name in (model, "medsam"))
    assert (mine != medsam).mean() <= share


@pytest.mark.parametrize("model", ["lora", "adapter"])
def test_automatic_models_label_the_whole_volume(family: Server, model: str, phantom: Phantom) -> None:
    labels, told = _infer(family, model, {"result_extension": ".nrrd"})
    assert labels.shape == phantom.image.shape
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert told["label_names"] == {"liver": 1, "spleen": 2}
    cleaned, _ = _infer(family, model, {"result_extension": ".nrrd", "clean": "largest piece"})
    assert (cleaned > 0).sum() <= (labels > 0).sum()


@pytest.mark.parametrize("model", ["gafl", "lora"])
def test_a_segmentation_file_names_its_segments(family: Server, model: str, params: dict[str, Any]) -> None:
    flat, told = _infer(family, model, params)
    file, _ = family.client.infer(model, "ct", {**params, "result_extension": ".seg.nrrd"})
    assert str(file).endswith(".seg.nrrd")
    found, affine = read_segments(file)
    assert np.array_equal(found.flat(), flat)
    assert {s.name: s.value for s in found.segments}.items() <= told["label_names"].items()
    assert affine.shape == (4, 4)


def test_uncertainty_is_a_map_of_per_cents(family: Server, params: dict[str, Any]) -> None:
    unsure, told = _infer(family, "imedsam", {**params, "output": "uncertainty"})
    assert told["output"] == "uncertainty"
    assert 0 < unsure[:, :, K].max() <= 100
    assert not unsure[:, :, : K - 1].any()
    again, _ = _infer(family, "imedsam", {**params, "output": "uncertainty"})
    assert np.array_equal(unsure, again)


def test_a_promoted_version_answers_at_once_and_a_rollback_brings_the_old_mask(
    family: Server, weights: Path, tmp_path: Path, params: dict[str, Any]
) -> None:
    before, _ = _infer(family, "lora_prompt", params)
    base = load_sam(str(weights))
    trained = LoraSam(share_weights(base), LoraSamConfig(("one", "two", "three"), rank=2))
    with torch.no_grad():
        trained.model.mask_decoder.mask_tokens.weight[0].neg_()
    registry = Registry(_registry_of(family))
    kept = registry.add("lora", lambda folder: save_trained(trained, folder, weights_version(base)), RECORD)
    assert np.array_equal(_infer(family, "lora_prompt", params)[0], before), (
        "a version answers once it is promoted"
    )
    registry.promote("lora", kept.version)
    after, _ = _infer(family, "lora_prompt", params)
    assert not np.array_equal(after, before)
    assert family.client.info()["models"]["lora"]["labels"] == ["one", "two", "three"]
    registry.rollback("lora")
    assert np.array_equal(_infer(family, "lora_prompt", params)[0], before)


def test_a_version_for_other_base_weights_is_refused_with_the_reason(
    family: Server, weights: Path, params: dict[str, Any]
) -> None:
    registry = Registry(_registry_of(family))
    trained = LoraSam(load_sam(str(weights)), LoraSamConfig(("one",), rank=1))
    record = replace(RECORD, settings={"foreign": True})
    kept = registry.add("lora", lambda folder: save_trained(trained, folder, "0123456789ab"), record)
    registry.promote("lora", kept.version)
    try:
        with pytest.raises(Exception, match=r"belong to the backbone .*0123456789ab"):
            family.client.infer("lora", "ct", {})
    finally:
        registry.rollback("lora")


def _registry_of(server: Server) -> Path:
    arguments = server.process.args
    assert isinstance(arguments, list)
    return Path(str(arguments[arguments.index("registry") + 1]))
