"""A method as a MONAI bundle, which `python -m monai.bundle run` runs where SegMed is installed.

The bundle contains the base weights and the trained ones, so that it needs no other files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import segmed
from segmed.methods import find_method
from segmed.methods.base.segmenter import Segmenter

_BASE, _TRAINED = "base", "trained"  # in the folder models


@dataclass(frozen=True)
class Source:
    """Where the weights of a method come from.

    Attributes:
        method: Name of the method.
        version: Name of the trained version, "" for none.
        trained: Folder of its weights, or None.
        base: Folder or file of the base weights, or None for methods without.
        base_name: What the user calls them.
        facts: Lines of Markdown on training and scores, for the description of the export.
    """

    method: str
    version: str = ""
    trained: Path | None = None
    base: Path | None = None
    base_name: str = ""
    facts: tuple[str, ...] = ()


def write_bundle(segmenter: Segmenter, source: Source, folder: Path) -> None:
    """Write a bundle with weights, `configs/metadata.json` and `configs/inference.json`.

    Raises:
        OSError: The weights cannot be copied.
    """
    from segmed.inference.runtimes.model_card import write_model_card

    models, configs = folder / "models", folder / "configs"
    models.mkdir()
    configs.mkdir()
    base = trained = None
    if source.base is not None:
        target = models / _BASE if source.base.is_dir() else models / f"{_BASE}{source.base.suffix}"
        (shutil.copytree if source.base.is_dir() else shutil.copyfile)(source.base, target)
        base = f"$@bundle_root + '/models/{target.name}'"
    if source.trained is not None:
        shutil.copytree(source.trained, models / _TRAINED)
        trained = f"$@bundle_root + '/models/{_TRAINED}'"
    inference = {
        "bundle_root": ".",
        "image": "image.nii.gz",
        "box": None,
        "points": None,
        "output": "mask.nii.gz",
        "volume": False,
        "device": "cpu",
        "segment": {
            "_target_": "segmed.inference.runtimes.bundle.BundleSegmenter",
            "method": source.method,
            "base": base,
            "trained": trained,
            "device": "@device",
        },
        "run": ["$@segment(@image, @output, @box, @points, @volume)"],
    }
    inputs = {"type": "image", "format": "any", "num_channels": 1, "spatial_shape": ["*", "*", "*"]}
    outputs = {"type": "image", "format": "segmentation", "num_channels": 1, "spatial_shape": ["*", "*", "*"]}
    versions = {name: metadata.version(name) for name in ("monai", "torch", "numpy")}
    described: dict[str, Any] = {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": segmed.__version__,
        "changelog": {segmed.__version__: f"exported from {source.version or 'the untrained method'}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"segmed": segmed.__version__},
        "name": f"SegMed {source.method}",
        "task": "Interactive segmentation",
        "description": find_method(source.method).title,
        "authors": "SegMed",
        "copyright": "of the base weights and the training data",
        "network_data_format": {
            "inputs": {"image": {**inputs, "modality": "any", "value_range": [0, 255]}},
            "outputs": {"pred": {**outputs, "value_range": [0, 1], "channel_def": {"0": "mask"}}},
        },
    }
    for name, content in (("inference", inference), ("metadata", described)):
        (configs / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_model_card(segmenter, source, "bundle", folder)


class BundleSegmenter:
    """What the configuration of a bundle builds: an image file and prompts to a mask file.

    Args:
        method: Name of the method.
        base: Folder or file of base weights, or None for methods without.
        trained: Folder of trained weights, or None.
        device: Such as `cpu` or `cuda:0`.
    """

    def __init__(
        self, method: str, base: str | None = None, trained: str | None = None, device: str = "cpu"
    ) -> None:
        from segmed.imaging.store import ByteBoundedStore
        from segmed.inference.loading import Loader
        from segmed.inference.predictor import Predictor
        from segmed.methods.base.backbone import BackboneConfig

        segmenter = Loader().get(
            method, BackboneConfig(base or ""), device, Path(trained) if trained else None
        )
        self.predictor = Predictor(segmenter, ByteBoundedStore(2**30))

    def __call__(
        self,
        image: str,
        output: str,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        volume: bool = False,
    ) -> str:
        """Segment an image.

        Args:
            image: File of the image.
            output: Mask to write, such as mask.nii.gz.
            box: i0, i1, j0, j1, k0, k1 in voxels.
            points: Clicks into the object, i, j, k each.
            volume: Whether to follow the object through the volume.

        Returns:
            Path of the mask; without box and points, the labels of a method that needs no prompt.

        Raises:
            ValueError: The image or the prompt cannot be used.
        """
        from segmed.imaging.labels.masks import stack_slices, write_mask
        from segmed.imaging.picture import open_picture
        from segmed.imaging.prompts import parse_prompt

        picture = open_picture(image)
        if box is None and not points:
            labels = self.predictor.segment_classes(picture)
        else:
            prompt, _ = parse_prompt(picture.shape, box, points or [], [])
            segment = self.predictor.segment_volume if volume else self.predictor.segment_slices
            labels = stack_slices(segment(picture, prompt), picture.shape)
        write_mask(labels, picture.affine, output, like=image)
        return output
