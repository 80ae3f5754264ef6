"""Labels that are sent in: those that nothing can use are refused, and values keep what they mean."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_site import AFFINE, Site, far_affine, label_info, nifti_bytes, two_labels
from PIL import Image
from segmed.data.datastore import load_datastore
from segmed.imaging.labels.sidecar import read_sidecar
from study_folder import SHAPE


@pytest.mark.parametrize(
    ("labels", "affine", "names", "words"),
    [
        (two_labels()[:15], AFFINE, (), ["(15, 20, 6)", "15 voxels along i where the image has 24"]),
        (two_labels()[:, :, :4], AFFINE, (), ["4 voxels along k where the image has 6"]),
        (two_labels(), far_affine(), (), ["its middle lies 1559 mm from that of the image"]),
        (two_labels() * 0.5, AFFINE, (), ["values such as 0.5; allowed are whole numbers from 0 to 65535"]),
        (two_labels().astype(np.int16) - 2, AFFINE, (), ["allowed are whole numbers", "-2"]),
        (two_labels().astype(np.int32) * 60000, AFFINE, (), ["allowed are whole numbers", "120000"]),
        (two_labels(), AFFINE, (("x" * 80, 1), ("spleen", 2)), ["name has 1 to 64", "80"]),
        (two_labels(), AFFINE, (("a\nb", 1), ("c", 2)), ["name"]),
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
    content = nifti_bytes(labels, affine)
    answer = site.put("a", content, "label.nii", label_info=label_info(*names))
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
        answer = site.put(
            "p", file.getvalue(), "label.png", label_info=label_info(("liver", 1), ("spleen", 2))
        )
        assert answer.status_code == status, answer.text
    assert {item["value"]: item["name"] for item in site.info("p")["segments"]} == {1: "liver", 2: "spleen"}
    assert site.work("p")["labels"].items() >= {"liver": 1, "spleen": 2}.items()


def test_a_part_of_the_image_that_says_where_it_lies_is_taken(site: Site) -> None:
    place = AFFINE.copy()
    place[:3, 3] += AFFINE[:3, :3] @ [2, 3, 1]
    assert site.put("a", nifti_bytes(two_labels()[2:22, 3:18, 1:], place), "label.nii").status_code == 200
    site.work("a")
    downloaded = nib.Nifti1Image.from_bytes(gzip.decompress(site.download("a", "nifti")))
    assert np.array_equal(np.asarray(downloaded.dataobj), two_labels())


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
    labels = two_labels().astype(np.uint16)
    labels = np.where(labels == 1, values[0], np.where(labels == 2, values[1], 0)).astype(np.uint16)
    assert site.put("a", nifti_bytes(labels), "label.nii", label_info=label_info(*names)).status_code == 200
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
    site.put(
        "a", nifti_bytes(two_labels(1, 7)), "label.nii", label_info=label_info(("kidney", 1), ("aorta", 7))
    )
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
    assert np.array_equal(np.where(saved == values["liver"], 0, saved)[:, :, 1:], two_labels(1, 7)[:, :, 1:])


def test_what_a_client_calls_segments_is_not_believed(site: Site) -> None:
    lie = [{"value": 1, "name": "spleen"}]
    assert site.put("a", nifti_bytes(two_labels()), "label.nii", segments=lie).status_code == 200
    assert [item["name"] for item in site.info("a")["segments"]] == ["liver", "spleen"]


def test_a_newer_label_replaces_the_file_of_another_kind(site: Site, slicer: Path) -> None:
    place = site.folder / "labels" / "final"
    assert site.put("a", nifti_bytes(two_labels()), "label.nii").status_code == 200
    assert {path.name for path in place.iterdir()} == {"a.nii", "a.tsv"}
    assert site.put("a", slicer).status_code == 200
    assert {path.name for path in place.iterdir()} == {"a.seg.nrrd"}
    assert site.put("b", slicer).status_code == 200
    assert site.put("a", nib.Nifti1Image(two_labels(), AFFINE).to_bytes(), "x.nii").status_code == 200
    assert {path.name for path in place.iterdir()} == {"a.nii", "a.tsv", "b.seg.nrrd"}
    site.app.datastore().refresh()
    assert set(site.app.datastore().list_images()) == {"a", "b", "c", "p"}
    site.app.datastore().remove_label("a", "final")
    assert {path.name for path in place.iterdir()} == {"b.seg.nrrd"}


def test_a_new_label_keeps_its_value_from_save_to_save(site: Site) -> None:
    site.put(
        "a", nifti_bytes(two_labels(1, 7)), "label.nii", label_info=label_info(("kidney", 1), ("aorta", 7))
    )
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
