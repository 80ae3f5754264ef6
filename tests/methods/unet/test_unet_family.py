"""U-Net and its relatives answer at any size, with and without a box, and refuse what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import BackboneConfig
from segmed.methods.unet_config import DeepLabConfig, UnetFamilyConfig
from segmed.methods.unet_family import DeepLabV3, Pan, Unet, UnetFamily
from segmed.registry.versions import Registry
from segmed.training.job import train_model
from small_unet import BOX, IMAGE, LABELS, NAMES, OTHER, built, logits


@pytest.mark.parametrize("name", NAMES)
def test_all_answer_at_any_size_with_and_without_a_box(name: str) -> None:
    size = 128 if name == "pan" else 32
    method = built(name, input_size=size)
    with torch.no_grad():
        embedding = method.embed([IMAGE, IMAGE[::-1]])
        classes = method.decode(embedding, None, (50, 70)).masks
        assert classes.shape == (2, 3, 50, 70)
        assert not torch.allclose(classes[0], classes[1])
        assert method.decode(embedding, None, (33, 101)).masks.shape == (2, 3, 33, 101)
        assert method.decode(embedding, [[BOX, OTHER]] * 2, (50, 70)).masks.shape == (2, 2, 50, 70)
    truth = torch.zeros(1, 1, size, size, dtype=torch.long)
    loss = method.train().loss(method.prepare(IMAGE)[0][None], None, truth)
    assert torch.isfinite(loss), "one slice alone is learnt from, too"
    assert method.network.training


def test_the_default_has_the_number_of_parameters_of_the_documents() -> None:
    with torch.device("meta"):
        method = Unet(None, UnetFamilyConfig(("tumour",)))
    sizes = {name: p.numel() for name, p in method.named_parameters()}
    encoder = sum(n for name, n in sizes.items() if ".encoder." in name)
    assert encoder == 28_340_784, "as torchvision's EfficientNet-B5 without its classifier"
    assert sum(sizes.values()) == 31_216_146
    assert set(sizes) == set(method.trained_names())


def test_a_box_without_a_channel_gives_its_class_and_nothing_beside_it() -> None:
    method = built(input_size=64)
    head = method.network.get_submodule("segmentation_head.0")
    with torch.no_grad():
        head.weight.zero_()  # type: ignore[union-attr, operator]
        head.bias.copy_(torch.tensor([0.0, 1.0, 4.0]))  # type: ignore[union-attr, operator]
    found = logits(method, BOX)[0, 0]
    block = torch.tensor([0.0, 1.0, 4.0]).softmax(0)[2]
    assert found[10:29, 12:39].numpy() == pytest.approx(float(torch.logit(block)), abs=1e-3)
    rows, columns = (found > 0).nonzero().unbind(1)
    edges = [int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())]
    assert edges == pytest.approx(BOX.box, abs=1), "resampled, so that a pixel more or less is right"


def test_the_box_channel_decides() -> None:
    method = built(box_channel=True)
    assert method.labels == ()
    assert logits(method, BOX).shape == (1, 1, 50, 70)
    assert (logits(method, BOX) - logits(method, OTHER)).abs().max() > 1e-3
    with torch.no_grad():
        embedding = method.embed([IMAGE])
        both = method.decode(embedding, [[BOX, OTHER]], (50, 70)).masks
    assert torch.allclose(both, torch.cat([logits(method, BOX), logits(method, OTHER)], 1), atol=1e-4)
    with pytest.raises(
        ValueError, match="This unet was trained with box_channel: draw a box around the object"
    ):
        logits(method)
    with pytest.raises(ValueError, match="unet needs a box in every prompt: give one list per slice"):
        logits(method, SlicePrompt(points=np.array([[5.0, 5.0]], np.float32), labels=np.array([1])))


def test_the_smallest_box_reaches_the_network() -> None:
    method = built(box_channel=True)
    frame = method.embed([np.zeros((700, 900), np.uint8)])
    seen = method._boxes(frame, [[SlicePrompt(box=(899, 3, 899, 3))]])
    assert seen.nonzero().tolist() == [[0, 0, 0, 31]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 250}, "input_size is 250; allowed are multiples of 32. Take 256"),
        ({"input_size": 0}, "input_size is 0; allowed are multiples of 32"),
        ({"rate": 0}, "rate is 0; allowed are numbers between 0 and 1"),
        ({"input_size": "256"}, "input_size is '256'; allowed"),
        ({"encoder": "resnet17"}, "The encoder 'resnet17' is unknown. Take efficientnet-b5, resnet18"),
        ({"atrous_rate": 0}, "atrous_rate is 0; allowed are whole numbers from 1 to 64. Take 6 or 12."),
        ({"labels": ()}, r"labels is \(\); allowed is a tuple"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepLabConfig(**changes)


def test_combinations_that_do_not_fit_are_refused(data: SliceDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="input_size is 96; allowed for pan are multiples of 32 from 128"):
        Pan(None, UnetFamilyConfig(LABELS, "resnet18", 96))
    with pytest.raises(ValueError, match="do not support dilated mode"), torch.device("meta"):
        DeepLabV3(None, DeepLabConfig(LABELS, "vgg11", 32))
    with pytest.raises(ValueError, match=r"unet has no SAM weights to resize\. Leave image_size out"):
        train_model("unet", BackboneConfig("segmed-tiny", 512), data, Registry(tmp_path), tmp_path / "run")


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_atrous_rates_are_multiples_of_the_smallest(name: str) -> None:
    def rates(method: UnetFamily) -> set[int]:
        head = method.network.get_submodule("decoder")
        return {int(m.dilation[0]) for m in head.modules() if isinstance(m, torch.nn.Conv2d)} - {1}

    assert rates(built(name)) == {12, 24, 36}
    assert rates(built(name, atrous_rate=6)) == {6, 12, 18}
