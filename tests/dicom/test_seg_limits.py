"""A DICOM SEG of another maker is refused by its header when it is too large, and its image stays as it
is."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import bombs
import numpy as np
import psutil
import pydicom
import pytest
from dicom_phantom import phantom_series
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, SegmentationStorage
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.segmentation_limits import check_seg_size
from segmed.dicom.series import Series, open_series
from segmed.imaging.formats.limits import set_most_voxels
from segmed.imaging.labels.segments import pack
from segmed.imaging.reading import read_volume
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies

SHAPE = (24, 20, 6)


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    yield
    set_most_voxels(None)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    phantom_series(tmp_path / "study" / "ct", shape=SHAPE)
    return open_series(tmp_path / "study" / "ct")


def _seg(series: Series, path: Path) -> Dataset:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:9, 3:9, 1:4], labels[12:20, 5:15, 2:5] = 1, 2
    write_segmentation(labels, ["liver", "spleen"], series, path, "medsam")
    return pydicom.dcmread(path)


def test_frames_times_pixels_count(series: Series, tmp_path: Path) -> None:
    data = _seg(series, tmp_path / "seg.dcm")
    size = int(data.NumberOfFrames) * data.Rows * data.Columns
    set_most_voxels(size)
    read_segmentation(tmp_path / "seg.dcm", series)
    set_most_voxels(size - 1)
    with pytest.raises(ValueError, match=f"24 x 20 x {data.NumberOfFrames} voxels by its header"):
        read_segmentation(tmp_path / "seg.dcm", series)


def test_a_header_that_claims_much_costs_nothing(series: Series, tmp_path: Path) -> None:
    data = _seg(series, tmp_path / "seg.dcm")
    data.Rows = data.Columns = 65_535
    data.save_as(tmp_path / "seg.dcm")
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match="65535 x 65535 x"):
        read_segmentation(tmp_path / "seg.dcm", series)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_a_deflated_one_is_read_and_a_bomb_is_not(series: Series, tmp_path: Path) -> None:
    data = _seg(series, tmp_path / "seg.dcm")
    wanted = read_segmentation(tmp_path / "seg.dcm", series)[0]
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "deflated.dcm", write_like_original=False)
    assert np.array_equal(read_segmentation(tmp_path / "deflated.dcm", series)[0], wanted)
    bombs.deflated_dicom(tmp_path / "bomb.dcm")
    set_most_voxels(2**24)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match="inflates to more than"):
        read_segmentation(tmp_path / "bomb.dcm", series)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "deflated.dcm").read_bytes()[:-50])
    with pytest.raises((ValueError, zlib.error)):
        read_segmentation(tmp_path / "cut.dcm", series)


def test_voxels_that_are_marked_count(series: Series, tmp_path: Path) -> None:
    data = _seg(series, tmp_path / "seg.dcm")
    data.PixelData = b"\xff" * len(data.PixelData)
    data.save_as(tmp_path / "seg.dcm")
    size = int(data.NumberOfFrames) * data.Rows * data.Columns
    set_most_voxels(4 * size)
    read_segmentation(tmp_path / "seg.dcm", series)
    set_most_voxels(4 * size - 1)
    with pytest.raises(ValueError, match="voxels, which is the most"):
        read_segmentation(tmp_path / "seg.dcm", series)


def test_layers_of_segments_that_overlap_count() -> None:
    places = np.arange(3)
    set_most_voxels(3 * 100)
    assert len(pack([(n, places) for n in range(1, 4)], (10, 10, 1))[0]) == 3
    with pytest.raises(ValueError, match=r"10 x 10 x 1 x 4 voxels"):
        pack([(n, places) for n in range(1, 5)], (10, 10, 1))


def test_its_image_can_be_used_all_the_same(series: Series, tmp_path: Path) -> None:
    data = _seg(series, tmp_path / "study" / "seg.dcm")
    data.Rows = data.Columns = 65_535
    data.save_as(tmp_path / "study" / "seg.dcm")
    assert data.SOPClassUID == SegmentationStorage
    store = DicomFolderStudies(tmp_path / "study", DicomwebSettings().modalities)
    (image,) = store.list_images()
    assert read_volume(store.get_image_uri(image)).shape == SHAPE
    with pytest.raises(ValueError, match="voxels by its header"):
        store.get_label_uri(image, "final")
    with pytest.raises(ValueError, match="65535 x 65535"):
        check_seg_size(tmp_path / "study" / "seg.dcm")
