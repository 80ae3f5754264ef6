"""Workspaces over HTTP: opening images, two users at once, and bad input."""

from __future__ import annotations

import json
import threading
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from page_client import Page, assert_refused, box_around, change_of
from PIL import Image
from running import Server, Start  # type: ignore[import-not-found]
from segmed.data.phantom import Phantom


def test_state_and_images(server: Server) -> None:
    state = requests.get(f"{server.url}/api/state", timeout=30).json()
    assert state["studies"]["state"] == "ok"
    assert state["labels"] == ["liver", "spleen"]
    models = {m["name"]: m for m in state["models"]}
    assert next(iter(models)) == "segmed"
    assert set(models) == {n + s for n in ("segmed", "classical", "sam", "medsam") for s in ("", "_3d")}
    assert [(m["type"], m["dimension"]) for m in (models["segmed"], models["sam_3d"])] == [
        ("prompt", 2),
        ("prompt", 3),
    ]
    images = {i["id"]: i for i in requests.get(f"{server.url}/api/images", timeout=30).json()}
    assert {"ct", "photo", "ct for saving"} <= set(images)
    assert images["ct"]["name"] == "ct"


def test_the_volume_is_the_image_on_its_own_grid(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    url = f"{server.url}/api/images/ct"
    meta = requests.get(url, timeout=30).json()
    assert meta["shape"] == list(phantom.image.shape)
    assert np.allclose(meta["affine"], phantom.affine)
    assert meta["window"] == [-160, 240] and meta["note"] == ""
    assert (meta["study"], meta["series"]) == (None, None)
    answer = requests.get(f"{url}/volume.nii", timeout=30)
    (tmp_path / "x.nii").write_bytes(answer.content)
    image = nib.load(tmp_path / "x.nii")
    assert image.get_data_dtype() == np.int16
    assert (np.asarray(image.dataobj) == phantom.image).all()
    assert np.allclose(image.affine, phantom.affine, atol=1e-4)
    again = requests.get(f"{url}/volume.nii", headers={"If-None-Match": answer.headers["ETag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")
    other = requests.get(f"{url}/volume.nii", headers={"If-None-Match": '"other"'}, timeout=30)
    assert other.status_code == 200


@pytest.fixture(scope="module")
def colour(start: Start, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Serves a colour picture, with an automatic model that knows nothing yet."""
    studies = tmp_path_factory.mktemp("colour")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(
        studies / "polyp.png"
    )
    words = {
        "models": "classical,lora",
        "untrained": "true",
        "backbone_lora": str(weights),
        "labels": "polyp,rest",
    }
    return start(studies, *(w for key, value in words.items() for w in ("--conf", key, value)))


def test_colour_volumes_are_rgb(colour: Server, tmp_path: Path) -> None:
    server, picture = colour, np.asarray(Image.open(colour.studies / "polyp.png"))
    content = requests.get(f"{server.url}/api/images/polyp/volume.nii", timeout=30).content
    (tmp_path / "x.nii").write_bytes(content)
    array = np.asarray(nib.load(tmp_path / "x.nii").dataobj)
    assert array.shape == (30, 20, 1)
    back = np.stack([array[name] for name in "RGB"], -1)
    assert (back[:, :, 0] == picture.transpose(1, 0, 2)).all()
    assert requests.get(f"{server.url}/api/images/polyp", timeout=30).json()["window"] == [0, 255]
    painted = Page(server, "a", "polyp")
    painted.prompt(box=[3, 20, 3, 15, 0, 0])
    assert (painted.there() == painted.labels).all()
    assert painted.labels.any()


def test_an_automatic_model_paints_all_its_structures_in_one_step(colour: Server) -> None:
    page = Page(colour, "automatic", "polyp")
    models = {m["name"]: m for m in requests.get(f"{colour.url}/api/state", timeout=30).json()["models"]}
    assert (models["lora"]["type"], models["lora"]["labels"]) == ("automatic", ["polyp", "rest"])
    page.do("paint", label="by hand", changes=[change_of(0, [0, 30], [0, 20], np.full((20, 30), 3))])
    drawn = page.labels.copy()
    page.do("segment", model="lora", overwrite=True)
    url = f"{colour.url}/infer/lora?image=polyp&output=image"
    (colour.studies.parent / "lora.nrrd").write_bytes(requests.post(url, timeout=60).content)
    expected = nrrd.read(str(colour.studies.parent / "lora.nrrd"))[0]
    assert (page.labels == np.where(expected > 0, expected, 3)).all()
    page.do("segment", model="lora", overwrite=True)
    assert page.told["changes"] == []
    page.do("undo")
    assert (page.labels == drawn).all()
    assert_refused(
        page.post("prompt", model="lora", label="polyp", foreground=[[3, 3, 0]]), "takes no prompts"
    )
    page.prompt("polyp", "lora_prompt", box=[2, 20, 2, 15, 0, 0])


def test_two_users_on_one_image_do_not_see_each_other(server: Server, truth: np.ndarray) -> None:
    failures: list[object] = []
    pages = {name: Page(server, name) for name in ("first of two", "second of two")}
    boxes = {"first of two": box_around(truth), "second of two": [2, 12, 2, 10, 3, 3]}

    def work(name: str) -> None:
        try:
            page = pages[name]
            for _ in range(4):
                page.prompt(box=boxes[name])
                page.prompt(foreground=[[boxes[name][0] + 3, boxes[name][2] + 3, boxes[name][4]]])
                page.do("undo")
                page.do("undo")
                page.do("redo")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    for name, page in pages.items():
        assert (page.there() == page.labels).all()
        assert np.flatnonzero(page.labels.any((0, 1))).tolist() == [boxes[name][4]]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["draw a box or click"]),
        ({"model": "vnet"}, ["no model"]),
        ({"label": ""}, ["label"]),
        ({"label": "a\nb"}, ["name"]),
        ({"label": "x" * 100}, ["name"]),
        ({"box": [1, 2, 3]}, ["six"]),
        ({"box": [900, 950, 3, 9, 1, 1]}, ["outside the image"]),
        ({"box": ["a", 2, 3, 4, 5, 6]}, ["box"]),
        ({"foreground": [[1, 2]]}, ["three"]),
        ({"foreground": [[500, 2, 3]]}, ["outside the image"]),
        ({"background": [[5, 5, 5]]}, ["draw a box or click"]),
        ({"refine": True}, ["draw a box or click"]),
        ({"scribbles": [{"k": 99, "foreground": True, "points": [[1, 1]]}]}, ["no slice 99"]),
        ({"scribbles": [{"k": 1, "foreground": True, "points": []}]}, ["points"]),
        ({"scribbles": [{"k": 1, "foreground": True, "points": [[1, 1]], "width": -3}]}, ["width"]),
        ({"scribbles": [{"k": 1, "foreground": True, "points": [[-90, -90]]}]}, ["beside the image"]),
        ({"lasso": {"k": 1, "points": [[1, 1], [2, 2]]}}, ["3 or more"]),
        ({"box": [1, 9, 1, 9, 1, 1], "window": "x-ray"}, ["window"]),
        ({"box": [1, 9, 1, 9, 1, 1], "device": "TPU"}, ["device"]),
        ({"client": "x" * 200, "box": [1, 9, 1, 9, 1, 1]}, ["client"]),
    ],
)
def test_wrong_prompts_change_nothing(page: Page, body: dict[str, Any], words: list[str]) -> None:
    answer = page.post("prompt", **{"model": "classical", "label": "new one", **body})
    assert_refused(answer, *words, status=404 if "no model" in words else 400)
    assert not page.there().any()
    assert page.told["labels"] == {"liver": 1, "spleen": 2}
    assert not page.told["can_undo"]


def test_other_wrong_requests(page: Page, server: Server) -> None:
    good = change_of(3, [5, 9], [6, 8], np.full((2, 4), 1))
    assert_refused(page.post("paint", changes=[{**good, "i": [5, 10]}]), "less than the 10 bytes")
    assert_refused(page.post("paint", changes=[{**good, "k": 77}]), "no slice 77")
    assert_refused(page.post("paint", changes=[{**good, "data": "§"}]), "base64")
    assert_refused(page.post("paint", changes=[{"k": 1}]), "changes.0")
    assert_refused(page.post("paint", changes=[change_of(3, [5, 9], [6, 8], np.full((2, 4), 9))]), "value 9")
    assert_refused(
        page.post("paint", label="liver", changes=[good, change_of(3, [5, 6], [6, 7], np.array([[44]]))]),
        "44",
    )
    assert_refused(page.post("segment", model="classical"), "needs prompts")
    assert_refused(page.post("save", tag="../x"), "tag")
    assert_refused(requests.post(f"{page.url}/undo", data="{no", timeout=30), "usable")
    assert_refused(requests.get(f"{page.url}/work", params={"client": "x" * 200}, timeout=30), "client")
    assert_refused(requests.get(f"{page.url}/download", params={"format": "exe"}, timeout=30), "format")
    assert_refused(requests.get(f"{server.url}/api/images/nobody/work", timeout=30), "no image", status=404)
    assert_refused(requests.get(f"{server.url}/api/images/broken", timeout=30), "cannot be read")
    grid = {
        "size": [4, 4, 4],
        "origin": [0, 0, 0],
        "spacing": [1, 1, 1],
        "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    data = zlib.compress(bytes(64))

    def send(params: Any, data: bytes = data) -> requests.Response:
        text = params if isinstance(params, str) else json.dumps({"client": page.client, **params})
        return requests.post(f"{page.url}/labelmap", data={"params": text}, files={"file": data}, timeout=30)

    assert_refused(send("{no"), "not JSON")
    assert_refused(send({}), "params.size")
    assert_refused(send({**grid, "size": [4, 4, 5]}), "less than the 80 bytes")
    assert_refused(send({**grid, "size": [4000, 4000, 5000]}), "size")
    assert_refused(send({**grid, "size": [0, 4, 4]}), "size")
    assert_refused(send({**grid, "spacing": [1, 0, 1]}), "Spacing")
    assert_refused(send({**grid, "origin": [9000, 0, 0]}), "does not lie")
    assert_refused(send(grid, b"no zip"), "not deflated")
    assert not page.there().any()
    assert page.post("undo").json()["changes"] == []
