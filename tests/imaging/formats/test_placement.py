"""A mask lies where its image lies, for every reader, whatever the header says of its place."""

from __future__ import annotations

import gzip
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segmed.imaging.formats.itk import itk_affine
from segmed.imaging.formats.nifti_place import nifti_affines, nifti_header, same_place
from segmed.imaging.grid import image_grid, read_grid, read_labels
from segmed.imaging.labels.masks import write_mask, write_nrrd_slices
from segmed.imaging.reading import read_volume
from segmed.server.http.volume_stream import nifti_pieces

SHAPE = (5, 6, 4)
PLACE = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
sizes = st.floats(0.2, 6).map(lambda v: round(v, 3))
offsets = st.floats(-400, 400).map(lambda v: round(v, 2))
quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Placed:
    """How a header places its voxels."""

    qform: np.ndarray
    sform: np.ndarray
    codes: tuple[int, int]
    unit: str | None
    packed: bool

    def save(self, folder: Path, name: str = "image") -> Path:
        voxels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
        image = nib.Nifti1Image(voxels, None)
        image.header.set_qform(self.qform, self.codes[0], strip_shears=True)
        image.header.set_sform(self.sform, self.codes[1])
        image.header["qform_code"], image.header["sform_code"] = self.codes
        if self.unit:
            image.header.set_xyzt_units(self.unit)
        path = folder / f"{name}.nii{'.gz' if self.packed else ''}"
        nib.save(image, path)
        return path


@st.composite
def rigid(draw: st.DrawFn) -> np.ndarray:
    """(4, 4): axes in any order and direction, turned, of any size."""
    axes = np.eye(3)[list(draw(st.permutations(range(3))))] * [
        draw(st.sampled_from((-1, 1))) for _ in range(3)
    ]
    angle = draw(st.sampled_from((0.0, 0.2, 1.1)))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * [draw(sizes) for _ in range(3)]
    affine[:3, 3] = [draw(offsets) for _ in range(3)]
    return affine


@st.composite
def placed(draw: st.DrawFn) -> Placed:
    qform = draw(rigid())
    sform = qform if draw(st.booleans()) else qform + np.outer([1, 0, 0, 0], [0, 0, 0, draw(offsets)])
    codes = draw(st.tuples(st.sampled_from((0, 1, 2)), st.sampled_from((0, 1, 2, 4))))
    unit = draw(st.sampled_from((None, "mm", "micron", "meter")))
    return Placed(qform, sform, codes, unit, draw(st.booleans()))


def _itk(path: Path) -> np.ndarray:
    return itk_affine(sitk.ReadImage(str(path)))


def _vtk(path: Path) -> list[np.ndarray]:
    """Both placements of a header, as VTK's reader offers them, and its unit."""
    header = nifti_header(path)
    return [header.get_qform(), header.get_sform(), np.diag([int(header["xyzt_units"]) & 7] * 4)]


def _mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:4, 2:5, 1:3] = 1
    mask[0, 0, 0] = 2
    return mask


@quick
@given(placed())
def test_nifti_masks_have_the_place_of_their_image_for_all_readers(how: Placed) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = how.save(folder)
        volume = read_volume(image)
        assert same_place(volume.affine, _itk(image), SHAPE)
        for extension in (".nii", ".nii.gz"):
            path = folder / f"mask{extension}"
            write_mask(_mask(), volume.affine, path, like=image)
            assert np.array_equal(np.asarray(nib.load(path).dataobj), _mask())
            assert np.array_equal(nib.load(path).affine, nib.load(image).affine)
            assert np.array_equal(_itk(path), _itk(image))
            for mine, theirs in zip(_vtk(path), _vtk(image), strict=True):
                assert np.array_equal(mine, theirs)
            for field in PLACE:
                assert np.array_equal(nifti_header(path)[field], nifti_header(image)[field])
            assert np.array_equal(read_labels(path, image_grid(image, SHAPE, volume.affine)), _mask())


@quick
@given(placed(), st.booleans())
def test_nrrd_masks_lie_where_itk_puts_the_image(how: Placed, piecewise: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        image, path = how.save(Path(name)), Path(name) / "mask.nrrd"
        volume = read_volume(image)
        if piecewise:
            write_nrrd_slices({k: _mask()[:, :, k].T for k in range(SHAPE[2])}, SHAPE, volume.affine, path)
        else:
            write_mask(_mask(), volume.affine, path, like=image)
        assert same_place(_itk(path), _itk(image), SHAPE)
        array, header = nrrd.read(str(path))
        lps = np.eye(4)
        lps[:3, :3], lps[:3, 3] = header["space directions"].T, header["space origin"]
        assert header["space"] == "left-posterior-superior"
        assert same_place(np.diag([-1.0, -1, 1, 1]) @ lps, _itk(image), SHAPE)
        assert np.array_equal(array, _mask())
        assert np.array_equal(read_labels(path, image_grid(image, SHAPE, volume.affine)), _mask())


@quick
@given(placed(), st.permutations(range(3)), st.tuples(*[st.sampled_from((-1, 1))] * 3), st.booleans())
def test_masks_of_others_are_brought_onto_the_image_however_they_are_stored(
    how: Placed, order: list[int], signs: tuple[int, int, int], by_itk: bool
) -> None:
    """Written by nibabel or by ITK, with the axes turned; both mean the image that they have read."""
    with tempfile.TemporaryDirectory() as name:
        image = how.save(Path(name))
        volume = read_volume(image)
        base = _itk(image) if by_itk else nib.load(image).affine
        step = np.zeros((4, 4))
        step[order, np.arange(3)], step[3, 3] = signs, 1
        step[:3, 3] = [(n - 1) * (step[axis, :3].sum() < 0) for axis, n in enumerate(SHAPE)]
        turned = np.ascontiguousarray(_mask().transpose(order)[tuple(slice(None, None, s) for s in signs)])
        path = Path(name) / ("mask.nrrd" if by_itk else "mask.nii.gz")
        if by_itk:
            write_mask(turned, base @ step, path)
        else:
            nib.save(nib.Nifti1Image(turned, base @ step), path)
        assert np.array_equal(read_labels(path, image_grid(image, SHAPE, volume.affine)), _mask())


@given(rigid(), st.floats(-0.4, 0.4))
@quick
def test_masks_of_images_that_are_no_nifti_lie_right_for_all_readers(affine: np.ndarray, tilt: float) -> None:
    affine = affine.copy()
    affine[:3, 2] += tilt * affine[:3, 1]  # a tilted gantry
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "mask.nii.gz"
        write_mask(_mask(), affine, path)
        assert same_place(nib.load(path).affine, affine, SHAPE)
        header = nifti_header(path)
        assert header.get_xyzt_units()[0] == "mm"
        if abs(tilt) < 1e-6:
            assert same_place(_itk(path), affine, SHAPE, 0.01)
            assert same_place(header.get_qform(), affine, SHAPE, 0.01)
        elif abs(tilt) > 0.01:
            assert int(header["qform_code"]) == 0  # no rotation says it, and a wrong one would be believed


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (1, 1)])
def test_a_negative_size_in_the_header_is_kept(tmp_path: Path, codes: tuple[int, int]) -> None:
    affine = np.diag([1.0, 1, 2, 1])
    affine[:3, 3] = 5, 6, 7
    image = Placed(affine, affine, codes, None, False).save(tmp_path)
    bytes_of = bytearray(image.read_bytes())
    bytes_of[80:84] = np.float32(-1).tobytes()
    image.write_bytes(bytes_of)
    volume = read_volume(image)
    for extension in (".nii.gz", ".nrrd"):
        write_mask(_mask(), volume.affine, tmp_path / f"mask{extension}", like=image)
        assert same_place(_itk(tmp_path / f"mask{extension}"), _itk(image), SHAPE)
    assert gzip.decompress((tmp_path / "mask.nii.gz").read_bytes())[76:108] == image.read_bytes()[76:108]


def test_the_places_of_a_header_that_contradicts_itself(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1, 2, 1])
    shifted = affine.copy()
    shifted[0, 3] = 10
    image = Placed(affine, shifted, (1, 2), "meter", True).save(tmp_path)
    itk, scaled, plain = nifti_affines(image, nib.load(image))
    assert itk[0, 0] == 1000 and itk[0, 3] == 0  # by qform, in metres
    assert scaled[0, 3] == 10_000 and plain[0, 3] == 10
    grid = read_grid(image)
    assert grid.affine is not None and np.allclose(grid.affine, itk)
    assert len(grid.others) == 2
    assert np.allclose(read_volume(image).affine, itk)


def test_a_picture_of_two_axes_keeps_its_place(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((5, 6), np.int16), np.diag([0.5, 0.7, 1, 1]))
    nib.save(image, tmp_path / "flat.nii")
    volume = read_volume(tmp_path / "flat.nii")
    assert volume.shape == (5, 6, 1)
    write_mask(np.ones((5, 6, 1), np.uint8), volume.affine, tmp_path / "mask.nii", like=tmp_path / "flat.nii")
    assert np.allclose(nib.load(tmp_path / "mask.nii").affine, image.affine)
    assert sitk.ReadImage(str(tmp_path / "mask.nii")).GetSize() == (5, 6, 1)


@pytest.mark.parametrize("codes", [(0, 1), (0, 2), (1, 1), (1, 2)])
@pytest.mark.parametrize("rows", [np.zeros((3, 4)), np.ones((3, 4))])
def test_an_sform_without_extent_counts_as_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codes: tuple[int, int], rows: np.ndarray
) -> None:
    affine = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])
    image = Placed(affine, affine, codes, None, True).save(tmp_path)
    content = bytearray(gzip.decompress(image.read_bytes()))
    content[280:328] = rows.astype("<f4").tobytes()  # srow_x, srow_y, srow_z
    image.write_bytes(gzip.compress(content))
    volume = read_volume(image)
    assert "puts all voxels onto one plane" in caplog.text
    assert volume.spacing == pytest.approx((1.5, 2, 3))
    if codes[0]:
        assert same_place(volume.affine, affine, SHAPE)
    (tmp_path / "volume.nii").write_bytes(b"".join(nifti_pieces(volume)[1]))
    write_mask(_mask(), volume.affine, tmp_path / "mask.nii.gz", like=image)
    for path in (tmp_path / "volume.nii", tmp_path / "mask.nii.gz"):
        assert same_place(_itk(path), volume.affine, SHAPE)
    assert np.array_equal(
        read_labels(tmp_path / "mask.nii.gz", image_grid(image, SHAPE, volume.affine)), _mask()
    )


@pytest.mark.parametrize("codes", [(0, 2), (2, 0), (0, 0), (1, 2)])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_a_mask_of_nifti_2_is_nifti_1_and_lies_on_its_image(
    tmp_path: Path, codes: tuple[int, int], extension: str
) -> None:
    """ITK reads no NIfTI-2; nibabel does."""
    affine = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])
    image = nib.Nifti2Image(np.zeros(SHAPE, np.int16), affine)
    image.header.set_xyzt_units("micron")
    image.header.set_qform(affine + np.outer([9, 0, 0, 0], [0, 0, 0, codes[1]]), 1)
    image.header["qform_code"], image.header["sform_code"] = codes
    image.to_filename(tmp_path / "image.nii.gz")
    volume = read_volume(tmp_path / "image.nii.gz")
    known = nib.load(tmp_path / "image.nii.gz").affine
    assert same_place(volume.affine, np.diag([1e-3, 1e-3, 1e-3, 1]) @ known, SHAPE)
    path = tmp_path / f"mask{extension}"
    write_mask(_mask(), volume.affine, path, like=tmp_path / "image.nii.gz")
    mask = nib.load(path)
    assert not isinstance(mask, nib.Nifti2Image) and mask.header.get_xyzt_units()[0] == "micron"
    assert same_place(mask.affine, known, SHAPE) and same_place(_itk(path), volume.affine, SHAPE)
    grid = image_grid(tmp_path / "image.nii.gz", SHAPE, volume.affine)
    assert np.array_equal(read_labels(path, grid), _mask())


@pytest.mark.parametrize(("length", "taken"), [(1.000002, True), (1.01, False)])
def test_a_quaternion_that_is_rounded_up(tmp_path: Path, length: float, taken: bool) -> None:
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), None)
    image.header.set_qform(np.diag([-2.0, -2, 3, 1]), 1)  # half a turn around k
    image.header["quatern_d"] = length
    image.header["sform_code"] = 0
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<hh", data, 252, 1, 0)
    struct.pack_into("<3f", data, 256, 0, 0, length)
    path.write_bytes(data)
    if taken:
        assert np.allclose(read_volume(path).affine[:3, :3], np.diag([-2, -2, 3]))
    else:
        with pytest.raises(ValueError, match="damaged"):
            read_volume(path)
