"""Candidates of a training job: untrained methods on base weights, and comparison with the served version."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import CaseScore
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.config_values import build_config
from segmed.methods.base.method import Method
from segmed.methods.base.trainable import TrainableSegmenter, load_trained
from segmed.methods.base.trained_facts import read_facts
from segmed.registry.model_version import ModelVersion
from segmed.registry.versions import UNTRAINED
from segmed.training.validation import validate

logger = logging.getLogger(__name__)


def build_trainable(
    method: Method,
    backbone: BackboneConfig,
    settings: Mapping[str, Any],
    data: SliceDataset,
    device: str,
    seed: int = 0,
) -> tuple[TrainableSegmenter, str]:
    """Build an untrained method on base weights of its own; also returns their version or "".

    Raises:
        ValueError: If the method cannot be trained, lacks weights that it needs, or does not know a setting.
        FileNotFoundError: If weights do not exist.
    """
    training = method.training
    if training is None:
        raise ValueError(
            f"{method.name} does not learn from data. Train one of the methods that `segmed info` lists as "
            "trainable."
        )
    source = backbone.source or method.weights
    if not method.needs_backbone and backbone.image_size:
        raise ValueError(
            f"{method.name} has no SAM weights to resize. Leave image_size out and set its input_size."
        )
    if method.needs_backbone and not source:
        raise ValueError(f"{method.name} needs SAM weights. Name them with --backbone or --conf backbone.")
    known = {f.name for f in fields(training.config)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"{method.name} does not know {unknown[0]!r}; allowed are {', '.join(sorted(known))}."
        )
    labels = {"labels": tuple(data.classes.values())} if "labels" in known else {}
    base, version = None, ""
    if method.needs_backbone:
        if method.read:
            base, version = method.read(source, backbone.image_size, torch.float32)
        else:
            from segmed.sam.weights import load_sam, weights_version  # transformers takes seconds to import

            base = load_sam(source, backbone.image_size)
            version = weights_version(base)
        base.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # new heads are initialised at random
        built = training.kind(base, build_config(training.config, {**labels, **settings}), version)
    return built.to(device), version


def scores_of_served(
    method: Method,
    backbone: BackboneConfig,
    served: ModelVersion | None,
    candidate: TrainableSegmenter,
    version: str,
    held_out: SliceDataset,
    prompted: bool,
    device: str,
) -> tuple[CaseScore, ...]:
    """Score the served version on the same cases and prompts, or the first rival if none fits."""
    rival = candidate
    if served:
        try:
            settings = vars(build_config(type(candidate.config), read_facts(served.folder)["config"]))
            rival, _ = build_trainable(method, backbone, settings, held_out, device)
            load_trained(rival, served.folder, version)
        except (ValueError, FileNotFoundError) as error:
            logger.warning(
                "The served version cannot be compared; %s is used instead: %s", first_rival(candidate), error
            )
            rival = candidate
    held_out = held_out.with_object() if prompted else held_out
    try:
        scores = validate(rival, held_out, prompted).scores
    except ValueError as error:  # the served version was trained for other structures
        logger.warning(
            "The served version cannot be compared; %s is used instead: %s", first_rival(candidate), error
        )
        rival, scores = candidate, validate(candidate, held_out, prompted).scores
    if rival is not candidate or candidate.segments_untrained:
        return scores
    return tuple(
        replace(s, dice=float(not s.present), hd95=math.inf if s.present else 0.0, nsd=float(not s.present))
        for s in scores
    )


def first_rival(candidate: TrainableSegmenter) -> str:
    """The rival of a first version; untrained heads would find structures at random."""
    return UNTRAINED if candidate.segments_untrained else "a model that finds nothing"


def lost_structures(candidate: TrainableSegmenter, served: ModelVersion) -> tuple[str, ...]:
    """Structures of the served version that the candidate does not know; () for methods with prompts."""
    mine = {name.casefold() for name in getattr(candidate.config, "labels", ())}
    theirs = read_facts(served.folder)["config"].get("labels", ())
    return tuple(name for name in theirs if name.casefold() not in mine)


def take_over(candidate: TrainableSegmenter, served: ModelVersion, version: str) -> bool:
    """Load the served weights if they have the same settings, and return whether they do."""
    try:
        load_trained(candidate, served.folder, version)
    except (ValueError, FileNotFoundError) as error:
        logger.info("Training starts from the base weights: %s", error)
        return False
    return True
