"""Two servers on one folder of studies: what either has saved stays, with what its values mean and whose it
is."""

from __future__ import annotations

import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from running import Server, Start
from segmed.data.datastore import LIST

SHAPE = (20, 16, 3)
EACH = 12  # images of each server, saved at the same time
ROUNDS = 8  # saves of the image that both save


@pytest.fixture(scope="module")
def both(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Server]:
    studies = tmp_path_factory.mktemp("two")
    image = nib.Nifti1Image(np.random.default_rng(0).normal(0, 9, SHAPE).astype(np.int16), np.eye(4))
    for name in ["shared", *(f"{who}{n}" for who in "ab" for n in range(EACH))]:
        nib.save(image, studies / f"{name}.nii.gz")
    conf = ("--conf", "models", "classical", "--conf", "scoring", "off")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: start(studies, *conf), range(2))
    return first, second


def _labels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, SHAPE).astype(np.uint8)


def _save(server: Server, image: str, seed: int, who: str) -> None:
    content = gzip.compress(nib.Nifti1Image(_labels(seed), np.eye(4)).to_bytes())
    params = json.dumps({"client_id": who, "label_info": [{"name": f"organ {seed}", "idx": 1}]})
    url = f"{server.url}/datastore/label?image={image}&tag=final"
    answer = requests.put(url, files={"label": ("l.nii.gz", content)}, data={"params": params}, timeout=60)
    assert answer.status_code == 200, answer.text


def _read(server: Server, image: str, tag: str = "final") -> np.ndarray:
    answer = requests.get(f"{server.url}/datastore/label?label={image}&tag={tag}", timeout=60)
    assert answer.status_code == 200, answer.text
    return np.asarray(nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(answer.content))).dataobj)


def _noted(studies: Path) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    return dict(json.loads((studies / LIST).read_text(encoding="utf-8"))["objects"])


def test_labels_of_different_images_stay_with_what_is_noted(both: tuple[Server, Server]) -> None:
    def work(n: int) -> None:
        for k in range(EACH):
            _save(both[n], f"{'ab'[n]}{k}", 100 * n + k, f"user {n}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    noted = _noted(both[0].studies)
    for n in range(2):
        for k in range(EACH):
            image, seed = f"{'ab'[n]}{k}", 100 * n + k
            info = noted[image]["labels"]["final"]["info"]
            assert (info["client_id"], info["segments"][0]["name"]) == (f"user {n}", f"organ {seed}"), image
            assert all(np.array_equal(_read(server, image), _labels(seed)) for server in both), image


def test_of_one_image_the_last_label_counts_and_the_others_are_kept(both: tuple[Server, Server]) -> None:
    def work(n: int) -> None:
        for k in range(ROUNDS):
            _save(both[n], "shared", 1000 * (n + 1) + k, f"user {n}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    seeds = [1000 * (n + 1) + k for n in range(2) for k in range(ROUNDS)]
    last = _read(both[0], "shared")
    assert np.array_equal(last, _read(both[1], "shared"))
    (seed,) = [seed for seed in seeds if np.array_equal(last, _labels(seed))]
    assert seed % 1000 == ROUNDS - 1
    entry = _noted(both[0].studies)["shared"]["labels"]
    assert entry["final"]["info"]["segments"][0]["name"] == f"organ {seed}"  # of the same save as the voxels
    other = 1 - int(entry["final"]["info"]["client_id"].split()[1])
    (kept,) = [tag for tag, label in entry.items() if label["info"].get("client_id") == f"user {other}"]
    assert np.array_equal(_read(both[0], "shared", kept), _labels(1000 * (other + 1) + ROUNDS - 1))
    history = requests.get(f"{both[0].url}/api/images/shared/history", timeout=60).json()
    told = history["versions"] if isinstance(history, dict) else history
    assert len(told) == min(10, 2 * ROUNDS - 1)


def test_uploads_of_one_name_to_both_leave_one_image(both: tuple[Server, Server]) -> None:
    def upload(n: int) -> int:
        content = gzip.compress(nib.Nifti1Image(_labels(n).astype(np.int16), np.eye(4)).to_bytes())
        url = f"{both[n].url}/datastore/image?image=fresh"
        return requests.put(url, files={"file": ("f.nii.gz", content)}, timeout=60).status_code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(upload, range(2))) == [200, 409]
