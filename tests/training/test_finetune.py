"""Fine-tuning: it learns what the recipe says, leaves the rest alone, and is replayable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.evaluation.metrics import Overlap
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.sam.decoder_tuning import DecoderTuning, DecoderTuningConfig
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.training.finetune import Finetuning, LossNotFinite, rate_factor
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.targets import class_places, fit_labels
from small_training import tuned
from torch import Tensor, nn
from transformers import SamConfig, SamModel


def _state(method: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}


def _mean_dice(method: TrainableSegmenter, data: SliceDataset) -> float:
    dice = []
    for sample in map(data.__getitem__, range(len(data))):
        truth = sample.labels == 1
        y, x = np.nonzero(truth)
        box = float(x.min()), float(y.min()), float(x.max()), float(y.max())
        with torch.inference_mode():
            masks = method.decode(method.embed([sample.image]), [[SlicePrompt(box=box)]], truth.shape).masks
        dice.append(Overlap.of((masks[0, 0] > 0).numpy(), truth).dice())
    return float(np.mean(dice))


class Recorder(TrainableSegmenter):
    """Trains one number; keeps what it was asked."""

    name = "recorder"
    input_size = 32

    def __init__(
        self, recipe: Recipe, loss: Callable[[Tensor], Tensor] = lambda weight: weight * 0 + 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.recipe, self._loss = recipe, loss
        self.seen: list[tuple[Tensor, Sequence[Sequence[SlicePrompt]] | None, Tensor, float]] = []

    def trained_names(self) -> list[str]:
        return ["weight"]

    def encode(self, images: Tensor) -> Embedding:
        raise NotImplementedError

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        raise NotImplementedError

    def loss(
        self,
        images: Tensor,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        self.seen.append((images, prompts, truth, progress))
        return self._loss(self.weight)


def test_it_learns(discs: SliceDataset) -> None:
    method = tuned("full", rates={"": 3e-3})
    data = discs.with_object()
    dice = _mean_dice(method.eval(), data)
    losses = Finetuning(method, discs, FinetuneConfig(steps=100, batch=6, one_label_share=1)).run()
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert _mean_dice(method, data) > max(0.7, dice + 0.3)
    assert not method.training


def test_only_the_decoder_changes(discs: SliceDataset) -> None:
    method = tuned("brats")
    before, trained = _state(method), set(method.trained_names())
    Finetuning(method, discs, FinetuneConfig(steps=2, batch=6)).run()
    after = _state(method)
    assert all(torch.equal(after[name], before[name]) for name in after if name not in trained)
    moved = [name for name in trained if not torch.equal(after[name], before[name])]
    assert any("transformer.layers.0.self_attn.q_proj" in name for name in moved)
    assert any("output_hypernetworks_mlps.0" in name for name in moved)
    assert all(name.startswith("model.mask_decoder.") for name in trained)
    assert not any("iou_prediction_head" in name for name in trained)


def test_the_encoder_runs_once_per_slice_when_it_does_not_train(
    discs: SliceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = DecoderTuning.encode

    def noted(self: DecoderTuning, images: Tensor) -> Embedding:
        seen.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(DecoderTuning, "encode", noted)
    config = FinetuneConfig(steps=8, batch=3)
    kept, anew = tuned("brats"), tuned("brats")
    losses = Finetuning(kept, discs, config).run()
    assert sum(seen) == 6
    other = Finetuning(anew, discs, replace(config, cache_bytes=0)).run()
    assert losses == pytest.approx(other, abs=1e-3)
    # a cache that is too small for all still gives the right embeddings
    few = Finetuning(tuned("brats"), discs, replace(config, cache_bytes=3 * (32 * 16 * 2 + 16))).run()
    assert few == pytest.approx(losses, abs=1e-6)


def test_full_tuning_trains_the_encoder(discs: SliceDataset) -> None:
    method = tuned("full")
    before = _state(method)
    training = Finetuning(method, discs, FinetuneConfig(steps=2, batch=2))
    assert not training.encoder.frozen
    training.run()
    name = "model.vision_encoder.neck.conv1.weight"
    assert not torch.equal(_state(method)[name], before[name])
    positions = "model.shared_image_embedding.positional_embedding"
    assert torch.equal(_state(method)[positions], before[positions])


def test_the_seed_decides_everything(discs: SliceDataset) -> None:
    noise = torch.get_rng_state()
    states: list[Tensor] = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed * len(states))  # what was drawn before must not matter
        method = tuned()
        outside = torch.get_rng_state()
        Finetuning(method, discs, FinetuneConfig(steps=3, batch=2, seed=seed)).run()
        assert torch.equal(torch.get_rng_state(), outside)
        states.append(torch.cat([t.flatten() for t in _state(method).values()]))
    torch.set_rng_state(noise)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_gradients_are_clipped(discs: SliceDataset) -> None:
    method = tuned()
    Finetuning(method, discs, FinetuneConfig(steps=1, batch=2, clip=1e-3)).run()
    gradients = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
    assert torch.cat(gradients).norm() == pytest.approx(1e-3, rel=1e-2)


def test_bf16_keeps_the_weights_in_single_precision(discs: SliceDataset) -> None:
    method = tuned()
    losses = Finetuning(method, discs, FinetuneConfig(steps=2, batch=2, bf16=True)).run()
    assert all(math.isfinite(loss) for loss in losses)
    assert {p.dtype for p in method.parameters()} == {torch.float32}


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


def test_rates_of_the_recipe(discs: SliceDataset) -> None:
    method = tuned(
        rates={"": 1e-4, "model.mask_decoder.transformer.": 1e-2}, optimiser="adamw", weight_decay=0.3
    )
    training = Finetuning(method, discs, FinetuneConfig(steps=1))
    assert isinstance(training.optimiser, torch.optim.AdamW)
    rates = {id(p): g["lr"] for g in training.optimiser.param_groups for p in g["params"]}
    decoder = method.model.mask_decoder
    assert rates[id(decoder.transformer.layers[0].mlp.lin1.weight)] == 1e-2
    assert rates[id(decoder.mask_tokens.weight)] == 1e-4
    assert {g["weight_decay"] for g in training.optimiser.param_groups} == {0.3}
    with pytest.raises(ValueError, match=r"no learning rate for 'model\.mask_decoder"):
        Finetuning(tuned(rates={"gafl.": 1.0}), discs)


def test_schedules() -> None:
    constant, linear = Recipe({"": 1.0}), Recipe({"": 1.0}, schedule="linear")
    assert {rate_factor(constant, step, 10) for step in range(10)} == {1.0}
    assert (rate_factor(linear, 0, 10), rate_factor(linear, 10, 10)) == (1.0, pytest.approx(1e-3))
    poly = Recipe({"": 1.0}, schedule="poly", warmup=10)
    assert [rate_factor(poly, step, 100) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rate_factor(poly, 60, 100) == pytest.approx(0.5**0.9)
    # a warm-up longer than the run would never end
    assert rate_factor(poly, 2, 20) == 1.0


def test_the_plateau_schedule_halves_the_rate(discs: SliceDataset) -> None:
    for loss, halvings in ((lambda w: w * 0 + 1, 1), (lambda w: w, 0)):
        method = Recorder(Recipe({"": 1e-3}, "dice_bce", schedule="plateau"), loss)
        training = Finetuning(method, discs, FinetuneConfig(epochs=8, batch=3))
        training.run()
        assert training.optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 / 2**halvings)


def test_a_loss_that_is_not_finite_stops(discs: SliceDataset) -> None:
    method = Recorder(Recipe({"": 1e-3}), lambda weight: weight * math.nan)
    with pytest.raises(LossNotFinite, match=r"step 1 is nan.*lower learning rate"):
        Finetuning(method, discs).run()
    # the loss is 0 and its gradient infinite
    steep = Recorder(Recipe({"": 1e-3}), lambda weight: (weight - weight.detach()).abs().sqrt())
    with pytest.raises(LossNotFinite, match="gradient of step 1 has the norm"):
        Finetuning(steep, discs).run()
    assert steep.weight == 1


def test_nothing_to_learn_from(discs: SliceDataset) -> None:
    empty = SliceDataset(discs.volumes, discs.classes, slices=[(0, 0), (1, 0)])
    with pytest.raises(ValueError, match="no slice with a labelled object"):
        Finetuning(tuned(), empty)


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"batch": 0}, {"epochs": -1}, {"clip": 0}, {"one_label_share": 2}]
)
def test_settings_that_make_no_sense(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        FinetuneConfig(**changes)  # type: ignore[arg-type]


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


def test_presets_train_what_was_published() -> None:
    with torch.device("meta"):
        model = SamModel(SamConfig())
    head = sum(p.numel() for p in model.mask_decoder.iou_prediction_head.parameters())
    for preset, published in (("brats", 4_058_340), ("segmed", 4_058_340), ("full", 93_729_252)):
        method = DecoderTuning(model, DecoderTuningConfig(preset))  # type: ignore[arg-type]
        method.prepare_training()
        count = sum(p.numel() for p in method.parameters() if p.requires_grad)
        assert count + head == published, preset
    with pytest.raises(ValueError, match=r"'tiny' is unknown. Choose from brats, segmed, full"):
        DecoderTuningConfig("tiny")  # type: ignore[arg-type]


def test_saturated_pixels_keep_their_gradient() -> None:
    """Logits of ±50 are certain as probabilities, but training must be able to turn them."""
    method = tuned()
    with torch.no_grad():
        last = method.model.mask_decoder.output_hypernetworks_mlps[0].proj_out
        last.bias.mul_(0).add_(1e4)
    prompts = [[SlicePrompt(box=(4.0, 4.0, 20.0, 20.0))]]
    method.prepare_training()
    gradients = []
    for mode in (True, False):
        method.train(mode)
        last.bias.grad = None
        logits = method.decode(method.encode(torch.rand(1, 3, 32, 32)), prompts, (32, 32)).masks
        assert logits.abs().max() > 13
        nn.functional.binary_cross_entropy_with_logits(logits, (logits < 0).float()).backward()
        gradients.append(float(last.bias.grad.abs().sum()))
    assert gradients[0] > 100 * gradients[1]


def test_a_batch_in_parts_is_the_same_batch(discs: SliceDataset) -> None:
    """Also when memory runs out in between, on either kind of device."""
    config = FinetuneConfig(steps=3, batch=6, one_label_share=1)
    states = []
    for micro in (None, 4, 1):
        method = tuned()
        losses = Finetuning(method, discs, replace(config, micro=micro)).run()
        states.append((losses, method.weight_vector()))
    for losses, state in states[1:]:
        assert losses == pytest.approx(states[0][0], rel=1e-4)
        assert torch.allclose(state, states[0][1], atol=1e-5)
    for error in (
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried"),
    ):
        method = tuned()
        method.most, method.error = 2, error
        training = Finetuning(method, discs, config)
        assert training.run() == pytest.approx(states[0][0], rel=1e-4)
        assert training.micro == 2
        assert torch.allclose(method.weight_vector(), states[0][1], atol=1e-5)
    method.most = 0
    with pytest.raises(ValueError, match=r"Memory ran out with 1 slices at a time.*smaller"):
        Finetuning(method, discs, config).run()
    method.most, method.error = 2, RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        Finetuning(method, discs, config).run()


def test_activations_can_be_computed_twice(discs: SliceDataset) -> None:
    config = FinetuneConfig(steps=2, batch=3)
    plain, checkpointed = tuned("full"), tuned("full")
    losses = Finetuning(plain, discs, config).run()
    calls: list[int] = []
    layer = checkpointed.model.vision_encoder.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    training = Finetuning(checkpointed, discs, replace(config, checkpointing=True))
    calls.clear()
    assert training.run() == pytest.approx(losses, abs=1e-6)
    assert len(calls) == 2 * 2
    assert torch.allclose(plain.weight_vector(), checkpointed.weight_vector(), atol=1e-6)


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


def test_it_goes_on_from_any_step(discs: SliceDataset) -> None:
    config = FinetuneConfig(epochs=2, batch=2, one_label_share=1)
    straight = tuned("brats", schedule="plateau")
    losses = Finetuning(straight, discs, config).run()
    first = Finetuning(tuned("brats", schedule="plateau"), discs, config)
    first.train_epoch(stop=lambda: first.step == 1)
    assert first.step == 2
    again = tuned("brats", schedule="plateau")
    second = Finetuning(again, discs, config)
    second.restore(first.state())
    assert second.run() == losses
    assert torch.equal(again.weight_vector(), straight.weight_vector())
