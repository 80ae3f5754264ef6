"""Detector and prompts: boxes are learnt, chosen, and outlined; nothing detected is an empty mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segmed.imaging.picture import Picture
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.predictor import Predictor
from segmed.methods.base.trainable import load_trained, save_trained
from segmed.methods.detector.detection import ARCHITECTURES, boxes_of, build_torchvision, select
from segmed.methods.detector.detector import DetectorConfig, DetectorSegmenter
from tiny_sam import tiny_sam
from torch import Tensor, nn

SIDE = 64
SMALL = DetectorConfig(("disc", "bar"), image_size=SIDE, prompter="medsam", confidence=0.5)


class Told(nn.Module):
    """Finds what it was told."""

    def __init__(self, *rows: tuple[float, float, float, float, int, float]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(rows).reshape(-1, 6), requires_grad=False)

    def forward(self, images: list[Tensor], targets: object = None) -> list[dict[str, Tensor]]:
        boxes, labels, scores = self.table[:, :4], self.table[:, 4].long(), self.table[:, 5]
        return [{"boxes": boxes, "labels": labels, "scores": scores} for _ in images]


def _chain(
    *rows: tuple[float, float, float, float, int, float], config: DetectorConfig = SMALL
) -> DetectorSegmenter:
    chain = DetectorSegmenter(tiny_sam(image_size=SIDE), config).eval()
    chain.detector = Told(*rows)
    return chain


def _slice(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (50, 60), dtype=np.uint8)


def test_boxes_around_the_pieces_of_each_label() -> None:
    labels = np.zeros((40, 50), np.uint8)
    labels[5:10, 6:20] = 1
    labels[10, 20] = 1  # touches by a corner
    labels[20:30, 30:33] = 2
    labels[35, 2:4] = 2  # too small
    found = boxes_of(labels, 5)
    assert found["boxes"].tolist() == [[6, 5, 21, 11], [30, 20, 33, 30]]
    assert found["labels"].tolist() == [1, 2]
    assert boxes_of(np.zeros((9, 9), np.uint8), 1)["boxes"].shape == (0, 4)


def test_the_best_boxes_are_kept() -> None:
    rows = [
        (0, 0, 10, 10, 1, 0.9),
        (0, 0, 10, 9, 1, 0.8),  # the same object
        (0, 0, 10, 9, 2, 0.7),  # another class at the same place
        (20, 20, 90, 90, 1, 0.6),  # beyond the picture
        (30, 5, 30.4, 9, 1, 0.6),  # a line
        (40, 40, 49, 49, 1, 0.2),  # unsure
    ]
    table = torch.tensor(rows)
    found = {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]}
    boxes = select(found, (50, 60), confidence=0.25, overlap=0.45, most=5)
    assert boxes.corners.tolist() == [[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 60, 50]]
    assert boxes.labels.tolist() == [1, 2, 1]
    assert len(select(found, (50, 60), 0.25, 0.45, 1)) == 1


@torch.no_grad()
def test_masks_are_those_of_the_boxes_as_prompts() -> None:
    chain = _chain((5, 8, 25, 30, 1, 0.9), (30, 10, 50, 40, 2, 0.8), (30, 4, 58, 14, 2, 0.7))
    image = _slice()
    logits = chain.decode(chain.embed([image]), None, image.shape).masks[0]
    colour = np.repeat(image[:, :, None], 3, axis=2)
    from segmed.imaging.prompts import SlicePrompt

    def alone(*box: float) -> Tensor:
        seen = chain.prompter.embed([colour])
        return chain.prompter.decode(seen, [[SlicePrompt(box=box)]], image.shape).masks[0, 0]  # type: ignore[arg-type]

    assert torch.allclose(logits[1], alone(5, 8, 24, 29).clamp(min=-20), atol=1e-4)
    union = torch.maximum(alone(30, 10, 49, 39), alone(30, 4, 57, 13))
    assert torch.allclose(logits[2], union.clamp(min=-20), atol=1e-4)
    assert not logits[0].any()


@torch.no_grad()
def test_boxes_are_widened_within_the_slice() -> None:
    config = DetectorConfig(("disc", "bar"), image_size=SIDE, prompter="medsam", margin=1024 / 60 * 4)
    chain = _chain((2, 8, 25, 48, 1, 0.9), config=config)
    embedding = chain.embed([_slice()])
    assert chain._prompt_boxes(chain.detect(embedding)[0], embedding.frame) == [(0, 4, 28, 49)]


@torch.no_grad()
def test_nothing_detected_is_an_empty_mask() -> None:
    chain = _chain((5, 8, 25, 30, 1, 0.1))
    array = np.stack([_slice(n).T for n in range(3)], axis=2)
    array[:, :, 1] = 7  # blank
    picture = Picture(array, np.eye(4), "noise", "auto")
    predictor = Predictor(chain, ByteBoundedStore(2**24))
    assert not predictor.segment_classes(picture).any()
    assert [len(b) for b in predictor.boxes(picture)] == [0, 0, 0]
    chain.detector = Told((5, 8, 25, 30, 2, 0.9))
    assert [len(b) for b in predictor.boxes(picture)] == [1, 0, 1]
    found = predictor.segment_classes(picture)
    assert set(np.unique(found[:, :, [0, 2]])) <= {0, 2} and not found[:, :, 1].any()


def test_only_the_detector_trains_and_is_saved(tmp_path: Path) -> None:
    chain = DetectorSegmenter(tiny_sam(image_size=SIDE), SMALL)
    chain.prepare_training()
    assert {n.split(".")[0] for n, p in chain.named_parameters() if p.requires_grad} == {"detector"}
    save_trained(chain, tmp_path, "base")
    torch.manual_seed(5)
    other = DetectorSegmenter(tiny_sam(image_size=SIDE), SMALL)
    load_trained(other, tmp_path, "base")
    embedding = chain.eval().embed([_slice()])
    first, second = (c.detector([embedding.features[0] / 255.0])[0] for c in (chain, other.eval()))
    assert torch.equal(first["boxes"], second["boxes"]) and torch.equal(first["scores"], second["scores"])


def _drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[(x - rng.integers(12, 30)) ** 2 + (y - rng.integers(16, 48)) ** 2 < 64] = 1
    left, top = rng.integers(38, 48), rng.integers(6, 30)
    labels[top : top + 24, left : left + 9] = 2
    image = np.choose(labels, (40, 200, 120)) + rng.normal(0, 8, labels.shape)
    return image.clip(0, 255).astype(np.uint8), labels


def test_boxes_are_learnt() -> None:
    torch.manual_seed(0)
    chain = DetectorSegmenter(tiny_sam(image_size=SIDE), replace(SMALL, confidence=0.2))
    chain.prepare_training()
    chain.train()
    drawn = [_drawn(n) for n in range(4)]
    embedding = chain.embed([image for image, _ in drawn])
    truth = torch.from_numpy(np.stack([labels for _, labels in drawn]))[:, None].long()
    optimiser = torch.optim.AdamW([p for p in chain.parameters() if p.requires_grad], 1e-3)
    losses = []
    for _ in range(15):
        loss = chain.loss_from(embedding, None, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


@pytest.mark.parametrize("architecture", ["retinanet_resnet50", "fasterrcnn_mobilenet"])
def test_other_architectures_give_losses_and_boxes(architecture: str) -> None:
    network = build_torchvision(architecture, 2, SIDE)
    image, labels = _drawn(0)
    picture = torch.from_numpy(image).float().expand(3, -1, -1) / 255
    assert all(v.isfinite() for v in network([picture], [boxes_of(labels, 5)]).values())
    assert set(network.eval()([picture])[0]) == {"boxes", "labels", "scores"}
    assert architecture in ARCHITECTURES


def test_yolo_is_called_in_the_same_way() -> None:
    pytest.importorskip("ultralytics", reason="the extra ultralytics is not installed: requirements-yolo.txt")
    from segmed.methods.detector.yolo import build_yolo

    torch.manual_seed(0)
    network = build_yolo("yolov8n.yaml", 2, SIDE)
    drawn = [_drawn(n) for n in range(2)]
    pictures = [torch.from_numpy(image[:, :50]).float().expand(3, -1, -1) / 255 for image, _ in drawn]
    targets = [boxes_of(labels[:, :50], 5) for _, labels in drawn]
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        loss = torch.stack(list(network(pictures, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    found = network.eval()(pictures)
    assert found[0]["boxes"].shape[1] == 4 and set(found[0]["labels"].tolist()) <= {1, 2}
    assert found[0]["scores"].min() >= 0 and found[0]["scores"].max() <= 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"architecture": "ssd"}, "allowed are fcos"),
        ({"prompter": "lora"}, "are segmed"),
        ({"confidence": 1.0}, "not allowed"),
    ],
)
def test_settings_that_cannot_be_used(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DetectorConfig(("disc",), **wrong)  # type: ignore[arg-type]
