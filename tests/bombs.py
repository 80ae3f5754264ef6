"""Small files that cost much to decode."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

MIB = 2**20


def zeros(gibibytes: int, wbits: int) -> bytes:
    """So many GiB of zeros, deflated: 1 MiB of them again and again."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = machine.compress(bytes(MIB)) + machine.flush(zlib.Z_FULL_FLUSH)
    body = first * (1024 * gibibytes)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    return (b"\x1f\x8b\x08\0\0\0\0\0\0\xff" if wbits > 15 else b"") + body + end


def dicom(rows: int = 64, columns: int = 64, frames: int = 1) -> Dataset:
    """Header of an image without voxels."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality, data.PatientID, data.InstanceNumber = "CT", "1", 1
    data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelSpacing, data.ImagePositionPatient = [1, 1], [0, 0, 0]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    if frames > 1:
        data.NumberOfFrames = frames
    return data


def save(data: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    """Write a DICOM file."""
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = syntax
    data.is_little_endian, data.is_implicit_VR = True, False
    data.save_as(path, write_like_original=False)


def deflated_dicom(path: Path, gibibytes: int = 9) -> None:
    """A DICOM file whose data set, deflated, goes on for many GiB."""
    data = dicom()
    start = _encoded(data) + b"\xe0\x7f\x10\x00OW\0\0" + (0xFFFFFFF0).to_bytes(4, "little")
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = machine.compress(start) + machine.flush(zlib.Z_FULL_FLUSH) + zeros(gibibytes, -15)
    path.write_bytes(_preamble(data, DeflatedExplicitVRLittleEndian) + packed)


def wide_dicom(path: Path) -> None:
    """65,535 × 65,535 pixels by the header, and none in the file."""
    data = dicom(65_535, 65_535)
    data.PixelData = b"\0" * 1000
    save(data, path)


def run_length_dicom(path: Path) -> None:
    """Runs of zeros, packed, of which each frame has many times those that its header tells of."""
    data = dicom()
    data.PixelData = encapsulate([(2).to_bytes(4, "little") + bytes(60) + b"\x81\0" * (4 * MIB)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    save(data, path, RLELossless)


def many_frames_dicom(path: Path, items: int = 100_000) -> None:
    """So many functional groups, for frames of one pixel, that reading the header takes a minute."""
    group = Dataset()
    group.PlanePositionSequence = [Dataset()]
    group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 1]
    item = _encoded(group)
    item = b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
    groups = b"\x00\x52\x30\x92SQ\0\0" + (len(item) * items).to_bytes(4, "little") + item * items
    pixels = b"\xe0\x7f\x10\x00OW\0\0" + (2 * items).to_bytes(4, "little") + bytes(2 * items)
    data = dicom(1, 1, items)
    path.write_bytes(_preamble(data, ExplicitVRLittleEndian) + _encoded(data) + groups + pixels)


def _encoded(data: Dataset) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, data)
    return bytes(out.getvalue())


def _preamble(data: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_file_meta_info(out, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + bytes(out.getvalue())


def nifti(path: Path, shape: tuple[int, ...] = (1024, 1024, 1024), gibibytes: int = 8) -> None:
    """float64 voxels that unpack to 8 GiB, as the header says; not packed, there are none."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    head = header.binaryblock + b"\0" * 4
    path.write_bytes(
        gzip.compress(head) + zeros(gibibytes, 31) if path.suffix == ".gz" else head + b"\0" * 100
    )


def nrrd(path: Path, gibibytes: int = 8) -> None:
    """Voxels that unpack to 8 GiB, as the header says."""
    head = "NRRD0004\ntype: double\ndimension: 3\nsizes: 1024 1024 1024\nencoding: gzip\nendian: little\n\n"
    path.write_bytes(head.encode() + zeros(gibibytes, 31))
