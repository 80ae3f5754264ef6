"""What a training shows to its method: slices, prompts, class maps and labels, each at its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from recorder import Recorder
from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.methods.base.trainable import Recipe
from segmed.sam.frame import Frame
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.targets import class_places, fit_labels
from small_training import tuned


def test_prompts_show_the_union_or_one_label(discs: SliceDataset) -> None:
    method = Recorder(Recipe({"": 1e-3}, "dice_bce"))
    Finetuning(method, discs, FinetuneConfig(steps=30, batch=4)).run()
    kinds = set()
    for images, prompts, truth, _ in method.seen:
        assert images.shape[1:] == (3, 32, 32)
        assert truth.shape == (len(images), 1, 32, 32)
        assert prompts is not None
        for (prompt,), mask in zip(prompts, truth[:, 0], strict=True):
            y, x = mask.nonzero().T
            assert prompt.box is not None
            moves = np.array(prompt.box) - [x.min(), y.min(), x.max(), y.max()]
            assert np.abs(moves).max() <= 0.2 * 32
            kinds.add(round(float(mask.sum()) / 32**2, 1))
    assert [round(progress, 2) for *_, progress in method.seen[:3]] == [0.0, 0.03, 0.07]
    areas = {round(float(np.isin(discs[1].labels, on).mean()), 1) for on in ([1], [2], [1, 2])}
    assert areas <= kinds
    # six slices with an object, in two batches of three
    assert {len(images) for images, *_ in method.seen} == {3}


def test_class_maps_go_without_prompts(discs: SliceDataset) -> None:
    method = Recorder(Recipe({"": 1e-3}, "dice_ce", prompted=False))
    Finetuning(method, discs, FinetuneConfig(steps=2, batch=4)).run()
    assert all(prompts is None for _, prompts, _, _ in method.seen)
    truth = torch.cat([truth for _, _, truth, _ in method.seen])
    assert truth.shape == (8, 1, 32, 32)
    assert truth.dtype == torch.long
    assert sorted(truth.flatten(1).amax(1).tolist()) == [0, 0, 2, 2, 2, 2, 2, 2]
    forced = Recorder(Recipe({"": 1e-3}, "dice_ce", prompted=False))
    Finetuning(forced, discs, FinetuneConfig(steps=1, prompted=True)).run()
    assert forced.seen[0][1] is not None


def test_every_slice_is_seen_once_per_epoch(discs: SliceDataset) -> None:
    method = Recorder(Recipe({"": 1e-3}, "dice_ce", epochs=2, prompted=False))
    training = Finetuning(method, discs, FinetuneConfig(batch=3))
    assert training.steps == 2 * 3
    training.run()
    sums = [float(image.sum()) for images, *_ in method.seen for image in images]
    assert len(set(sums[:8])) == 8
    assert sorted(sums[:8]) == sorted(sums[8:])
    assert sums[:8] != sums[8:]


def test_nothing_to_learn_from(discs: SliceDataset) -> None:
    empty = SliceDataset(discs.volumes, discs.classes, slices=[(0, 0), (1, 0)])
    with pytest.raises(ValueError, match="no slice with a labelled object"):
        Finetuning(tuned(), empty)


def test_labels_lie_where_the_image_lies() -> None:
    labels = np.zeros((20, 40), np.uint8)
    labels[10:, 20:] = 3
    padded = fit_labels(labels, Frame(20, 40, 32, keep_aspect=True))
    assert padded.shape == (32, 32)
    assert torch.equal(padded.nonzero().amin(0), torch.tensor([8, 16]))
    assert padded[:16].count_nonzero() == 8 * 16 == padded.count_nonzero()
    stretched = fit_labels(labels, Frame(20, 40, 32))
    assert stretched.count_nonzero() == 16 * 16
    speck = np.zeros((200, 100), np.uint8)
    speck[151, 99] = 2
    small = fit_labels(speck, Frame(200, 100, 10))
    assert small.nonzero().tolist() == [[7, 9]]
    assert small.max() == 2


def test_augmented_slices_are_encoded_anew(discs: SliceDataset) -> None:
    asked: list[tuple[int, ...]] = []

    def darker(sample: LabelledSlice, *seed: int) -> LabelledSlice:
        asked.append(seed)
        return replace(
            sample, image=sample.image // 2, labels=sample.labels * (sample.patient != discs.patients[0])
        )

    method = Recorder(Recipe({"": 1e-3}, "dice_bce"))
    Finetuning(method, discs, FinetuneConfig(epochs=2, batch=6, seed=3), augment=darker).run()
    assert sorted(asked) == [(3, epoch, n) for epoch in range(2) for n in range(6)]
    brightest = sorted(float(image.max()) for images, *_ in method.seen for image in images)
    # slices that lost their object are taken as they were
    assert brightest[5] < 0.6 < brightest[6]
    assert not Finetuning(tuned(), discs, FinetuneConfig(steps=1), augment=darker).encoder.frozen


def test_slices_that_wait_do_not_hold_their_volumes(discs: SliceDataset) -> None:
    training = Finetuning(tuned(), discs, FinetuneConfig(steps=1))
    assert training.data[1].labels.base is not None
    waiting = training.reader._load(1)
    assert waiting.image.base is None and waiting.labels.base is None
    assert np.array_equal(waiting.labels, training.data[1].labels)


def test_classes_are_found_by_their_names(discs: SliceDataset) -> None:
    method = Recorder(Recipe({"": 1e-3}, "dice_ce", prompted=False))
    method.labels = ("dark", "cloud", "bright")
    assert class_places(method, discs.classes)[:4].tolist() == [0, 3, 1, 0]
    Finetuning(method, discs, FinetuneConfig(steps=1)).run()
    assert sorted(method.seen[0][2].unique().tolist()) == [0, 1, 3]
    method.labels = ("dark",)
    with pytest.raises(ValueError, match="has the label 'bright', but the classes of the method are dark"):
        Finetuning(method, discs)
