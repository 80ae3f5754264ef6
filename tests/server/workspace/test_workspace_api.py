"""Workspaces over HTTP, as the web page and OHIF use them."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import zlib
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import requests
from dicom_phantom import phantom_series
from PIL import Image
from running import Server, Start  # type: ignore[import-not-found]
from scipy import ndimage
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.provenance import Provenance

K = 14
NAMES = ["Läsion 腫瘍", "spleen"]


class Page:
    """A client that knows the label map by the changes it was told, and by nothing else."""

    def __init__(self, server: Server, client: str, image: str = "ct") -> None:
        self.server, self.client, self.image = server, client, image
        self.url = f"{server.url}/api/images/{image}"
        self.shape = requests.get(self.url, timeout=60).json()["shape"]
        self.labels = np.zeros(self.shape, np.uint8)
        self.told: dict[str, Any] = {}
        self.take(requests.get(f"{self.url}/work", params={"client": client}, timeout=60))

    def take(self, answer: requests.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text[:500]
        self.told = answer.json()
        for change in self.told["changes"]:
            (i0, i1), (j0, j1) = change["i"], change["j"]
            values = np.frombuffer(zlib.decompress(base64.b64decode(change["data"])), np.uint8)
            self.labels[i0:i1, j0:j1, change["k"]] = values.reshape(j1 - j0, i1 - i0).T
        return self.told

    def believed(self) -> dict[str, Any]:
        """The state of the work as the last answer told it."""
        return {"revision": self.told["revision"], "boot": self.told["boot"]}

    def post(self, what: str, **body: Any) -> requests.Response:
        return requests.post(f"{self.url}/{what}", json={"client": self.client, **body}, timeout=120)

    def do(self, what: str, **body: Any) -> dict[str, Any]:
        return self.take(self.post(what, **body))

    def prompt(self, label: str = "liver", model: str = "classical", **body: Any) -> dict[str, Any]:
        return self.do("prompt", model=model, label=label, **body)

    def there(self) -> np.ndarray:
        """The label map as the server has it."""
        again = Page(self.server, self.client, self.image)
        self.told = again.told
        return again.labels


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == 1)


@pytest.fixture
def page(server: Server, request: pytest.FixtureRequest) -> Page:
    return Page(server, f"Frau Müller {request.node.name}")


def _box(mask: np.ndarray, k: int = K) -> list[int]:
    i, j = np.nonzero(mask[:, :, k])
    return [int(i.min()), int(i.max()), int(j.min()), int(j.max()), k, k]


def _middle(mask: np.ndarray, k: int = K) -> list[int]:
    depth = ndimage.distance_transform_edt(np.pad(mask[:, :, k], 1))[1:-1, 1:-1]
    i, j = np.unravel_index(depth.argmax(), depth.shape)
    return [int(i), int(j), k]


def _dice(labels: np.ndarray, truth: np.ndarray, k: int = K) -> float:
    return Overlap.of(labels[:, :, k] == 1, truth[:, :, k]).dice()


def _change(k: int, i: list[int], j: list[int], values: np.ndarray) -> dict[str, Any]:
    return {
        "k": k,
        "i": i,
        "j": j,
        "data": base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes())).decode(),
    }


def _refused(answer: requests.Response, *words: str, status: int = 400) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    told = answer.json()["detail"]
    assert isinstance(told, str)
    for word in words:
        assert word in told, told


# --- opening ---


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
    assert meta["window"] == [-160, 240]
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
    page.do("paint", label="by hand", changes=[_change(0, [0, 30], [0, 20], np.full((20, 30), 3))])
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
    _refused(page.post("prompt", model="lora", label="polyp", foreground=[[3, 3, 0]]), "takes no prompts")
    page.prompt("polyp", "lora_prompt", box=[2, 20, 2, 15, 0, 0])


# --- prompts ---


def test_a_box_then_clicks_that_add_up(page: Page, truth: np.ndarray) -> None:
    told = page.prompt(box=_box(truth))
    assert told["slices"] == [K]
    assert told["prompt"]["box"] == _box(truth)
    assert (told["can_undo"], told["can_redo"]) == (True, False)
    assert told["labels"] == {"liver": 1, "spleen": 2}
    assert _dice(page.labels, truth) > 0.85
    assert np.flatnonzero(page.labels.any((0, 1))).tolist() == [K]
    first = page.labels.copy()
    middle = _middle(truth)
    told = page.prompt(background=[middle])
    assert page.labels[tuple(middle)] == 0
    asked = {"label": "liver", "box": _box(truth), "foreground": [], "background": [middle]}
    assert told["prompt"] == asked
    assert 0 < (page.labels != first).sum() < truth[:, :, K].sum()
    second = page.labels.copy()
    page.do("undo")
    assert (page.labels == first).all()
    assert page.told["prompt"]["background"] == []
    page.do("redo")
    assert (page.labels == second).all()
    page.do("undo")
    page.do("undo")
    assert not page.labels.any()
    assert (page.told["can_undo"], page.told["can_redo"]) == (False, True)
    assert page.told["prompt"] == {"box": None, "foreground": [], "background": []}
    assert (page.there() == page.labels).all()


def test_the_answer_holds_only_what_changed(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=_box(truth))
    (change,) = page.told["changes"]
    i, j = np.nonzero(page.labels[:, :, K])
    assert change["i"] == [i.min(), i.max() + 1]
    assert change["j"] == [j.min(), j.max() + 1]
    assert len(json.dumps(page.told)) < 2500
    assert page.prompt(box=_box(truth))["changes"] == []


def test_the_object_is_compared_between_models_and_through_the_volume(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=_box(truth))
    by_one = page.labels.copy()
    page.prompt(model="segmed")  # nothing new is said: the same prompt for another model
    assert page.told["prompt"]["box"] == _box(truth)
    assert _dice(page.labels, truth) > 0.85
    assert (page.labels != by_one).any()
    page.prompt(model="classical_3d")
    assert len(page.told["slices"]) > 5
    assert Overlap.of(page.labels > 0, truth).dice() > 0.75
    assert (page.there() == page.labels).all()
    for _ in range(2):
        page.do("undo")
    assert (page.labels == by_one).all()


def test_accepting_begins_another_object_and_labels_are_united(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=_box(truth))
    first = page.labels.copy()
    page.do("accept")
    assert page.told["prompt"]["box"] is None
    page.prompt(box=[2, 12, 2, 10, K, K])
    assert (page.labels[first > 0] == 1).all()
    assert (page.labels > 0).sum() > (first > 0).sum()
    page.prompt("spleen", box=_box(truth), overwrite=True)  # another object, which is to lie on top
    assert (page.labels[first > 0] == 2).all()
    page.do("undo")
    assert (page.labels[first > 0] == 1).all()


def test_scribbles_are_kept_voxel_by_voxel(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=_box(truth))
    _, i1, j0, _, _, _ = _box(truth)
    i, j, _ = _middle(truth)
    stroke = {"k": K, "foreground": False, "points": [[i - 3, j], [i + 3, j]], "width": 3}
    outside = {"k": K, "foreground": True, "points": [[i1 + 4, j0], [i1 + 4, j0 + 4]], "width": 1}
    page.prompt(scribbles=[stroke, outside])
    assert (page.labels[i - 3 : i + 4, j - 1 : j + 2, K] == 0).all()
    assert (page.labels[i1 + 4, j0 : j0 + 5, K] == 1).all()
    page.prompt(foreground=[[i, j, K]])  # strokes stay when more is said
    assert (page.labels[i1 + 4, j0 : j0 + 5, K] == 1).all()
    assert (page.labels[i - 3 : i + 4, j - 1, K] == 0).all()


def test_a_stroke_alone_finds_the_object(page: Page, truth: np.ndarray) -> None:
    i, j, _ = _middle(truth)
    points = [[i - 4, j], [i + 4, j]]
    page.prompt(model="segmed", scribbles=[{"k": K, "foreground": True, "points": points, "width": 2}])
    assert _dice(page.labels, truth) > 0.3  # a short stroke is often taken for a part
    assert (page.labels[i - 4 : i + 5, j, K] == 1).all()
    assert page.told["prompt"]["foreground"] == []


def test_a_lasso_around_the_object(page: Page, truth: np.ndarray) -> None:
    i0, i1, j0, j1, _, _ = _box(truth)
    line = [[i0 - 2, j0 - 2], [i1 + 2, j0 - 2], [i1 + 2, j1 + 2], [i0 - 2, j1 + 2]]
    page.prompt(model="segmed", lasso={"k": K, "points": line})
    assert page.told["prompt"]["box"] == [i0 - 2, i1 + 2, j0 - 2, j1 + 2, K, K]
    assert _dice(page.labels, truth) > 0.8


@pytest.mark.parametrize("model", ["segmed", "classical"])
def test_an_existing_label_is_refined(page: Page, truth: np.ndarray, model: str) -> None:
    rough = np.roll(truth[:, :, K], 2, 0)
    spilled = rough.copy()
    i, j = np.nonzero(truth[:, :, K])
    i, j = int(i.max()), int(j[i.argmax()])
    spilled[i + 3 : i + 9, j - 3 : j + 4] = True
    page.do("paint", label="liver", changes=[_change(K, [0, 96], [0, 80], spilled.T)])
    before = _dice(page.labels, truth)
    page.prompt(model=model, refine=True, background=[[i + 6, j, K]])
    assert not page.labels[
        i + 5 : i + 8, j - 1 : j + 2, K
    ].any()  # where it was excluded the old label is gone, too
    assert _dice(page.labels, truth) > max(0.85, before)
    page.do("undo")
    assert ((page.labels[:, :, K] > 0) == spilled).all()
    page.do("accept")
    page.prompt(
        model=model, background=[[i + 6, j, K]]
    )  # a background click alone means the label that is there
    assert not page.labels[i + 5 : i + 8, j - 1 : j + 2, K].any()


# --- by hand ---


def test_brush_and_eraser(page: Page, truth: np.ndarray) -> None:
    page.prompt(box=_box(truth))
    before = page.labels.copy()
    told = page.do("paint", label="Läsion 腫瘍", changes=[_change(3, [5, 9], [6, 8], np.full((2, 4), 3))])
    assert told["labels"] == {"liver": 1, "spleen": 2, "Läsion 腫瘍": 3}
    assert (page.labels[5:9, 6:8, 3] == 3).all()
    assert told["prompt"]["box"] is None
    i0, i1, j0, j1, _, _ = _box(truth)
    page.do("paint", label="liver", changes=[_change(K, [i0, i1], [j0, j1], np.zeros((j1 - j0, i1 - i0)))])
    assert not page.labels[i0:i1, j0:j1, K].any()
    for _ in range(2):
        page.do("undo")
    assert (page.labels == before).all()
    page.do("clear")
    assert not page.there().any()
    page.do("undo")
    assert (page.there() == before).all()


@pytest.mark.parametrize("turned", ["as it is", "flipped", "columns and rows", "part", "coarser"])
def test_a_label_map_of_a_viewer_comes_onto_the_grid(page: Page, phantom: Phantom, turned: str) -> None:
    labels, affine = phantom.labels.clip(0, 4).astype(np.uint8), phantom.affine.copy()
    n = labels.shape
    if turned == "flipped":
        step = np.diag([-1.0, 1, -1, 1])
        step[0, 3], step[2, 3] = n[0] - 1, n[2] - 1
        sent, affine = labels[::-1, :, ::-1], affine @ step
    elif turned == "columns and rows":
        sent, affine = labels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    elif turned == "part":
        sent, affine[:, 3] = labels[10:80, 5:70, 3:20], affine @ [10, 5, 3, 1]
    elif turned == "coarser":
        sent, affine = labels[::2], affine @ np.diag([2.0, 1, 1, 1])
    else:
        sent = labels
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    for direction in (
        lps[:3, :3] / spacing,
        (lps[:3, :3] / spacing).T,
    ):  # by rows as ITK, by columns as OpenGL
        params = {
            "client": page.client,
            "size": list(sent.shape),
            "origin": lps[:3, 3].tolist(),
            "spacing": spacing.tolist(),
            "direction": direction.ravel().tolist(),
            "names": {"1": "spleen", "2": "liver", "4": "Läsion 腫瘍"},
        }
        data = zlib.compress(sent.tobytes(order="F"))
        answer = requests.post(
            f"{page.url}/labelmap", data={"params": json.dumps(params)}, files={"file": data}, timeout=60
        )
        page.take(answer)
        values = page.told["labels"]
        assert sorted(values) == sorted(["liver", "spleen", "label 3", "Läsion 腫瘍"])
        assert sorted(values.values()) == [1, 2, 3, 4]
        expected = np.array([0, *(values[n] for n in ("spleen", "liver", "label 3", "Läsion 腫瘍"))])[labels]
        if turned == "coarser":
            assert (page.labels == expected).mean() > 0.97
            assert (page.labels[::2] == expected[::2]).all()
        elif turned == "part":
            assert (page.labels[10:80, 5:70, 3:20] == expected[10:80, 5:70, 3:20]).all()
            assert not page.labels[:10].any() and not page.labels[:, :, 20:].any()
        else:
            assert (page.labels == expected).all()
        assert (page.there() == page.labels).all()
        page.do("undo")
        assert not page.labels.any()


# --- saving ---


def test_saved_labels_keep_their_values_and_are_named(
    server: Server, phantom: Phantom, tmp_path: Path
) -> None:
    page = Page(server, "Frau Müller saves", "ct for saving")
    page.do("clear")  # of what another test may have saved
    mine: dict[str, int] = {}
    for k, name in ((2, NAMES[0]), (3, "spleen")):
        mine[name] = page.do("paint", label=name, changes=[])["labels"][
            name
        ]  # an earlier label may have its own names
        page.do("paint", label=name, changes=[_change(k, [5, 9], [6, 8], np.full((2, 4), mine[name]))])
    page.prompt("spleen", box=[20, 50, 20, 60, 10, 10])
    saved = page.post("save", tag="final").json()
    assert (saved["label"], saved["seg"], saved["note"]) == ("ct for saving", None, "")
    entry = server.client.datastore()["objects"]["ct for saving"]["labels"]["final"]["info"]
    values = {
        one["name"]: one["idx"] for one in entry["label_info"]
    }  # what an earlier label took stays taken
    assert set(values) == {"spleen", NAMES[0]}
    assert mine["spleen"] == 2  # as configured, though there is no liver
    assert entry["client_id"] == "Frau Müller saves"
    assert entry["model"] == "classical"
    assert entry["prompts"] == 1
    record = Provenance.from_json(entry["provenance"]["spleen"])  # not of the liver, which was painted
    assert (record.model, record.prompt["roi"], list(entry["provenance"])) == (
        "classical",
        [20, 50, 20, 60, 10, 10],
        ["spleen"],
    )
    assert 0 < entry["seconds"] < 600
    stored = requests.get(
        f"{server.url}/datastore/label", {"label": "ct for saving", "tag": "final"}, timeout=30
    )
    assert stored.status_code == 200, stored.text[:300]
    (tmp_path / "stored.nii.gz").write_bytes(stored.content)
    file = nib.load(tmp_path / "stored.nii.gz")
    assert np.allclose(file.affine, phantom.affine, atol=1e-4)
    for name, value in values.items():
        assert ((np.asarray(file.dataobj) == value) == (page.labels == mine[name])).all()
    images = {i["id"]: i["labelled"] for i in requests.get(f"{server.url}/api/images", timeout=30).json()}
    assert images["ct for saving"] is True

    # somebody else corrects it
    other = Page(server, "reviewer", "ct for saving")
    names = {value: name for name, value in other.told["labels"].items()}
    for name, value in mine.items():
        assert (np.vectorize(names.get)(other.labels[page.labels == value]) == name).all()
    assert not other.told["can_undo"]
    other.do("clear")
    kept = other.post("save").json()
    assert "empty" in kept["note"] and kept["seg"] is None
    assert (
        server.client.datastore()["objects"]["ct for saving"]["labels"]["final"]["info"]["label_info"] == []
    )

    # the first one comes back, has nothing unsaved, and sees what is stored now
    assert not page.there().any()
    page.do("paint", label="liver", changes=[_change(0, [1, 3], [1, 3], np.ones((2, 2)))])
    other.do("paint", label="liver", changes=[_change(9, [1, 3], [1, 3], np.ones((2, 2)))])
    other.post("save")
    assert page.there()[1, 1, 0] == 1
    assert "Another label" in page.told["warnings"][0]
    assert "replaced" in page.post("save").json()["note"]
    assert "Müller" not in server.log.read_text(encoding="utf-8")
    assert "腫瘍" not in server.log.read_text(encoding="utf-8")


def test_download_as_nifti(page: Page, phantom: Phantom, truth: np.ndarray, tmp_path: Path) -> None:
    page.prompt("spleen", box=_box(truth))
    url = f"{page.url}/download"
    answer = requests.get(url, params={"client": page.client, "format": "nifti"}, timeout=60)
    assert answer.headers["content-disposition"] == 'attachment; filename="ct-nifti.nii.gz"'
    (tmp_path / "x.nii").write_bytes(gzip.decompress(answer.content))
    image = nib.load(tmp_path / "x.nii")
    assert np.allclose(image.affine, phantom.affine, atol=1e-4)
    assert (np.asarray(image.dataobj) == np.where(page.labels > 0, page.told["labels"]["spleen"], 0)).all()
    for format in ("seg", "rtstruct"):
        _refused(
            requests.get(url, params={"client": page.client, "format": format}, timeout=60),
            "no DICOM series",
            "NIfTI",
        )


def test_dicom_studies_from_prompt_to_segmentation(
    start: Start, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = tmp_path_factory.mktemp("dicom")
    phantom_series(folder / "a")
    server = start(folder, "--conf", "models", "classical")
    (listed,) = requests.get(f"{server.url}/api/images", timeout=60).json()
    assert listed["modality"] == "CT"
    page = Page(server, "dr", listed["id"])
    meta = requests.get(page.url, timeout=60).json()
    assert meta["series"] == listed["id"]
    size = page.shape
    page.prompt("Läsion", box=[size[0] // 4, 3 * size[0] // 4, size[1] // 4, 3 * size[1] // 4, 2, 2])
    assert page.labels.any()
    url = f"{page.url}/download"
    for format in ("seg", "rtstruct"):
        answer = requests.get(url, params={"client": "dr", "format": format}, timeout=60)
        assert answer.status_code == 200, answer.text[:300]
        (tmp_path / f"{format}.dcm").write_bytes(answer.content)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.StudyInstanceUID == meta["study"]
    assert [d.SegmentLabel for d in seg.SegmentSequence] == ["Läsion"]
    (algorithm,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert "classical" in algorithm.AlgorithmName
    assert all(
        f"{key}=" in algorithm.AlgorithmParameters for key in ("weights", "image", "prompt", "software")
    )
    assert int(seg.pixel_array.sum()) == int((page.labels > 0).sum())
    contours = pydicom.dcmread(tmp_path / "rtstruct.dcm")
    assert [r.ROIName for r in contours.StructureSetROISequence] == ["Läsion"]
    saved = page.post("save").json()
    assert saved["seg"]
    page.do("clear")
    empty = requests.get(url, params={"client": "dr", "format": "seg"}, timeout=60)
    _refused(empty, "empty")
    kept = page.post("save").json()
    assert kept["seg"] is None and "empty" in kept["note"]
    assert server.left_behind() == []


# --- several at once ---


def test_two_users_on_one_image_do_not_see_each_other(server: Server, truth: np.ndarray) -> None:
    failures: list[object] = []
    pages = {name: Page(server, name) for name in ("first of two", "second of two")}
    boxes = {"first of two": _box(truth), "second of two": [2, 12, 2, 10, 3, 3]}

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


# --- bad input ---


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
    _refused(answer, *words, status=404 if "no model" in words else 400)
    assert not page.there().any()
    assert page.told["labels"] == {"liver": 1, "spleen": 2}
    assert not page.told["can_undo"]


def test_other_wrong_requests(page: Page, server: Server) -> None:
    good = _change(3, [5, 9], [6, 8], np.full((2, 4), 1))
    _refused(page.post("paint", changes=[{**good, "i": [5, 10]}]), "less than the 10 bytes")
    _refused(page.post("paint", changes=[{**good, "k": 77}]), "no slice 77")
    _refused(page.post("paint", changes=[{**good, "data": "§"}]), "base64")
    _refused(page.post("paint", changes=[{"k": 1}]), "changes.0")
    _refused(page.post("paint", changes=[_change(3, [5, 9], [6, 8], np.full((2, 4), 9))]), "value 9")
    _refused(
        page.post("paint", label="liver", changes=[good, _change(3, [5, 6], [6, 7], np.array([[44]]))]), "44"
    )
    _refused(page.post("segment", model="classical"), "needs prompts")
    _refused(page.post("save", tag="../x"), "tag")
    _refused(requests.post(f"{page.url}/undo", data="{no", timeout=30), "usable")
    _refused(requests.get(f"{page.url}/work", params={"client": "x" * 200}, timeout=30), "client")
    _refused(requests.get(f"{page.url}/download", params={"format": "exe"}, timeout=30), "format")
    _refused(requests.get(f"{server.url}/api/images/nobody/work", timeout=30), "no image", status=404)
    _refused(requests.get(f"{server.url}/api/images/broken", timeout=30), "cannot be read")
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

    _refused(send("{no"), "not JSON")
    _refused(send({}), "params.size")
    _refused(send({**grid, "size": [4, 4, 5]}), "less than the 80 bytes")
    _refused(send({**grid, "size": [4000, 4000, 5000]}), "size")
    _refused(send({**grid, "size": [0, 4, 4]}), "size")
    _refused(send({**grid, "spacing": [1, 0, 1]}), "Spacing")
    _refused(send({**grid, "origin": [9000, 0, 0]}), "does not lie")
    _refused(send(grid, b"no zip"), "not deflated")
    assert not page.there().any()
    assert page.post("undo").json()["changes"] == []


def test_nothing_is_left_behind(server: Server) -> None:
    assert server.left_behind() == []
