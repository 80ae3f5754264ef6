"""Labels that are sent in: those that nothing can use are refused, and the others keep what they mean."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
from dicom_phantom import phantom_series
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydicom.uid import generate_uid
from segmed.data.datastore import load_datastore
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.segmentation_reading import LABELMAP_STORAGE
from segmed.dicom.series import open_series
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.labels.sidecar import read_sidecar
from segmed.imaging.reading import read_volume
from segmed.server import asgi
from segmed.server.app import SegMedApp
from segmed.server.datastores.label_check import prompt_mask
from segmed.server.http import download_routes, routes
from segmed.server.http.errors import BadRequest
from segmed.server.segmenting import routes as segmenting_routes
from segmed.server.workspace import routes as workspace_routes

SHAPE = (24, 20, 6)
AFFINE = np.diag([-1.0, -1, 2, 1])
AFFINE[:3, 3] = 20, 30, -10
CONF = {"models": "classical", "labels": "liver,spleen,tumor"}


class Site:
    """The endpoints of one application, without a server around it."""

    def __init__(self, app: SegMedApp, client: TestClient, folder: Path) -> None:
        self.app, self.client, self.folder = app, client, folder

    def put(self, image: str, file: Path | bytes, name: str = "", tag: str = "final", **params: Any) -> Any:
        content = file if isinstance(file, bytes) else file.read_bytes()
        name = name or (file.name if isinstance(file, Path) else "label.nii.gz")
        return self.client.put(
            "/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": json.dumps(params)},
            files={"label": (name, content)},
        )

    def info(self, image: str, tag: str = "final") -> dict[str, Any]:
        return dict(self.app.datastore().get_label_info(image, tag))

    def work(self, image: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/images/{image}/work", params={"client": "dr"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def post(self, image: str, what: str, **body: Any) -> Any:
        return self.client.post(f"/api/images/{image}/{what}", json={"client": "dr", **body})

    def download(self, image: str, kind: str) -> bytes:
        answer = self.client.get(f"/api/images/{image}/download", params={"client": "dr", "format": kind})
        assert answer.status_code == 200, answer.text
        return bytes(answer.content)

    def stored(self, image: str, tag: str = "final") -> tuple[str, bytes]:
        answer = self.client.get("/datastore/label", params={"label": image, "tag": tag})
        assert answer.status_code == 200, answer.text
        return answer.headers["content-disposition"].split('"')[1], answer.content

    def completed(self) -> int:
        return int(self.client.get("/datastore/").json()["completed"])


def _site(studies: Path, folder: Path, patch: pytest.MonkeyPatch) -> Site:
    patch.setattr("segmed.server.app.monailabel_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    app = SegMedApp(str(folder), str(studies), {**CONF, "registry": str(folder / "registry")})
    api = FastAPI()
    for module in (download_routes, segmenting_routes, workspace_routes, routes):
        patch.setattr(module, "app_instance", lambda: app)
        api.include_router(module.router)
    patch.setattr("segmed.server.segmenting.stream.app_instance", lambda: app)
    api.add_exception_handler(BadRequest, asgi._refused)
    api.add_exception_handler(ValueError, asgi._refused)
    return Site(app, TestClient(api), studies)


def _nifti(labels: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    return bytes(nib.Nifti1Image(labels, affine).to_bytes())


def _two(first: int = 1, second: int = 2) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 4:12, 1:5], labels[14:20, 10:15, 1:5] = first, second
    return labels


def _named(*names: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "idx": idx} for name, idx in names]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Four images: three volumes and a picture."""
    studies = tmp_path / "studies"
    studies.mkdir()
    voxels = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.int16)
    for name in ("a", "b", "c"):
        nib.save(nib.Nifti1Image(voxels, AFFINE), studies / f"{name}.nii.gz")
    Image.fromarray(voxels[:, :, 0].T.clip(0, 255).astype(np.uint8)).save(studies / "p.png")
    return _site(studies, tmp_path, monkeypatch)


@pytest.fixture
def slicer(tmp_path: Path) -> Path:
    """Overlapping segments as 3D Slicer writes them: each is value 1 of its layer, but for one."""
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 3:15, 4:12, 1:5], layers[1, 6:9, 6:9, 2:4] = 3, 1
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    header = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([[np.nan] * 3, lps[:3, :3].T]),
        "space origin": lps[:3, 3],
        "kinds": ["list", "domain", "domain", "domain"],
    }
    for n, (name, value, colour) in enumerate((("Leber", 3, "0.5 0.25 0.125"), ("Herd", 1, "1 0 0"))):
        header |= {
            f"Segment{n}_Name": name,
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(n),
        }
        header |= {f"Segment{n}_Color": colour, f"Segment{n}_ID": f"id{n}", f"Segment{n}_Tags": "a|b"}
    nrrd.write(str(tmp_path / "sent.seg.nrrd"), layers, header)
    return tmp_path / "sent.seg.nrrd"


# --- labels that cannot be used ---


def _far() -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += 900
    return affine


@pytest.mark.parametrize(
    ("labels", "affine", "names", "words"),
    [
        (_two()[:15], AFFINE, (), ["(15, 20, 6)", "15 voxels along i where the image has 24"]),
        (_two()[:, :, :4], AFFINE, (), ["4 voxels along k where the image has 6"]),
        (_two(), _far(), (), ["its middle lies 1559 mm from that of the image"]),
        (_two() * 0.5, AFFINE, (), ["values such as 0.5; allowed are whole numbers from 0 to 65535"]),
        (_two().astype(np.int16) - 2, AFFINE, (), ["allowed are whole numbers", "-2"]),
        (_two().astype(np.int32) * 60000, AFFINE, (), ["allowed are whole numbers", "120000"]),
        (_two(), AFFINE, (("x" * 80, 1), ("spleen", 2)), ["name has 1 to 64", "80"]),
        (_two(), AFFINE, (("a\nb", 1), ("c", 2)), ["name"]),
        (
            np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16),
            AFFINE,
            (),
            ["labels; 255 are the most"],
        ),
    ],
)
def test_labels_that_nothing_can_use_are_refused(
    site: Site, labels: np.ndarray, affine: np.ndarray, names: tuple[tuple[str, int], ...], words: list[str]
) -> None:
    content = _nifti(labels, affine)
    answer = site.put("a", content, "label.nii", label_info=_named(*names))
    assert answer.status_code == 400, answer.text
    for word in words:
        assert word in answer.json()["detail"]
    assert site.completed() == 0 and site.info("a") == {}
    assert not any((site.folder / "labels" / "final").iterdir())
    assert site.work("a")["warnings"] == []


def test_a_picture_in_colour_is_no_label_but_one_with_a_palette_is(site: Site) -> None:
    indices = np.zeros(SHAPE[1::-1], np.uint8)
    indices[3:6, 4:9], indices[9:12, 4:9] = 1, 2
    palette = Image.fromarray(indices, "P")
    palette.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
    for mode, status in (("RGB", 400), ("P", 200)):
        file = io.BytesIO()
        palette.convert(mode).save(file, "png")
        answer = site.put("p", file.getvalue(), "label.png", label_info=_named(("liver", 1), ("spleen", 2)))
        assert answer.status_code == status, answer.text
    assert {item["value"]: item["name"] for item in site.info("p")["segments"]} == {1: "liver", 2: "spleen"}
    assert site.work("p")["labels"].items() >= {"liver": 1, "spleen": 2}.items()


def test_a_part_of_the_image_that_says_where_it_lies_is_taken(site: Site) -> None:
    place = AFFINE.copy()
    place[:3, 3] += AFFINE[:3, :3] @ [2, 3, 1]
    assert site.put("a", _nifti(_two()[2:22, 3:18, 1:], place), "label.nii").status_code == 200
    site.work("a")
    downloaded = nib.Nifti1Image.from_bytes(gzip.decompress(site.download("a", "nifti")))
    assert np.array_equal(np.asarray(downloaded.dataobj), _two())


# --- what values mean ---


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ((2, 5), (("spleen", 2), ("kidney", 5)), {2: "spleen", 5: "kidney"}),
        ((1, 2), (("spleen", 2), ("liver", 1)), {1: "liver", 2: "spleen"}),
        ((1, 2), (("liver", 1), ("spleen", 3)), {1: "liver", 2: "spleen"}),  # as 3D Slicer counts
        ((1, 2), (("background", 0), ("liver", 1), ("spleen", 2)), {1: "liver", 2: "spleen"}),
        ((1, 2), (("lesion", 1), ("lesion", 2)), {1: "lesion", 2: "lesion"}),
        ((1, 7), (), {1: "liver", 7: "label 7"}),
        ((300, 65535), (("a", 300), ("b", 65535)), {300: "a", 65535: "b"}),
    ],
)
def test_names_belong_to_values(
    site: Site, values: tuple[int, int], names: tuple[tuple[str, int], ...], expected: dict[int, str]
) -> None:
    labels = _two().astype(np.uint16)
    labels = np.where(labels == 1, values[0], np.where(labels == 2, values[1], 0)).astype(np.uint16)
    assert site.put("a", _nifti(labels), "label.nii", label_info=_named(*names)).status_code == 200
    assert {item["value"]: item["name"] for item in site.info("a")["segments"]} == expected
    table = {s.value: s.name for s in read_sidecar(site.folder / "labels" / "final" / "a.nii.gz")}
    assert table == expected
    # the page has both, and saves both with the values that they were sent with
    told = site.work("a")["labels"]
    assert site.post("a", "save", tag="version_9").status_code == 200
    saved = nib.load(site.folder / "labels" / "version_9" / "a.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), labels)
    again = {item["idx"]: item["name"] for item in site.info("a", "version_9")["label_info"]}
    if len(set(expected.values())) == 2:
        assert again == expected
    else:
        assert again == {1: "lesion", 2: "lesion 2"}
    assert set(again.values()) <= set(told)
    # and so does training
    data = load_datastore(site.folder, labels=list(dict.fromkeys(expected.values())))
    (volume,) = data.volumes
    order = list(dict.fromkeys(expected.values()))
    assert volume.values == {value: order.index(name) + 1 for value, name in expected.items()}


def test_a_new_label_gets_the_configured_value_unless_the_file_has_it(site: Site) -> None:
    site.put("a", _nifti(_two(1, 7)), "label.nii", label_info=_named(("kidney", 1), ("aorta", 7)))
    known = site.work("a")["labels"]
    assert known["liver"] == 1 and known["spleen"] == 2 and known["aorta"] == 7
    data = base64.b64encode(zlib.compress(bytes([known["liver"]] * 4))).decode()
    other = base64.b64encode(zlib.compress(bytes([known["spleen"]] * 4))).decode()
    changes = [
        {"k": 0, "i": [1, 3], "j": [1, 3], "data": data},
        {"k": 0, "i": [5, 7], "j": [1, 3], "data": other},
    ]
    assert site.post("a", "paint", label="liver", changes=changes).status_code == 200
    assert site.post("a", "save").status_code == 200
    values = {item["name"]: item["idx"] for item in site.info("a")["label_info"]}
    assert values["kidney"] == 1 and values["aorta"] == 7 and values["spleen"] == 2
    assert values["liver"] not in (1, 2, 3, 7)
    saved = np.asarray(nib.load(site.folder / "labels" / "final" / "a.nii.gz").dataobj)
    assert (saved[1:3, 1:3, 0] == values["liver"]).all() and (saved[5:7, 1:3, 0] == 2).all()
    assert np.array_equal(np.where(saved == values["liver"], 0, saved)[:, :, 1:], _two(1, 7)[:, :, 1:])


def test_what_a_client_calls_segments_is_not_believed(site: Site) -> None:
    lie = [{"value": 1, "name": "spleen"}]
    assert site.put("a", _nifti(_two()), "label.nii", segments=lie).status_code == 200
    assert [item["name"] for item in site.info("a")["segments"]] == ["liver", "spleen"]


def test_a_newer_label_replaces_the_file_of_another_kind(site: Site, slicer: Path) -> None:
    place = site.folder / "labels" / "final"
    assert site.put("a", _nifti(_two()), "label.nii").status_code == 200
    assert {path.name for path in place.iterdir()} == {"a.nii", "a.tsv"}
    assert site.put("a", slicer).status_code == 200
    assert {path.name for path in place.iterdir()} == {"a.seg.nrrd"}
    assert site.put("b", slicer).status_code == 200
    assert site.put("a", nib.Nifti1Image(_two(), AFFINE).to_bytes(), "x.nii").status_code == 200
    assert {path.name for path in place.iterdir()} == {"a.nii", "a.tsv", "b.seg.nrrd"}
    site.app.datastore().refresh()
    assert set(site.app.datastore().list_images()) == {"a", "b", "c", "p"}
    site.app.datastore().remove_label("a", "final")
    assert {path.name for path in place.iterdir()} == {"b.seg.nrrd"}


# --- segments that overlap ---


def test_a_segmentation_comes_back_as_it_was_sent_and_as_it_was_edited(
    site: Site, slicer: Path, tmp_path: Path
) -> None:
    sent, place = read_segments(slicer)
    assert site.put("a", slicer).status_code == 200
    assert site.stored("a") == ("a.seg.nrrd", slicer.read_bytes())
    told = site.work("a")
    assert {"Leber", "Herd"} <= told["labels"].keys()
    assert "Herd on Leber" in told["warnings"][0]
    assert site.post("a", "save").status_code == 200
    (tmp_path / "back.seg.nrrd").write_bytes(site.stored("a")[1])
    for content in (site.stored("a")[1], site.download("a", "nrrd")):
        (tmp_path / "back.seg.nrrd").write_bytes(content)
        back, affine = read_segments(tmp_path / "back.seg.nrrd")
        assert back.segments == sent.segments  # names, values, layers, colours, tags
        assert all(np.array_equal(a, b) for a, b in zip(back.layers, sent.layers, strict=True))
        assert np.allclose(affine, place)
    # one voxel of the herd is erased, one is added to it on the liver, and one beside both
    known = site.work("a")["labels"]
    changes = []
    for i, value in ((7, 0), (12, known["Herd"]), (20, known["Herd"])):
        data = base64.b64encode(zlib.compress(bytes([value]))).decode()
        changes.append({"k": 2, "i": [i, i + 1], "j": [7, 8], "data": data})
    assert site.post("a", "paint", label="Herd", changes=changes).status_code == 200
    assert site.post("a", "save").status_code == 200
    (tmp_path / "back.seg.nrrd").write_bytes(site.stored("a")[1])
    back, _ = read_segments(tmp_path / "back.seg.nrrd")
    liver, lesion = (back.mask(segment) for segment in back.segments)
    expected = sent.mask(sent.segments[1]).copy()
    expected[7, 7, 2], expected[12, 7, 2], expected[20, 7, 2] = False, True, True
    assert np.array_equal(lesion, expected)
    whole = sent.mask(sent.segments[0]).copy()
    whole[7, 7, 2] = False  # the eraser takes what is there
    assert np.array_equal(liver, whole)
    # undoing all of it brings everything back
    site.post("a", "undo")
    assert site.post("a", "save").status_code == 200
    (tmp_path / "back.seg.nrrd").write_bytes(site.stored("a")[1])
    assert np.array_equal(read_segments(tmp_path / "back.seg.nrrd")[0].layers[0], sent.layers[0])


def test_downloads_tell_what_the_values_are(site: Site, slicer: Path, tmp_path: Path) -> None:
    site.put("a", slicer)
    site.work("a")
    (tmp_path / "a.nii.gz").write_bytes(site.download("a", "nifti"))
    (tmp_path / "a.tsv").write_bytes(site.download("a", "names"))
    table = {s.name: s for s in read_sidecar(tmp_path / "a.nii.gz")}
    flat = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    assert table["Herd"].colour == (255, 0, 0) and table["Leber"].colour == (128, 64, 32)
    assert (flat == table["Herd"].value).sum() == 18
    assert (flat == table["Leber"].value).sum() == 12 * 8 * 4 - 18
    assert np.allclose(nib.load(tmp_path / "a.nii.gz").affine, AFFINE)


# --- DICOM SEG of others ---


@pytest.fixture
def series(tmp_path: Path) -> Path:
    phantom_series(tmp_path / "studies" / "ct", shape=SHAPE)
    return tmp_path / "studies" / "ct"


def _overlapping() -> Segments:
    big, small = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    big[3:15, 4:12, 1:5], small[6:9, 6:9, 2:4] = 2, 1
    return Segments((small, big), (StoredSegment("Tumor", 1, 0, 1), StoredSegment("Liver", 2, 1, 2)))


def _uid(series: Path) -> str:
    return str(pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID)


def test_overlapping_segments_survive_reading_and_saving(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies" / "seg").mkdir()
    write_segmentation(_overlapping(), (), open_series(series), tmp_path / "studies" / "seg" / "s.dcm")
    site = _site(tmp_path / "studies", tmp_path, monkeypatch)
    image = _uid(series)
    told = site.work(image)
    assert {"Tumor", "Liver"} <= told["labels"].keys()
    assert "Tumor on Liver" in told["warnings"][0]
    assert site.post(image, "save").json()["seg"]
    made = tmp_path / "studies" / "labels" / "seg" / f"{image}.dcm"
    assert [item.SegmentLabel for item in pydicom.dcmread(made).SegmentSequence] == ["Tumor", "Liver"]
    found = _masks(made, series)
    for segment in _overlapping().segments:
        assert np.array_equal(found[segment.name], _overlapping().mask(segment))
    assert site.stored(image)[0] == f"{image}.seg.nrrd"


def _masks(file: Path, series: Path) -> dict[str, np.ndarray]:
    """By name, by the frames alone."""
    data, place = pydicom.dcmread(file), np.linalg.inv(open_series(series).affine)
    out = {item.SegmentLabel: np.zeros(SHAPE, bool) for item in data.SegmentSequence}
    for frame, group in zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True):
        k = round(float((place @ [*map(float, group.PlanePositionSequence[0].ImagePositionPatient), 1])[2]))
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        out[data.SegmentSequence[number - 1].SegmentLabel][:, :, k] = frame.T > 0
    return out


def _labelmap(file: Path) -> None:
    """Turn a SEG into a label map of three frames."""
    data = pydicom.dcmread(file)
    stored = data.pixel_array
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = LABELMAP_STORAGE
    data.SegmentationType, data.BitsAllocated, data.BitsStored, data.HighBit = "LABELMAP", 8, 8, 7
    frames, groups = {}, {}
    for frame, group in zip(stored, data.PerFrameFunctionalGroupsSequence, strict=True):
        place = tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient))
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        frames[place] = np.where(frame > 0, number, frames.get(place, 0)).astype(np.uint8)
        del group.SegmentIdentificationSequence
        groups[place] = group
    data.PerFrameFunctionalGroupsSequence = list(groups.values())
    data.NumberOfFrames = len(groups)
    data.PixelData = b"".join(frame.tobytes() for frame in frames.values())
    data["PixelData"].VR = "OB"
    data.save_as(file)


def test_a_label_map_of_dicom_is_read(series: Path, tmp_path: Path) -> None:
    labels = _two()
    write_segmentation(labels, ["liver", "spleen"], open_series(series), tmp_path / "s.dcm")
    _labelmap(tmp_path / "s.dcm")
    found, names = read_segmentation(tmp_path / "s.dcm", open_series(series))
    assert names == {1: "liver", 2: "spleen"} and np.array_equal(found, labels)


@pytest.mark.parametrize("fault", ["frame of reference", "cut", "elsewhere", "no label", "label map"])
def test_a_seg_that_cannot_be_read_never_blocks_its_image(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    file = tmp_path / "studies" / "seg" / "s.dcm"
    file.parent.mkdir()
    write_segmentation(_two(), ["liver", "spleen"], open_series(series), file)
    data = pydicom.dcmread(file)
    if fault == "frame of reference":
        data.FrameOfReferenceUID = generate_uid()
    elif fault == "elsewhere":
        for group in data.PerFrameFunctionalGroupsSequence:
            group.PlanePositionSequence[0].ImagePositionPatient[2] += 900
    elif fault == "no label":
        for item in data.SegmentSequence:
            del item.SegmentLabel
    data.save_as(file)
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-300])
    elif fault == "label map":
        _labelmap(file)
    site, image = _site(tmp_path / "studies", tmp_path, monkeypatch), _uid(series)
    told = site.work(image)
    if fault in ("no label", "label map"):
        assert told["warnings"] == [] and told["changes"]
        assert told["labels"].keys() >= (
            {"segment 1", "segment 2"} if fault == "no label" else {"liver", "spleen"}
        )
    else:
        assert told["changes"] == []
        words = {
            "frame of reference": "another frame",
            "cut": "damaged",
            "elsewhere": "does not lie on the series",
        }
        assert words[fault] in told["warnings"][0] and "cannot be opened" in told["warnings"][0]
        assert site.client.get("/datastore/label", params={"label": image, "tag": "final"}).status_code == 400
    prompt = site.post(image, "prompt", model="classical", label="object", box=[4, 18, 4, 16, 2, 2])
    assert prompt.status_code == 200, prompt.text
    saved = site.post(image, "save")
    assert saved.status_code == 200 and saved.json()["seg"], saved.text
    made = tmp_path / "studies" / "labels" / "seg" / f"{image}.dcm"
    assert "object" in [item.SegmentLabel for item in pydicom.dcmread(made).SegmentSequence]
    assert site.completed() == 1


def test_a_segmentation_of_3d_slicer_becomes_a_dicom_seg_with_all_that_it_holds(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segmed.imaging.labels.writing import write_labels

    site, image = _site(tmp_path / "studies", tmp_path, monkeypatch), _uid(series)
    red = tuple(s.coloured((255, 0, 0)) if s.name == "Tumor" else s for s in _overlapping().segments)
    sent = Segments(_overlapping().layers, red)
    write_labels(sent, read_volume(site.app.image_path(image)).affine, tmp_path / "s.seg.nrrd")
    assert site.put(image, tmp_path / "s.seg.nrrd").status_code == 200
    found = _masks(tmp_path / "studies" / "labels" / "seg" / f"{image}.dcm", series)
    for segment in sent.segments:
        assert np.array_equal(found[segment.name], sent.mask(segment))
    (tmp_path / "back.seg.nrrd").write_bytes(site.stored(image)[1])
    back, _ = read_segments(tmp_path / "back.seg.nrrd")
    assert [(s.name, s.layer, s.layer_value) for s in back.segments] == [("Tumor", 0, 1), ("Liver", 1, 2)]
    assert back.segments[0].colour == (255, 0, 0)
    assert all(np.array_equal(a, b) for a, b in zip(back.layers, sent.layers, strict=True))


# --- masks as prompts ---


def test_a_prompt_finds_its_structure_by_name_and_place(tmp_path: Path, slicer: Path) -> None:
    turned = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(_two(2, 5)[::-1]), turned), tmp_path / "turned.nii.gz")
    grid = Grid(SHAPE, AFFINE)
    sent = {"label_info": _named(("spleen", 2), ("kidney", 5))}
    mask = prompt_mask(tmp_path / "turned.nii.gz", grid, "kidney", sent)
    assert np.array_equal(mask, _two(2, 5) == 5)
    assert np.array_equal(prompt_mask(tmp_path / "turned.nii.gz", grid, "", sent), _two() > 0)
    lesion, sent_file = prompt_mask(slicer, grid, "Herd", {}), read_segments(slicer)[0]
    assert np.array_equal(lesion, sent_file.mask(sent_file.segments[1]))
    assert np.array_equal(prompt_mask(slicer, grid, "Leber", {}), sent_file.mask(sent_file.segments[0]))
    with pytest.raises(ValueError, match="does not lie on its image"):
        prompt_mask(tmp_path / "turned.nii.gz", Grid(SHAPE, _far()), "kidney", sent)


def test_a_new_label_keeps_its_value_from_save_to_save(site: Site) -> None:
    site.put("a", _nifti(_two(1, 7)), "label.nii", label_info=_named(("kidney", 1), ("aorta", 7)))
    seen = []
    for i, name in ((0, "liver"), (2, "x"), (4, "spleen"), (6, "y")):
        known = site.post("a", "paint", label=name, changes=[]).json()["labels"]
        data = base64.b64encode(zlib.compress(bytes([known[name]]))).decode()
        change = {"k": 0, "i": [i, i + 1], "j": [0, 1], "data": data}
        assert site.post("a", "paint", label=name, changes=[change]).status_code == 200
        assert site.post("a", "save").status_code == 200
        seen.append({item["name"]: item["idx"] for item in site.info("a")["label_info"]})
    for before, after in itertools.pairwise(seen):
        assert after.items() > before.items()
    assert len(set(seen[-1].values())) == 6
