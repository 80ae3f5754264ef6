"""The models `auto` and `detector`: boxes over slices, where they lie in the patient, and what the viewers
get."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch
from running import Start
from segmed.data.phantom import Phantom
from segmed.imaging.picture import Picture
from segmed.methods.detector.boxes import Boxes
from segmed.methods.detector.regions import link
from segmed.server.tasks.detection import markups


def _boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    table = torch.tensor(rows).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5])


def test_boxes_of_neighbouring_slices_are_one_region() -> None:
    found = [
        _boxes((10, 10, 20, 22, 1, 0.6)),
        _boxes((11, 10, 21, 22, 1, 0.9), (11, 10, 21, 22, 2, 0.7)),  # another class at the same place
        _boxes((12, 11, 22, 24, 1, 0.5), (40, 40, 50, 50, 1, 0.3)),
        _boxes(),
        _boxes((12, 11, 22, 24, 1, 0.4)),  # after a gap it is another one
    ]
    regions = link(found)
    assert [(r.label, round(r.score, 2)) for r in regions] == [(1, 0.9), (2, 0.7), (1, 0.4), (1, 0.3)]
    assert regions[0].low.tolist() == [10, 10, 0] and regions[0].high.tolist() == [21, 23, 2]
    assert regions[2].low[2] == regions[2].high[2] == 4


@pytest.mark.parametrize("oblique", [False, True])
def test_regions_lie_where_their_voxels_lie(oblique: bool) -> None:
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[:3, 3] = (90, 80, -40)
    if oblique:
        a = np.deg2rad(20)
        affine[:3] = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ affine[:3]
    picture = Picture(np.zeros((60, 50, 8), np.uint8), affine, "p", "auto")
    region = link([_boxes(), _boxes((10, 20, 21, 31, 2, 0.75)), _boxes((10, 20, 21, 31, 2, 0.5))])
    told = markups(region, ("liver", "spleen"), picture)["markups"][0]
    assert told["name"] == "spleen 0.75" and told["coordinateSystem"] == "LPS"
    assert told["size"] == pytest.approx([22, 22, 10])
    middle = affine @ [15, 25, 1.5, 1]
    assert told["center"] == pytest.approx([-middle[0], -middle[1], middle[2]])
    axes = np.array(told["orientation"]).reshape(3, 3)
    corner = np.array(told["center"]) - axes @ np.array(told["size"]) / 2
    outer = affine @ [9.5, 19.5, 0.5, 1]
    assert corner == pytest.approx([-outer[0], -outer[1], outer[2]])


def test_an_untaught_detector_finds_nothing_and_says_so(
    start: Start, phantom: Phantom, tmp_path: Path
) -> None:
    nib.save(nib.Nifti1Image(phantom.image[:, :, :4], phantom.affine), tmp_path / "ct.nii.gz")
    server = start(
        tmp_path, "--conf", "models", "detector", "--conf", "untrained", "true", "--conf", "labels", "liver"
    )
    models = server.client.info()["models"]
    assert {name: model["type"] for name, model in models.items()} == {
        "auto": "segmentation",
        "detector": "detection",
    }
    file, told = server.client.infer("auto", "ct", {"result_extension": ".nrrd", "device": "cpu"})
    mask, _ = nrrd.read(file)
    assert mask.shape == (*phantom.image.shape[:2], 4) and not mask.any()
    assert told["warnings"] == ["Not found: liver."]
    file, told = server.client.infer("detector", "ct", {"device": "cpu"})
    assert file.endswith(".json") and told["boxes"] == 0 and told["warnings"] == ["Nothing was detected."]
    assert json.loads(Path(file).read_text(encoding="utf-8"))["markups"] == []
