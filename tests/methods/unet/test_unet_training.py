"""U-Net and its relatives learn from slices; what they learnt is saved, registered and served unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import mean_dice
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods.base.trainable import Recipe, load_trained, read_facts, save_trained
from segmed.methods.unet_config import UnetFamilyConfig
from segmed.methods.unet_family import DeepLabV3, Unet, UnetFamily
from segmed.registry.versions import Registry
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, train_model
from segmed.training.optimisation import rate_factor
from segmed.training.validation import validate
from small_unet import BOX, SMALL, built, logits


@pytest.mark.parametrize(("kind", "box"), [(Unet, False), (Unet, True), (DeepLabV3, False)])
def test_two_slices_can_be_learnt_by_heart(kind: type[UnetFamily], box: bool, data: SliceDataset) -> None:
    torch.manual_seed(0)
    method = kind(None, kind.config_kind(("bright", "dark"), **SMALL, box_channel=box))
    method.recipe = replace(method.recipe, rates={"": 1e-3})
    training = Finetuning(
        method, data.with_object().thinned(2), FinetuneConfig(steps=15, batch=2, one_label_share=0)
    )
    assert training.prompted == box
    assert training.encoder.frozen, "slices are prepared once"
    losses = training.run()
    assert np.mean(losses[-3:]) < (0.6 if box else 0.7) * losses[0]


def test_classes_are_told_by_their_names(data: SliceDataset) -> None:
    torch.manual_seed(0)
    method = Unet(
        None, UnetFamilyConfig(("dark", "bright"), **SMALL)
    )  # the data have them the other way round
    method.recipe = replace(method.recipe, rates={"": 2e-3})
    Finetuning(method, data, FinetuneConfig(steps=24, batch=6)).run()
    scores = validate(method, data, prompted=False).scores
    assert mean_dice([s for s in scores if s.label == "bright"]) > 0.7
    assert mean_dice([s for s in scores if s.label == "dark"]) > 0.5
    boxed = validate(method, data, prompted=True).scores
    assert mean_dice(boxed) >= mean_dice(scores) - 0.02, "a box cuts off what is wrong"


@pytest.mark.parametrize("box", [False, True])
def test_what_is_served_is_what_was_saved(box: bool, tmp_path: Path) -> None:
    method, prompt = built("unetpp", box_channel=box), BOX if box else None
    with torch.no_grad():
        method.network.get_buffer("encoder.bn1.running_mean").add_(0.3)
    save_trained(method, tmp_path, "")
    other = built("unetpp", seed=1, box_channel=box)
    assert not torch.allclose(logits(other, prompt), logits(method, prompt))
    load_trained(other, tmp_path, "")
    assert torch.equal(logits(other, prompt), logits(method, prompt))
    served = Loader().get("unetpp", BackboneConfig(), trained=tmp_path)
    assert torch.equal(logits(served, prompt), logits(method, prompt))
    assert served.labels == method.labels
    assert served.version.startswith("unetpp-")
    with pytest.raises(ValueError, match="belong to the method 'unetpp', but 'unet' is in use"):
        load_trained(built(), tmp_path, "")
    with pytest.raises(ValueError, match="the image size 32, but 64"):
        load_trained(built("unetpp", input_size=64, box_channel=box), tmp_path, "")


def test_a_training_without_sam_weights_ends_in_a_version(data: SliceDataset, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    config = JobConfig(dict(SMALL), FinetuneConfig(epochs=1, batch=6))
    sources = BackboneConfig("segmed-tiny")  # what `segmed train` has without --backbone
    first = train_model("unet", sources, data, registry, tmp_path / "run", config).version
    assert first is not None
    assert first.record is not None
    assert first.record.settings["backbone"] == ""
    facts = read_facts(first.folder)
    assert (facts["backbone"], facts["image_size"]) == ("", 32)
    assert facts["config"]["labels"] == ["bright", "dark"]
    served = Loader().get("unet", sources, trained=first.folder)
    assert logits(served).shape == (1, 3, 50, 70)
    registry.promote("unet", first.version)
    boxed = replace(config, settings={**SMALL, "box_channel": True})
    second = train_model("unet", sources, data, registry, tmp_path / "run", boxed)
    assert second.version is not None
    assert second.version.record is not None
    assert second.version.record.parent is None, "weights of another input are not taken over"
    assert second.version.record.verdict is not None
    assert f"the served version {first.version}" in second.version.record.verdict.reason


def test_the_recipe_and_its_cosine() -> None:
    recipe = built().recipe
    assert recipe == Recipe(
        {"": 1e-4}, "dice_bce", "adamw", 1e-4, "cosine", 0, 30, prompted=False, batch=16, augmented=True
    )
    assert built(box_channel=True).recipe.prompted
    assert built(rate=5e-4).recipe.rates == {"": 5e-4}
    assert [rate_factor(recipe, n, 100) for n in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
