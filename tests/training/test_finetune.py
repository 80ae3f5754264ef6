"""Fine-tuning learns what its recipe trains, leaves the other weights alone, and can be replayed exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from segmed.data.slices import SliceDataset
from segmed.evaluation.metrics import Overlap
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.trainable import TrainableSegmenter
from segmed.methods.sam.decoder_tuning import DecoderTuning, DecoderTuningConfig
from segmed.sam.embedding import Embedding
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
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
