"""DICOM: values, places, times, frames, and headers that lack something."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from segmed.data.phantom.dicom import write_series

from corpus.dicom_frames import write_frames
from corpus.row import AFFINE, LPS, I, J, K, Row, brick

_TYPE = "SimpleITK/SimpleITK#1636, #1640; innolitics/dicom-numpy#1; rordenlab/dcm2niix#978"
_FRAMES = "horosproject/horos#467, #543; rordenlab/dcm2niix#839, #363; InsightSoftwareConsortium/ITK#208"
_BARE = "pydicom/pydicom#150, #2231; OHIF/Viewers#3185"
_UNEVEN = "missing, doubled or damaged"
_PLAIN = brick()
Edit = Callable[[Dataset, int], object]


def rows() -> Iterator[Row]:
    """All of them; names without extension are folders."""
    yield from _values()
    yield from _headers()
    yield from _syntaxes()
    yield from _damaged()
    yield from _places()
    yield from _times()
    yield from _enhanced()


def series(
    edit: Edit | None = None, modality: str = "CT", voxels: np.ndarray = _PLAIN
) -> Callable[[Path], object]:
    """Writes one file per slice, each as `edit` changes it."""

    def make(folder: Path) -> None:
        for k, path in enumerate(write_series(folder, voxels, AFFINE, modality=modality)):
            if edit:
                data = pydicom.dcmread(path)
                edit(data, k)
                syntax = data.file_meta.TransferSyntaxUID
                pydicom.dcmwrite(
                    path,
                    data,
                    implicit_vr=syntax == ImplicitVRLittleEndian,
                    little_endian=syntax != ExplicitVRBigEndian,
                    force_encoding=True,  # the pixels are in the order of the syntax already
                )

    return make


def _scale(scales: Sequence[tuple[float, float]]) -> Edit:
    def edit(data: Dataset, k: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = f"{scales[k][0]:.10g}", f"{scales[k][1]:.10g}"

    return edit


def _values() -> Iterator[Row]:
    kinds: dict[str, tuple[str, list[tuple[float, float]]]] = {
        "ct": ("CT", [(1, -1024)] * K),
        "ct_first_without_intercept": ("CT", [(1, 0), *[(1, -1024)] * (K - 1)]),
        "ct_last_without_intercept": ("CT", [*[(1, -1024)] * (K - 1), (1, 0)]),
        "ct_intercept_beyond_16_bits": ("CT", [(1, -100000)] * K),
        "ct_half_units": ("CT", [(0.5, -1000)] * K),
        "pet_slopes": ("PT", [(0.01 * (k + 1), 0) for k in range(K)]),
        "pet_first_whole": ("PT", [(1, 0), *[(0.0125, 0)] * (K - 1)]),
        "mr_slopes": ("MR", [(1 + k, k) for k in range(K)]),
        "mask_tiny_slopes": ("CT", [(1.526e-05, 0)] * K),
        "mask_first_whole": ("CT", [(1, 0), *[(1.526e-05, 0)] * (K - 1)]),
        "mask_last_tiny": ("CT", [*[(1, 0)] * (K - 1), (1.526e-05, 0)]),
    }
    for name, (modality, scales) in kinds.items():
        truth = np.stack(
            [_PLAIN[:, :, k] * float(f"{s:.10g}") + i for k, (s, i) in enumerate(scales)], axis=-1
        )
        yield Row(f"dicom_{name}", series(_scale(scales), modality), truth, affine=AFFINE, thread=_TYPE)

    def unsigned(data: Dataset, k: int) -> None:
        if k == 2:
            data.PixelRepresentation = 0
            data.PixelData = np.ascontiguousarray((_PLAIN[:, :, 2].astype(np.uint16) + 50000).T).tobytes()

    truth = _PLAIN.astype(np.int32)
    truth[:, :, 2] += 50000
    yield Row("dicom_types_mixed", series(unsigned), truth, thread=_TYPE)
    dark = series(lambda d, k: setattr(d, "PhotometricInterpretation", "MONOCHROME1"), "DX", _PLAIN[:, :, :1])
    yield Row("dicom_white_is_low", dark, -1 - _PLAIN[:, :, :1])  # dark and bright change places


def _headers() -> Iterator[Row]:
    def bare(syntax: str, without: Sequence[str] = ()) -> Callable[[Path], object]:
        def make(folder: Path) -> None:
            for path in write_series(folder, _PLAIN, AFFINE):
                data, plain = pydicom.dcmread(path), Dataset()
                plain.update({element.tag: element for element in data if element.keyword not in without})
                plain.is_little_endian, plain.is_implicit_VR = True, syntax == "implicit"
                path.unlink()
                plain.save_as(path.with_suffix(""), write_like_original=True)

        return make

    yield Row("dicom_bare_implicit", bare("implicit"), _PLAIN, affine=AFFINE, thread=_BARE)
    yield Row("dicom_bare_explicit", bare("explicit"), _PLAIN, affine=AFFINE, thread=_BARE)
    yield Row("dicom_bare_without_series", bare("implicit", ["SeriesInstanceUID"]), _PLAIN, thread=_BARE)
    yield Row("dicom_without_series", series(lambda d, k: delattr(d, "SeriesInstanceUID")), _PLAIN)
    yield Row("dicom_without_study", series(lambda d, k: delattr(d, "StudyInstanceUID")), _PLAIN)
    yield Row("dicom_equal_instances", series(lambda d, k: setattr(d, "SOPInstanceUID", "1.2.3")), _PLAIN)

    def copies(folder: Path) -> None:
        series()(folder)
        for path in list(folder.iterdir()):
            shutil.copy(path, folder / f"{path.stem} (1).dcm")

    yield Row("dicom_copies", copies, _PLAIN)

    def beside(folder: Path) -> None:
        series()(folder)
        (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
        (folder / "._000.dcm").write_bytes(b"\0\5\x16\7" + bytes(160))

    yield Row("dicom_of_a_disc", beside, _PLAIN, sent="not taken|cannot be read|files")


def _syntaxes() -> Iterator[Row]:
    def syntax(uid: str) -> Edit:
        def edit(data: Dataset, k: int) -> None:
            if uid == RLELossless:
                data.compress(RLELossless)
                return
            data.file_meta.TransferSyntaxUID = uid
            if uid == ExplicitVRBigEndian:
                data.PixelData = np.ascontiguousarray(_PLAIN[:, :, k].T, ">i2").tobytes()

        return edit

    for name, uid in (
        ("implicit", ImplicitVRLittleEndian),
        ("big_ends", ExplicitVRBigEndian),
        ("rle", RLELossless),
    ):
        yield Row(f"dicom_{name}", series(syntax(uid)), _PLAIN, affine=AFFINE)


def _damaged() -> Iterator[Row]:
    def cut(folder: Path) -> None:
        series()(folder)
        path = folder / "003.dcm"
        path.write_bytes(path.read_bytes()[:-120])

    yield Row("dicom_cut_off", cut, words="1 of the 6 DICOM files")

    def mixed(folder: Path) -> None:
        series()(folder)
        for k, path in enumerate(write_series(folder, _PLAIN, AFFINE, [f"b{k}.dcm" for k in range(K)])):
            assert path.exists(), k

    yield Row("dicom_two_series", mixed, words="holds 2 DICOM series")
    yield Row("dicom_single.dcm", _single, _PLAIN[:, :, :1])
    yield Row("noise.dcm", lambda path: path.write_bytes(bytes(range(256)) * 9), words="cannot be read")
    yield Row("empty.dcm", lambda path: path.write_bytes(b""), words="cannot be read")


def _single(path: Path) -> None:
    folder = path.with_suffix(".parts")
    shutil.move(str(write_series(folder, _PLAIN[:, :, :1], AFFINE)[0]), path)
    shutil.rmtree(folder)


def _places() -> Iterator[Row]:
    def move(change: Callable[[int, np.ndarray], np.ndarray]) -> Edit:
        def edit(data: Dataset, k: int) -> None:
            place = change(k, np.array(data.ImagePositionPatient, float))
            data.ImagePositionPatient = [f"{v:.8g}" for v in place]

        return edit

    tilted = AFFINE.copy()
    tilted[1, 2] = 0.5
    lean = move(lambda k, place: place + np.array([0, -0.5 * k, 0]))
    yield Row("dicom_tilted", series(lean), _PLAIN, affine=tilted)
    yield Row("dicom_names_in_another_order", _shuffled, _PLAIN, affine=AFFINE)
    gap = move(lambda k, place: place + np.array([0, 0, 5.0 * (k > 3)]))
    yield Row("dicom_gap", series(gap), words=_UNEVEN)
    doubled = move(lambda k, place: place - np.array([0, 0, 2.5 * (k == 3)]))
    yield Row("dicom_doubled", series(doubled), words=_UNEVEN)
    turned = series(lambda d, k: k == 3 and setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]))
    yield Row("dicom_directions", turned, words="same direction")
    wide = series(lambda d, k: k == 3 and setattr(d, "PixelSpacing", ["1.8", "1.8"]))
    yield Row("dicom_spacings", wide, words="differ in their pixel spacing")
    lost = series(lambda d, k: k == 3 and delattr(d, "ImagePositionPatient"))
    yield Row("dicom_one_without_place", lost, words="1 of the 6 slices .* do not say where they lie")

    def smaller(data: Dataset, k: int) -> None:
        if k == 3:
            data.Rows, data.PixelData = 4, data.PixelData[: 2 * 4 * I]

    yield Row("dicom_sizes", series(smaller), words="differ in size")


def _shuffled(folder: Path) -> None:
    write_series(folder, _PLAIN, AFFINE, ["z.dcm", "IM9.dcm", "IM30", "a.dcm", "IM1.dcm", "m"])


def _times() -> Iterator[Row]:
    tags: dict[str, tuple[str, tuple[object, object], str]] = {
        "times": ("TemporalPositionIdentifier", (1, 2), "2 time points"),
        "phases": ("TriggerTime", (0, 40), "2 cardiac phases"),
        "echoes": ("EchoTime", (5, 10), "2 echoes"),
        "b_values": ("DiffusionBValue", (0.0, 1000.0), "2 b-values"),
        "acquisitions": ("AcquisitionNumber", (1, 2), "2 acquisitions"),
        "clock": ("AcquisitionTime", ("101500", "101700"), "2 time points"),
        "nothing": ("", (0, 0), "doubled slices"),
    }
    for name, (tag, values, words) in tags.items():
        for where, places in (("places", K // 2), ("one_place", 1)):

            def edit(
                data: Dataset, k: int, places: int = places, tag: str = tag, values: tuple = values
            ) -> None:
                n = k % places
                data.ImagePositionPatient = [f"{v:.8g}" for v in (LPS @ AFFINE @ [0, 0, n, 1])[:3]]
                if tag:
                    setattr(data, tag, values[k // places] if places > 1 else values[k])

            voxels = _PLAIN if places > 1 else _PLAIN[:, :, :2]
            said = f"holds 2 images at {'each of its 3 places' if places > 1 else 'one place'}: {words}"
            yield Row(f"dicom_{where}_{name}", series(edit, "MR", voxels), words=said, thread=_FRAMES)


def _enhanced() -> Iterator[Row]:
    heights = [-30 + 2.5 * k for k in range(K)]
    for name, order in {
        "in_order": range(K),
        "from_top": range(K - 1, -1, -1),
        "anyhow": (3, 0, 5, 1, 4, 2),
    }.items():
        order = list(order)
        voxels, places = _PLAIN[:, :, order], [heights[n] for n in order]
        yield Row(f"frames_{name}.dcm", write_frames(voxels, places), _PLAIN, affine=AFFINE, thread=_FRAMES)
    scales = [(1 + 0.5 * k, k) for k in range(K)]
    truth = np.stack([_PLAIN[:, :, k] * s + i for k, (s, i) in enumerate(scales)], axis=-1)
    yield Row(
        "frames_slopes.dcm", write_frames(_PLAIN, heights, scales), truth, affine=AFFINE, thread=_FRAMES
    )
    shared = write_frames(_PLAIN, heights, shared=(2, -7))
    yield Row("frames_one_slope.dcm", shared, _PLAIN.astype(int) * 2 - 7, thread=_FRAMES)
    bad: dict[str, tuple[list[float], Callable[[int, Dataset], object], str]] = {
        "gap": ([0, 2, 4, 10, 12, 14], lambda n, g: None, "do not lie at even distances"),
        "repeated": ([0, 2, 4, 0, 2, 4], lambda n, g: None, "holds 2 images at each of its 3 places"),
        "one_place": ([0] * K, lambda n, g: None, "holds 6 images at one place"),
        "times": (
            [0, 2, 4, 0, 2, 4],
            lambda n, g: setattr(g.FrameContentSequence[0], "TemporalPositionIndex", n // 3 + 1),
            "2 time points",
        ),
        "stacks": (
            [0, 2, 4, 6, 8, 10],
            lambda n, g: setattr(g.FrameContentSequence[0], "StackID", str(n // 3)),
            "holds 2 stacks",
        ),
        "one_without_place": (
            [0, 2, 4, 6, 8, 10],
            lambda n, g: n == 4 and delattr(g, "PlanePositionSequence"),
            "1 of the 6 slices",
        ),
    }
    for name, (places, edit, words) in bad.items():
        make = write_frames(_PLAIN, places, edit=edit)
        yield Row(f"frames_{name}.dcm", make, words=words, thread=_FRAMES)

    def film(path: Path) -> None:
        _single(path)
        data = pydicom.dcmread(path)
        data.Modality, data.NumberOfFrames = "US", K
        data.PixelData = np.ascontiguousarray(_PLAIN.T, "<i2").tobytes()
        del data.ImagePositionPatient, data.ImageOrientationPatient
        data.save_as(path)

    yield Row("film.dcm", film, _PLAIN)
    assert J
