"""What the list of images tells, and file names."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_phantom import phantom_series
from segmed.dicom.file_series import SeriesFacts
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies
from segmed.server.pages.image_list import attachment, download_name, list_entry


def test_the_list_tells_whose_image_it_is_unless_that_is_hidden(tmp_path: Path) -> None:
    phantom_series(tmp_path / "a")
    store = DicomFolderStudies(tmp_path, ["CT"])
    (image,) = store.list_images()
    entry = list_entry(store, image, [], [image])
    files = len(list((tmp_path / "a").iterdir()))
    assert entry["patient"] and entry["patient_id"] == "phantom-axial" and entry["slices"] == files
    assert entry["date"] == "2026-01-01" and entry["unsaved"] and entry["labelled_by"] == ""
    assert download_name(store.get_image_info(image), image, "seg", ".dcm").startswith(
        "phantom-axial-2026-01-01-"
    )
    store.show_patient = False
    entry = list_entry(store, image, [], [])
    assert (entry["patient"], entry["patient_id"], entry["date"]) == ("", "", "2026-01-01")
    assert "PatientID" not in store.json()["objects"][image]["image"]["info"]
    assert "axial" not in download_name(store.get_image_info(image), image, "seg", ".dcm")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Doe^Jane^M", "Doe, Jane"),
        ("山田^太郎", "山田, 太郎"),
        ("Yamada^Taro=山田^太郎", "Yamada, Taro"),
        ("", ""),
    ],
)
def test_names_of_patients_are_written_as_people_write_them(written: str, shown: str) -> None:
    assert SeriesFacts("1.2", "1.3", patient_name=written).to_json()["PatientName"] == shown


def test_file_names_are_safe() -> None:
    info = {
        "PatientID": '../x"; y',
        "StudyDate": "20260102",
        "description": "CT Körper 3.0",
        "SeriesInstanceUID": "1.2",
    }
    assert download_name(info, "1.2", "nifti", ".nii.gz") == "x_y-2026-01-02-CT_Körper_3.0-nifti.nii.gz"
    assert download_name({"description": "b"}, "ct/ü", "nrrd", ".seg.nrrd") == "ct_ü-nrrd.seg.nrrd"
    assert download_name({}, "腫瘍\u202e🫀", "nrrd", ".seg.nrrd") == "腫瘍-nrrd.seg.nrrd"
    assert attachment("腫.nrrd") == "attachment; filename=\"_.nrrd\"; filename*=UTF-8''%E8%85%AB.nrrd"
    assert attachment("a.nrrd") == 'attachment; filename="a.nrrd"'


def test_whether_patients_are_shown_is_a_setting() -> None:
    assert DicomwebSettings.from_conf({}).show_patient
    assert not DicomwebSettings.from_conf({"show_patient": "no"}).show_patient
    with pytest.raises(ValueError, match="yes or no"):
        DicomwebSettings.from_conf({"show_patient": "maybe"})
