"""Reading labelled images of many sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmed.data.datasets.training_pack import TrainingPack


def write_pack(folder: Path, per_source: int = 2) -> Path:
    """Three sources: grey slices with two labels, colour images of one label, cells that are instances."""
    rng = np.random.default_rng(0)
    entries = []
    y, x = np.mgrid[:96, :112]
    for source, modality, labels in (
        ("organs", "ct", {"1": "liver", "2": "vessel"}),
        ("polyps", "endoscopy", {"1": "polyp"}),
        ("cells", "microscopy", "instances"),
    ):
        (folder / source).mkdir(parents=True)
        for n in range(per_source):
            label = np.zeros(y.shape, np.uint8)
            label[(x - 40 - 3 * n) ** 2 + (y - 40) ** 2 < 20**2] = 1
            if source != "polyps":
                label[(x - 85) ** 2 + (y - 70) ** 2 < 12**2] = 2
            if source == "organs":
                label[(x - 85) ** 2 + (y - 20) ** 2 < 8**2] = 2  # a second part
            grey = (50 + 60 * label + rng.integers(0, 20, label.shape)).astype(np.uint8)
            image = np.stack([grey, grey // 2, grey // 3], -1) if source == "polyps" else grey
            Image.fromarray(image).save(folder / source / f"{n}.png")
            Image.fromarray(label).save(folder / source / f"{n}_label.png")
            entries.append(
                {
                    "id": f"{source}/{n}",
                    "source": source,
                    "modality": modality,
                    "labels": labels,
                    "image": f"{source}/{n}.png",
                    "label": f"{source}/{n}_label.png",
                }
            )
    (folder / "index.json").write_text(json.dumps(entries))
    return folder


def test_images_and_labels_by_source(tmp_path: Path) -> None:
    pack = TrainingPack(write_pack(tmp_path))
    assert len(pack) == 6
    assert sorted(pack.by_source()) == ["cells", "organs", "polyps"]
    organs = pack.by_source()["organs"][0]
    assert organs.image.shape == organs.labels.shape == (96, 112)
    assert organs.values == [1, 2]
    assert not organs.has_instances
    assert pack.by_source()["polyps"][0].image.shape == (96, 112, 3)
    assert pack.by_source()["cells"][0].has_instances


def test_parts_of_a_label_come_largest_first(tmp_path: Path) -> None:
    image = TrainingPack(write_pack(tmp_path)).by_source()["organs"][0]
    sizes = [int(image.part_mask(2, n).sum()) for n in range(len(image.parts(2)))]
    assert len(sizes) == 2
    assert sizes[0] > sizes[1]
    assert sum(sizes) == image.part_mask(2).sum()


def test_sources_are_held_out(tmp_path: Path) -> None:
    write_pack(tmp_path)
    assert sorted(TrainingPack(tmp_path, without=["cells"]).by_source()) == ["organs", "polyps"]
    assert sorted(TrainingPack(tmp_path, only=["cells"]).by_source()) == ["cells"]
    with pytest.raises(ValueError, match="not sources"):
        TrainingPack(tmp_path, without=["bones"])
    with pytest.raises(ValueError, match="Hold out fewer"):
        TrainingPack(tmp_path, without=["cells", "organs", "polyps"])


def test_folders_without_index_and_maps_of_other_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        TrainingPack(tmp_path)
    write_pack(tmp_path)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "organs" / "0_label.png")
    with pytest.raises(ValueError, match="must agree"):
        TrainingPack(tmp_path)
