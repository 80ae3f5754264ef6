"""Reads the voxels of a DICOM series: each file by ITK, with its own rescaling, placed by its header."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset

from segmed.imaging.formats.dicom_faults import check_complete, fault_of, is_dicom
from segmed.imaging.formats.dicom_frames import DicomFrame, frames_of, read_header, whole
from segmed.imaging.formats.dicom_layout import Layout, arrange
from segmed.imaging.formats.dicom_place import place_of, step_without_positions
from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.formats.itk import quiet_itk
from segmed.imaging.formats.limits import check_size

logger = logging.getLogger(__name__)
_TIMES = (
    "EnergyWindowVector",
    "TimeSlotVector",
    "RotationVector",
    "DetectorVector",
    "PhaseVector",
    "RRIntervalVector",
)
_AS_STORED = (1.0, 0.0)
_SCALES = ("RescaleSlope", "RescaleIntercept", "PixelValueTransformationSequence")
# their values are shades, so those of MONOCHROME1 are inverted for bones to be bright; others are measured
_RADIOGRAPHS = ("CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA")


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series.

    Attributes:
        name: Name of the folder or file.
        files: Files of the series without copies.
        headers: Headers of the files, without voxels.
        layout: Frames of the files by slice.
    """

    name: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    layout: Layout

    @property
    def ordered(self) -> list[Path]:
        """The files in the order of the slices; each once."""
        return list(dict.fromkeys(self.files[frame.file] for frame in self.layout.frames))

    @property
    def place_note(self) -> str:
        """A sentence on the distance of slices that do not say where they lie; "" if they do."""
        return step_without_positions(self.layout, self.headers[0], self.name)[1]


def open_dicom(path: Path) -> DicomSeries:
    """Read the headers of a series and put its slices in order.

    Args:
        path: Folder of one series, or a file.

    Raises:
        ImageFault: The files are not one series, or the series is not a volume.
        RuntimeError: The file has no header.
    """
    files = _dicom_files(path) if path.is_dir() else [path]
    headers, readable = [], []
    for file in files:
        try:
            headers.append(read_header(file))
            readable.append(file)
        except Exception as error:
            logger.info("cannot read the header of %s: %s", file, type(error).__name__)
    if path.is_dir():
        kept = [n for n, header in enumerate(headers) if header.get("Rows")]
        readable, headers = [readable[n] for n in kept], [headers[n] for n in kept]
        check_complete(path, [str(file) for file in readable])
    _check_one_series(path, headers)
    readable, headers = _without_copies(readable, headers)
    frames: list[DicomFrame] = []
    for n, header in enumerate(headers):
        try:
            frames += frames_of(header, n)
        except ValueError as error:
            raise ImageFault(f"{path.name} is damaged: {error}. Export it again from its source.") from error
    _check_frames(frames, headers, path.name)
    if all(frame.position is None for frame in frames):
        order = sorted(
            range(len(headers)), key=lambda n: (whole(headers[n].get("InstanceNumber")), readable[n].name)
        )
        rank = {n: at for at, n in enumerate(order)}
        frames.sort(key=lambda frame: rank[frame.file])
    return DicomSeries(path.name, tuple(readable), tuple(headers), arrange(frames, path.name))


def read_dicom(series: DicomSeries) -> tuple[np.ndarray, np.ndarray, str, str]:
    """Voxels (I, J, K) or (I, J, K, 3), affine to LPS mm, modality, and a sentence on assumed sizes or "".

    Raises:
        ImageFault: The slices have several sizes, files cannot be read, or the compression is not supported.
        RuntimeError: The only file is damaged or is not an image.
    """
    layout = series.layout
    sides = [max(whole(header.get(side)) for header in series.headers) for side in ("Columns", "Rows")]
    check_size((*sides, len(layout.frames)), series.name)
    slices: dict[int, list[tuple[int, DicomFrame]]] = {}
    for k, frame in enumerate(layout.frames):
        slices.setdefault(frame.file, []).append((k, frame))
    out: np.ndarray | None = None
    first: sitk.Image | None = None
    for file, wanted in slices.items():
        image = _readable(series, file, any(frame.scale not in (None, _AS_STORED) for _, frame in wanted))
        voxels = sitk.GetArrayViewFromImage(image)
        voxels = voxels if image.GetDimension() == 3 else voxels[None]
        first = image if first is None else first
        for k, frame in wanted:
            one = _scaled(voxels[frame.index or 0], frame)
            out = _room(out, one, len(layout.frames))
            if out.shape[:2] != one.shape[1::-1] or out.ndim != one.ndim + 1:
                raise ImageFault(
                    _fault(series) or f"The slices of {series.name} are partly grey and partly coloured."
                )
            out[:, :, k] = np.swapaxes(one, 0, 1)
    assert out is not None and first is not None
    affine, note = place_of(first, layout, series.headers[0], series.name)
    return out, affine, _modality(series.headers[0]), note


def _modality(header: Dataset) -> str:
    return str(header.get("Modality") or "").strip()


def _readable(series: DicomSeries, file: int, stored: bool) -> sitk.Image:
    header = series.headers[file]
    negative = str(header.get("PhotometricInterpretation") or "").strip() == "MONOCHROME1"
    try:
        return _read_file(series.files[file], stored, negative and _modality(header) not in _RADIOGRAPHS)
    except RuntimeError as error:
        logger.info("cannot read %s: %s", series.files[file], error)
        fault = _fault(series)
        if len(series.files) == 1 and not fault:
            raise
        raise ImageFault(
            fault
            or f"{_damaged(series, file)} of the {len(series.files)} DICOM files of {series.name} cannot be "
            f"read, such as {series.files[file].name}: damaged, or no image. Fetch the whole series again."
        ) from error


def _damaged(series: DicomSeries, first: int) -> int:
    """Number of files that cannot be read."""
    count = 1
    for n in range(len(series.files)):
        if n != first:
            try:
                _by_itk(series.files[n])
            except RuntimeError:
                count += 1
    return count


def _fault(series: DicomSeries) -> str:
    return fault_of([str(file) for file in series.files], series.name)


def _dicom_files(folder: Path) -> list[Path]:
    names = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in names if path.name.upper() != "DICOMDIR" and is_dicom(path)]


def _check_one_series(path: Path, headers: Sequence[Dataset]) -> None:
    if not headers:
        if path.is_dir():
            raise ImageFault(
                f"The folder {path.name} holds no DICOM series. Give a folder of .dcm files or an image."
            )
        raise RuntimeError("no header")
    series = {str(header.get("SeriesInstanceUID") or "") for header in headers}
    if len(series) > 1:
        raise ImageFault(
            f"The folder {path.name} holds {len(series)} DICOM series, but one image is segmented at a time. "
            "Put each series into a folder of its own."
        )
    for name, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies")):
        found = {str(header.get(name) or "").strip() for header in headers} - {""}
        if len(found) > 1:
            raise ImageFault(
                f"The DICOM files of {path.name} have one SeriesInstanceUID, but are of {len(found)} {what}. "
                "Export each series again from its source, with a UID of its own."
            )


def _without_copies(files: list[Path], headers: list[Dataset]) -> tuple[list[Path], list[Dataset]]:
    """Without files that hold the very bytes of another; equal UIDs alone make no copy."""
    uids = Counter(str(header.get("SOPInstanceUID") or n) for n, header in enumerate(headers))
    digests: set[bytes] = set()
    kept = []
    for n, (file, header) in enumerate(zip(files, headers, strict=True)):
        if uids[str(header.get("SOPInstanceUID") or n)] > 1:
            digest = hashlib.sha256(file.read_bytes()).digest()
            if digest in digests:
                logger.info("%s is a copy of another file of its series", file.name)
                continue
            digests.add(digest)
        kept.append(n)
    return [files[n] for n in kept], [headers[n] for n in kept]


def _check_frames(frames: Sequence[DicomFrame], headers: Sequence[Dataset], name: str) -> None:
    """Refuse frames that are not slices, as far as the headers show."""
    many = [header for header in headers if whole(header.get("NumberOfFrames")) > 1]
    if many and len(headers) > 1 and any(frame.position is None for frame in frames):
        raise ImageFault(
            f"{name} holds {len(headers)} DICOM objects, of which {len(many)} are multi-frame and do not say "
            "where their frames lie. One image is segmented at a time: put each object into a series of its "
            "own."
        )
    for header in many:
        for vector in _TIMES:
            values = header.get(vector)
            if isinstance(values, pydicom.multival.MultiValue) and len(set(values)) > 1:
                words = vector.removesuffix("Vector")
                raise ImageFault(
                    f"The frames of {name} do not form a stack of slices: they differ in {words}. One 3-D "
                    "image is segmented at a time: export one of them, or the reconstructed volume."
                )


def _read_file(file: Path, stored: bool, negative: bool) -> sitk.Image:
    """One file by ITK.

    Args:
        file: Path of the file.
        stored: Whether it is read without scales, because each frame has one of its own.
        negative: Whether it is MONOCHROME1, of which ITK would invert the values, and they are measured.
    """
    image = _by_itk(file)  # always, for it refuses files that are cut off, which pydicom would fill up
    if not stored and not negative:
        return image
    with tempfile.TemporaryDirectory(prefix="frames-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(file, force=True)
        groups = [*(data.get("SharedFunctionalGroupsSequence") or ())]
        groups += data.get("PerFrameFunctionalGroupsSequence") or ()
        if negative:
            data.PhotometricInterpretation = "MONOCHROME2"
        for place in (data, *groups) if stored else ():
            for name in _SCALES:
                if name in place:
                    del place[name]
        plain = Path(folder) / "plain.dcm"
        data.save_as(plain)
        return _by_itk(plain)


def _by_itk(file: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(os.fspath(file))
    with quiet_itk():
        return reader.Execute()


def _scaled(voxels: np.ndarray, frame: DicomFrame) -> np.ndarray:
    """(J, I) or (J, I, 3) of one frame: stored values by its own slope and intercept."""
    if voxels.ndim == 3:
        voxels = voxels[..., :3]
    if frame.scale is None or frame.scale == _AS_STORED or voxels.ndim == 3:
        return voxels
    slope, intercept = frame.scale
    if slope.is_integer() and intercept.is_integer() and voxels.dtype.kind in "iu":
        return np.asarray(voxels.astype(np.int32) * int(slope) + int(intercept))
    return np.asarray(voxels.astype(np.float64) * slope + intercept)


def _room(out: np.ndarray | None, voxels: np.ndarray, depth: int) -> np.ndarray:
    """The volume, in a type that holds these voxels too."""
    kind = np.dtype(np.float32) if voxels.dtype == np.float64 else voxels.dtype
    if out is None:
        j, i = voxels.shape[:2]
        return np.zeros((i, j, depth, *voxels.shape[2:]), kind, order="F")
    both = np.result_type(out.dtype, kind)
    both = np.dtype(np.float32) if both == np.float64 else both
    return out if both == out.dtype else out.astype(both)
