"""A small method and data for tests of training: bright and dark discs, told apart in a few steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from segmed.data.datasets.msd import load_msd
from segmed.data.slices import SliceDataset
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.sam.decoder_tuning import DecoderTuning, DecoderTuningConfig
from segmed.sam.embedding import Embedding
from segmed.sam.tiny import initialised, tiny_config
from torch import Tensor
from transformers import SamModel


def make_discs(root: Path, volumes: int = 2, first: int = 0) -> SliceDataset:
    """Volumes with a bright disc (1) and beside it a dark one (2) on three of four slices."""
    pairs = []
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    y, x = np.mgrid[:40, :36]
    for n in range(first, first + volumes):
        rng = np.random.default_rng(n)
        labels = np.zeros((40, 36, 4), np.uint8)
        for k in range(1, 4):
            centre = rng.integers(12, 20, 2)
            labels[..., k][(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 60] = 1
            labels[..., k][(y - centre[0] - 16) ** 2 + (x - centre[1] - 12) ** 2 <= 30] = 2
        grey = np.array([100, 200, 30])[labels] + rng.normal(0, 8, labels.shape)
        for part, array in (("imagesTr", grey.astype(np.float32)), ("labelsTr", labels)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / part / f"v{n}.nii.gz")
        pairs.append({"image": f"imagesTr/v{n}.nii.gz", "label": f"labelsTr/v{n}.nii.gz"})
    (root / "dataset.json").write_text(
        json.dumps({"labels": {"1": "bright", "2": "dark"}, "training": pairs})
    )
    return load_msd(root)


def small_sam(seed: int = 0) -> SamModel:
    shape = tiny_config(
        image_size=32, hidden=32, layers=2, heads=2, width=32, stem_channels=(), stem_depths=()
    )
    return initialised(shape, seed)


class SmallTuning(DecoderTuning):
    """Fails with `error` where more than `most` slices come at once."""

    most = 10**9
    error: Exception = RuntimeError()

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        if len(truth) > self.most:
            raise self.error
        return super().loss_from(embedding, prompts, truth, progress)

    def weight_vector(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters()])


def tuned(preset: str = "segmed", **changes: object) -> SmallTuning:
    """The same weights each time; `changes` are those of the recipe."""
    method = SmallTuning(small_sam(), DecoderTuningConfig(preset))  # type: ignore[arg-type]
    method.recipe = replace(method.recipe, **changes)  # type: ignore[arg-type]
    return method
