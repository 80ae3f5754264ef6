"""The method that outlines detected boxes, with the weights that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segmed.methods import find_method
from segmed.methods.base.config_values import build_config
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trainable import TrainableSegmenter, load_trained
from segmed.methods.base.trained_facts import read_facts
from segmed.methods.sam.sharing import share_weights
from segmed.sam.weights import load_sam, weights_version

if TYPE_CHECKING:
    from transformers import SamModel

_TRAINED = "weights.safetensors"


def build_prompter(name: str, weights: str, model: SamModel, version: str) -> Segmenter:
    """Build a prompter.

    Args:
        name: Name of a promptable method.
        weights: SAM weights, or a folder of a trained version of this method; "" for those of `model`.
        model: The base weights.
        version: Version of the base weights.

    Raises:
        FileNotFoundError: If the weights do not exist.
        ValueError: If the weights are of another method, or do not fit the base weights.
    """
    method = find_method(name)
    assert method.build is not None
    if method.read:  # a method with weights of its own
        own, own_version = method.read(method.weights, None, torch.float32)
        return method.build(own.requires_grad_(False), own_version)
    if not weights:
        return method.build(model, version)
    if (Path(weights) / _TRAINED).is_file():
        return _trained_prompter(name, Path(weights), model)
    other = load_sam(weights)
    return method.build(other.requires_grad_(False), weights_version(other))


def _trained_prompter(name: str, folder: Path, model: SamModel) -> Segmenter:
    training = find_method(name).training
    assert training is not None
    base_version = weights_version(model)
    config = build_config(training.config, read_facts(folder)["config"])
    parts = ("mask_decoder.", *(("vision_encoder.",) if config.preset == "full" else ()))
    own = share_weights(model, [n for n, _ in model.named_parameters() if n.startswith(parts)])
    tuned: TrainableSegmenter = training.kind(own, config, base_version)
    load_trained(tuned, folder, base_version)
    return training.for_inference(tuned.eval().requires_grad_(False))
