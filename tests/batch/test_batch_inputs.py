"""What a run reads: folders, lists, files of boxes; and how outputs are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from segmed.batch.items import list_files, read_list, safe_name
from segmed.batch.prompt_files import PromptBox, read_prompts
from segmed.batch.settings import RunSettings
from segmed.batch.sources import list_items
from segmed.data.phantom.dicom import write_demo_series


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def test_images_below_a_folder_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("b/ct.png", "a/ct.png", "a/ct.jpg", "a/CT.bmp"):
        _image(tmp_path / name)
    for name in (".hidden.png", "a/.x/y.png", "out/masks/ct.png"):
        _image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / "old.seg.nrrd").touch()
    found = list_items(RunSettings(str(tmp_path), "classical"), tmp_path / "out").items
    assert [item.key for item in found] == ["a/CT.bmp", "a/ct.jpg", "a/ct.png", "b/ct.png"]
    names = [item.name.lower() for item in found]
    assert names[3] == "b/ct" and len(set(names)) == 4
    assert all(name.startswith("a/ct-") for name in names[:3])
    assert found == list_files(tmp_path, tmp_path / "out").items, "the same each time"


def test_label_maps_of_a_server_are_no_images(tmp_path: Path) -> None:
    for name in ("ct.png", "labels/final/ct.png", "more/labels/mr.png"):
        _image(tmp_path / name)
    keys = [item.key for item in list_files(tmp_path).items]
    assert keys == ["ct.png", "labels/final/ct.png", "more/labels/mr.png"], "a folder that happens to be so"
    (tmp_path / "datastore_v2.json").write_text("{}")
    assert [item.key for item in list_files(tmp_path).items] == ["ct.png", "more/labels/mr.png"]


def test_a_list_may_repeat_images_and_name_some_that_are_not_there(tmp_path: Path) -> None:
    _image(tmp_path / "images" / "a.png")
    text = "# all\nimages/a.png\n\nimages/../images/a.png\nimages/gone.png\nimages/a.png\n"
    (tmp_path / "list.txt").write_text(text)
    found = read_list(tmp_path / "list.txt")
    assert [item.key for item in found.items] == ["images/../images/a.png", "images/a.png", "images/gone.png"]
    assert "1 of the 4 lines" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"\n# nothing\n", "names no image"),
        ("binary.txt", b"\xff\xfe\x00", "not a text file"),
        ("table.xlsx", b"PK", "neither an image nor a list"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        list_items(RunSettings(str(tmp_path / name), "classical"), tmp_path / "out")


def test_sources_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing at"):
        list_items(RunSettings(str(tmp_path / "gone"), "classical"), tmp_path / "out")
    with pytest.raises(ValueError, match="no image"):
        list_items(RunSettings(str(tmp_path), "classical"), tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("/abs/olute/ct.nii.gz", "abs/olute/ct"),
        ("../../etc/passwd.png", "etc/passwd"),
        ("Müller, Hans/Bild 1.png", "M_ller_Hans/Bild_1"),
        ("1.2.840.113619.2", "1.2.840.113619.2"),
        ("...png", ".."),
    ],
)
def test_names_of_outputs_stay_in_the_folder(key: str, name: str, tmp_path: Path) -> None:
    made = safe_name(key)
    assert (tmp_path / made).resolve().is_relative_to(tmp_path) and not made.startswith(".")
    if name != "..":
        assert made == name


def test_series_of_a_folder_are_items_by_their_uid(tmp_path: Path) -> None:
    (tmp_path / "deep" / "mixed").mkdir(parents=True)
    files = write_demo_series(tmp_path / "deep" / "mixed")
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID) for path in files}
    _image(tmp_path / "beside.png")
    found = list_items(RunSettings(str(tmp_path), "classical"), tmp_path / "out").items
    assert {item.key for item in found} == {*uids, "beside.png"}
    for path in files:  # a folder for each
        target = tmp_path / "apart" / str(pydicom.dcmread(path).SeriesInstanceUID) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    found = list_items(RunSettings(str(tmp_path), "classical"), tmp_path / "out").items
    assert {Path(item.source["folder"]).name for item in found if "folder" in item.source} == uids


CSV = "image,label,i0,i1,j0,j1,k0,k1\nct.nii.gz,liver,1,9,2,8,0,3\nct.nii.gz,,4,6,4,6,1,1\n"
JSON = {"ct": [{"label": "liver", "roi": [1, 9, 2, 8, 0, 3]}, [4, 6, 4, 6, 1, 1]]}
COCO = {
    "images": [{"id": 7, "file_name": "ct.nii.gz"}],
    "categories": [{"id": 2, "name": "liver"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 9, 7]},
        {"id": 2, "image_id": 7, "bbox": [4, 4, 3, 3]},
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "slices"),
    [("a.csv", CSV, (0, 3)), ("a.json", json.dumps(JSON), (0, 3)), ("coco.json", json.dumps(COCO), ())],
)
def test_boxes_are_read(tmp_path: Path, name: str, text: str, slices: tuple[float, ...]) -> None:
    (tmp_path / name).write_text(text)
    prompts = read_prompts(tmp_path / name)
    liver, other = prompts.of("studies/ct.nii.gz")
    assert liver == PromptBox("liver", (1, 9, 2, 8, *slices))
    assert other.label == "object" and other.roi[:4] == (4, 6, 4, 6)
    assert prompts.values == {"liver": 1, "object": 2}
    assert prompts.of("studies/mr.nii.gz") == ()
    assert prompts.strangers(["mr.nii.gz"]) and not prompts.strangers(["x/ct.nii.gz"])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "image,i0\n", "lacks columns"),
        ("a.csv", "image,i0,i1,j0,j1\nct,1,2,x,4\n", "line 2"),
        ("a.csv", "image,i0,i1,j0,j1\n", "holds no box"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "holds no object"),
        ("a.json", '{"ct": 5}', "list of boxes"),
        ("a.json", '{"ct": [[1, 2, 3]]}', "4 or 6 numbers"),
        ("a.json", '{"ct": [[1, 2, 3, NaN]]}', "4 or 6 numbers"),
        ("a.json", '{"annotations": [{"bbox": [1, 2, 3, 4]}], "images": []}', "is not COCO"),
    ],
)
def test_boxes_of_another_form_are_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"extension": ".mha"}, "not as '.mha'"),
        ({"send": True}, "DICOMweb address"),
        ({"filters": {"StudyDate": "2026"}}, "Leave them out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RunSettings("folder", "unet", **settings)  # type: ignore[arg-type]
