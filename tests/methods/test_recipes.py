"""Recipes: one step moves exactly the parameters that the papers train, at the papers' rates.

Adam moves a weight with a gradient by its rate in the first step, whatever the gradient, so that the largest
move of a group of parameters is its rate.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.imaging.prompts import SlicePrompt
from segmed.methods import find_method
from segmed.methods.base.trainable import TrainableSegmenter, save_trained
from segmed.methods.detector.detector import DetectorConfig, DetectorSegmenter
from segmed.methods.detector.prompter import build_prompter
from segmed.methods.detector.start import start_from
from segmed.sam.weights import weights_version
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.optimisation import build_optimiser
from small_training import small_sam
from torch import nn
from training_fixtures import discs, one_thread

__all__ = ["discs", "one_thread"]
BATCH = 6
HEAD = 2.3e-3  # rate of LoRA's and the adapter's head in batches of six: 5e-4 at two to 5e-3 at twelve
DECODER = r"model\.mask_decoder\.(?!iou_prediction_head)"
CLASS_HEAD = r"model\.(prompt_encoder\.(?!.*positional)|mask_decoder\.(?!transformer))"
PARTS = r"(model\.(prompt_encoder\.(?!.*positional)|mask_decoder\.upscale_))"
LORA = r"model\.vision_encoder\..*\.qkv\.(?!base)"
SLOW = f"{PARTS}|{LORA}"
# method, settings, weight decay, and rates by pattern of the trained parameters
CASES: list[tuple[str, dict[str, Any], float, dict[str, float]]] = [
    ("sam", {}, 0.01, {DECODER: 1e-4}),
    ("sam", {"preset": "segmed"}, 0.0, {DECODER: 1e-3}),
    ("sam", {"noise": 0.1}, 0.01, {DECODER: 1e-4}),
    ("medsam", {}, 0.01, {DECODER: 1e-4}),
    ("medsam", {"preset": "segmed"}, 0.0, {DECODER: 1e-3}),
    ("medsam", {"preset": "full"}, 0.01, {DECODER: 1e-4, r"model\.vision_encoder\.": 1e-4}),
    ("gafl", {}, 0.0, {DECODER: 1e-4, r"filter\.": 1e-3}),
    ("gafl", {"variant": "general_spectrum"}, 0.0, {DECODER: 1e-4, r"filter\.": 1e-3}),
    ("gafl", {"preset": "brats"}, 0.0, {DECODER: 1e-4, r"filter\.": 1e-3}),
    ("gafl", {"preset": "segmed"}, 0.0, {DECODER: 1e-3, r"filter\.": 1e-3}),
    ("featup", {}, 0.01, {DECODER: 1e-4, r"jbu\.|to_decoder\.": 1e-3}),
    ("featup", {"freeze_jbu": True}, 0.01, {DECODER: 1e-4, r"to_decoder\.": 1e-3}),
    ("featup", {"preset": "segmed"}, 0.0, {DECODER: 1e-3, r"jbu\.|to_decoder\.": 1e-3}),
    (
        "imedsam",
        {"scale": 0.5},
        0.01,
        {SLOW: 5e-5, r"frequency\.blocks": 5e-5, r"frequency\.scale|decoder\.": 1e-3},
    ),
    ("imedsam", {"adapters": False}, 0.01, {SLOW: 5e-5, r"decoder\.": 1e-3}),
    ("imedsam", {"adapters": False, "share": 0}, 0.01, {SLOW: 5e-5, r"decoder\.coarse": 1e-3}),
    (
        "imedsam",
        {"adapters": False, "implicit": False},
        0.01,
        {f"{SLOW}|model.mask_decoder.output_hypernetworks_mlps.0": 5e-5},
    ),
    ("lora", {"rank": 2}, 0.1, {rf"{CLASS_HEAD}|.*\.lora_[AB]\.": HEAD}),
    ("adapter", {}, 0.01, {r".*\.(beside|space|layer_norm4\.0)\.": 1e-4, CLASS_HEAD: HEAD}),
    ("adapter", {"rate": 2e-3}, 0.01, {r".*\.(beside|space|layer_norm4\.0)\.": 2e-3, CLASS_HEAD: HEAD}),
    ("unet", {"encoder": "resnet18", "input_size": 32}, 1e-4, {r"network\.": 1e-4}),
    ("detector", {"image_size": 64}, 5e-4, {r"detector\.": 5e-4}),
]


def _built(name: str, settings: dict[str, Any]) -> TrainableSegmenter:
    method = find_method(name)
    training = method.training
    assert training is not None
    known = training.config.__dataclass_fields__
    labels = {"labels": ("bright", "dark")} if "labels" in known else {}
    base = small_sam().requires_grad_(False) if method.needs_backbone else None
    torch.manual_seed(0)
    built: TrainableSegmenter = training.kind(base, training.config(**labels, **settings))
    built.recipe = built.recipe_for(BATCH)
    return built


@pytest.mark.parametrize(
    ("name", "settings", "decay", "rates"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_one_step(
    name: str, settings: dict[str, Any], decay: float, rates: dict[str, float], discs: SliceDataset
) -> None:
    method = _built(name, settings)
    training = Finetuning(method, discs, FinetuneConfig(steps=1, batch=BATCH))
    groups = {pattern: [n for n, _ in method.named_parameters() if re.match(pattern, n)] for pattern in rates}
    trained = {n for names in groups.values() for n in names}
    assert {n for n, p in method.named_parameters() if p.requires_grad} == trained
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    training.run()
    after = {n: p.detach() for n, p in method.named_parameters()}
    assert {n for n in before if not torch.equal(after[n], before[n])} <= trained
    for pattern, rate in rates.items():
        moves = [(after[n] - before[n] * (1 - rate * decay)).abs().max() for n in groups[pattern]]
        assert float(torch.stack(moves).max()) == pytest.approx(rate, rel=0.05), pattern


def test_noise_is_drawn_in_training_only_and_not_cached(discs: SliceDataset) -> None:
    method = _built("sam", {"noise": 0.1})
    training = Finetuning(method, discs, FinetuneConfig(steps=1, batch=BATCH))
    assert not training.encoder.frozen
    picture = method.prepare(discs[1].image)[0][None]
    method.train()
    assert not torch.equal(method.encode(picture).features, method.encode(picture).features)
    method.eval()
    assert torch.equal(method.encode(picture).features, method.encode(picture).features)
    with pytest.raises(ValueError, match="noise is 2; allowed are shares from 0 to 1"):
        _built("medsam", {"noise": 2})


def test_yolo_learns_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmed.methods.detector.yolo.build_yolo", lambda *_: nn.Linear(1, 1))
    config = DetectorConfig(("bright",), "yolo:yolov5s.yaml", prompter="medsam")
    recipe = DetectorSegmenter(small_sam(), config).recipe
    optimiser = build_optimiser(recipe, [{"params": [nn.Parameter(torch.ones(1))], "lr": recipe.rate("")}])
    assert isinstance(optimiser, torch.optim.SGD)
    group = optimiser.param_groups[0]
    found = [group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")]
    assert found == [0.01, 0.937, True, 5e-4]
    assert (recipe.epochs, recipe.batch, recipe.schedule) == (100, 16, "linear")


def test_masks_of_imedsam_are_compared_at_the_resolution_of_the_slice(discs: SliceDataset) -> None:
    training = Finetuning(_built("imedsam", {}), discs, FinetuneConfig(steps=1, batch=BATCH))
    _, samples = next(training.reader.batches(0, 0, 1))
    assert {tuple(s.truth.shape) for s in samples} == {(40, 40)}, "slices are 40 x 36, the input 32 px"
    assert all(s.prompt is not None and max(s.prompt.box or ()) <= 32 for s in samples)


def test_a_prompter_has_weights_of_its_own(tmp_path: Path) -> None:
    other, base = small_sam(7), small_sam()
    other.save_pretrained(tmp_path / "other")
    mine = build_prompter("sam", str(tmp_path / "other"), base, weights_version(base))
    shared = build_prompter("medsam", "", base, weights_version(base))
    assert mine.version == f"sam-{weights_version(other)}"
    assert shared.version == f"medsam-{weights_version(base)}"
    with pytest.raises(ValueError, match="prompter_weights are for the prompters medsam and sam"):
        DetectorConfig(prompter_weights="other")


def test_a_trained_medsam_outlines_boxes(discs: SliceDataset, tmp_path: Path) -> None:
    base = small_sam().requires_grad_(False)
    training = find_method("medsam").training
    assert training is not None
    version = weights_version(base)  # before the training, which changes the decoder in place
    tuned = training.kind(base, training.config(), version)
    Finetuning(tuned, discs, FinetuneConfig(steps=3, batch=BATCH)).run()
    save_trained(tuned, tmp_path, version)
    fresh = small_sam()
    trained, untrained = (build_prompter("medsam", w, fresh, version) for w in (str(tmp_path), ""))
    box = [[SlicePrompt(box=(4, 4, 20, 20))]]
    with torch.no_grad():
        wanted, found, before = (
            m.decode(m.embed([discs[1].image]), box, (40, 36)).masks for m in (tuned, trained, untrained)
        )
    assert torch.allclose(found, wanted)
    assert not torch.allclose(before, wanted)


class Anything:
    """An object that is no tensor."""


def test_a_detector_starts_from_tensors_only(tmp_path: Path) -> None:
    network, other = (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, classes)) for classes in (4, 5))
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    assert start_from(network, tmp_path / "weights.pt") == 2, "the head has another number of classes"
    assert torch.equal(network[0].weight, other[0].weight)
    torch.save({"model": Anything()}, tmp_path / "yolov5su.pt")
    with pytest.raises(ValueError, match=r"yolov5su.pt holds more than tensors.*state_dict\(\)"):
        start_from(network, tmp_path / "yolov5su.pt")
    torch.save({"odd": torch.ones(1)}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"None of the 1 entries of odd.pt fits"):
        start_from(network, tmp_path / "odd.pt")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        start_from(network, tmp_path / "none.pt")
