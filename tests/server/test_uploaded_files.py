"""What clients send as files: nothing outside of the upload is read for it, whatever stands in it."""

from __future__ import annotations

import json
from pathlib import Path

import nrrd
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from running import Server, Start

NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 16 16 2\nspacings: 1 1 1\nencoding: raw\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 16 16 2\nElementType = MET_UCHAR\n"
SECRET = b"SECRET OF THE SERVER " * 40


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize("name", ["evil.nrrd", "evil.nhdr", "evil.mha", "evil.mhd", "evil.png", "evil.nii"])
def test_a_header_of_another_file_is_refused_everywhere(server: Server, secret: Path, name: str) -> None:
    text = META + f"ElementDataFile = {secret}\n" if ".mh" in name else NRRD + f"data file: {secret}\n"
    file = (name, text.encode())
    label = {"file": ("a.nrrd", b"x"), "label": file}
    params = {"params": json.dumps({"roi": [2, 9, 2, 9, 0, 0]})}
    calls = [
        requests.put(f"{server.url}/datastore/image?image=evil", files={"file": file}, timeout=60),
        requests.put(f"{server.url}/datastore/label?image=ct", files={"label": file}, timeout=60),
        requests.put(f"{server.url}/session/", files={"files": file}, timeout=60),
        requests.put(f"{server.url}/session/", files=[("files", ("a", text)), ("files", ("b.dcm", text))], timeout=60),
        requests.post(f"{server.url}/infer/classical", files={"file": file}, data=params, timeout=60),
        requests.post(f"{server.url}/infer/classical?image=ct", files=label, data=params, timeout=60),
    ]
    for answer in calls:
        assert answer.status_code == 400, answer.text
        detail = answer.json()["detail"]
        assert "SECRET" not in detail and str(secret.parent) not in detail
    assert "evil" not in requests.get(f"{server.url}/datastore/?output=all", timeout=10).json()["objects"]
    if name != "evil.png":
        assert "voxels lie in another file" in calls[0].json()["detail"]


def test_an_image_of_two_files_is_given_to_viewers_whole(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    studies = tmp_path_factory.mktemp("two files")
    voxels = np.random.default_rng(0).integers(0, 900, (9, 8, 7)).astype(np.int16)
    place = {"space": "left-posterior-superior", "space directions": np.diag([1, 1, 2.0]), "space origin": [3, 4, 5.0]}
    nrrd.write(str(studies / "det.nhdr"), voxels, {**place, "encoding": "raw"})
    sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(studies / "meta.mhd"))
    server = start(studies, "--conf", "models", "classical")
    for name in ("det", "meta"):
        answer = requests.get(f"{server.url}/datastore/image?image={name}", timeout=60)
        assert answer.status_code == 200 and f'filename="{name}.nii"' in answer.headers["content-disposition"]
        got = studies.parent / f"{name}.nii"
        got.write_bytes(answer.content)
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(got))).T, voxels)
    assert np.allclose(sitk.ReadImage(str(studies.parent / "det.nii")).GetOrigin(), (3, 4, 5))
