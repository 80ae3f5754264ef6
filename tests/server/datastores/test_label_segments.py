"""Labels with segments: those that overlap, DICOM SEG of others, and masks as prompts."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_phantom import phantom_series
from label_site import AFFINE, Site, far_affine, label_info, make_site, two_labels
from pydicom.uid import generate_uid
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.segmentation_reading import LABELMAP_STORAGE
from segmed.dicom.series import open_series
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.imaging.grid import Grid
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.imaging.labels.sidecar import read_sidecar
from segmed.imaging.reading import read_volume
from segmed.server.datastores.label_check import prompt_mask
from study_folder import SHAPE


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
    site = make_site(tmp_path / "studies", tmp_path, monkeypatch)
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
    labels = two_labels()
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
    write_segmentation(two_labels(), ["liver", "spleen"], open_series(series), file)
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
    site, image = make_site(tmp_path / "studies", tmp_path, monkeypatch), _uid(series)
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

    site, image = make_site(tmp_path / "studies", tmp_path, monkeypatch), _uid(series)
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


def test_a_prompt_finds_its_structure_by_name_and_place(tmp_path: Path, slicer: Path) -> None:
    turned = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(
        nib.Nifti1Image(np.ascontiguousarray(two_labels(2, 5)[::-1]), turned), tmp_path / "turned.nii.gz"
    )
    grid = Grid(SHAPE, AFFINE)
    sent = {"label_info": label_info(("spleen", 2), ("kidney", 5))}
    mask = prompt_mask(tmp_path / "turned.nii.gz", grid, "kidney", sent)
    assert np.array_equal(mask, two_labels(2, 5) == 5)
    assert np.array_equal(prompt_mask(tmp_path / "turned.nii.gz", grid, "", sent), two_labels() > 0)
    lesion, sent_file = prompt_mask(slicer, grid, "Herd", {}), read_segments(slicer)[0]
    assert np.array_equal(lesion, sent_file.mask(sent_file.segments[1]))
    assert np.array_equal(prompt_mask(slicer, grid, "Leber", {}), sent_file.mask(sent_file.segments[0]))
    with pytest.raises(ValueError, match="does not lie on its image"):
        prompt_mask(tmp_path / "turned.nii.gz", Grid(SHAPE, far_affine()), "kidney", sent)


def test_a_label_whose_file_is_gone_tells_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = tmp_path / "plain"
    studies.mkdir()
    for file in (studies / "a.nii.gz", tmp_path / "label.nii.gz"):
        nib.save(nib.Nifti1Image(two_labels(), AFFINE), file)
    site = make_site(studies, tmp_path, monkeypatch)
    assert site.put("a", tmp_path / "label.nii.gz").status_code == 200
    Path(site.app.datastore().get_label_uri("a", "final")).unlink()
    (told,) = site.work("a")["warnings"]
    assert "its file is missing" in told and str(tmp_path) not in told
