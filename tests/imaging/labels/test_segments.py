"""Segmentations of 3D Slicer, in and out, and tables of names beside NIfTI."""

from __future__ import annotations

import bz2
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segmed.imaging.formats.itk import itk_affine
from segmed.imaging.formats.seg_nrrd import is_segmentation, read_segments
from segmed.imaging.grid import Grid, read_grid, read_label_segments, read_labels
from segmed.imaging.labels.names import stored_names
from segmed.imaging.labels.segments import Segments, StoredSegment, pack
from segmed.imaging.labels.sidecar import read_sidecar, sidecar_of, write_sidecar
from segmed.imaging.labels.writing import name_values, write_labels

AFFINE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])
SHAPE = (9, 7, 5)
TAGS = "Segmentation.Status:inprogress|TerminologyEntry:a~b~c|"


def _slicer(path: Path, layers: int, values: list[int], **more: str) -> np.ndarray:
    """A file as 3D Slicer writes it: `layers` label maps; segment n is value n of layer n modulo layers."""
    array = np.zeros((layers, *SHAPE), np.uint8)
    steps = np.diag([-1.0, -1, 1]) @ AFFINE[:3, :3]
    header = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([[np.nan] * 3, steps.T]) if layers > 1 else steps.T,
        "space origin": np.diag([-1.0, -1, 1]) @ AFFINE[:3, 3],
        "kinds": [*(["list"] if layers > 1 else []), "domain", "domain", "domain"],
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ConversionParameters": "Decimation factor|0.5|how much&",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, value in enumerate(values):
        array[n % layers, n : 2 * n + 2, 1:5, 0 : n + 1] = value
        header |= {
            f"Segment{n}_ID": f"Segment_{n + 7}",
            f"Segment{n}_Name": f"organ {n}",
            f"Segment{n}_Color": f"0.{n + 1} 0.25 0.125",
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(n % layers),
            f"Segment{n}_Extent": "0 8 0 6 0 4",
            f"Segment{n}_Tags": TAGS,
        }
    nrrd.write(str(path), array if layers > 1 else array[0], header | more)
    return array


def _told(path: Path) -> dict[str, str]:
    header = nrrd.read_header(str(path))
    return {
        key: value
        for key, value in header.items()
        if key.startswith("Segment") and not key.endswith("_Extent")
    }


@pytest.mark.parametrize(
    ("layers", "values"), [(1, [7, 3]), (2, [1, 1]), (3, [1, 1, 1]), (4, [4, 1, 9, 1]), (5, [1] * 5)]
)
def test_a_segmentation_goes_through_unchanged(tmp_path: Path, layers: int, values: list[int]) -> None:
    array = _slicer(tmp_path / "in.seg.nrrd", layers, values)
    grid = Grid(SHAPE, AFFINE)
    found = read_label_segments(tmp_path / "in.seg.nrrd", grid)
    assert [s.name for s in found.segments] == [f"organ {n}" for n in range(len(values))]
    assert len({s.value for s in found.segments}) == len(values)
    for n, segment in enumerate(found.segments):
        assert np.array_equal(found.mask(segment), array[n % layers] == values[n])
    assert found.segments[0].colour == (26, 64, 32)
    write_labels(found, AFFINE, tmp_path / "out.seg.nrrd")
    again, affine = read_segments(tmp_path / "out.seg.nrrd")
    assert again.segments == found.segments and again.general.items() >= found.general.items()
    assert all(np.array_equal(a, b) for a, b in zip(again.layers, found.layers, strict=True))
    assert _told(tmp_path / "out.seg.nrrd").items() >= _told(tmp_path / "in.seg.nrrd").items()
    images = [sitk.ReadImage(str(tmp_path / f"{name}.seg.nrrd")) for name in ("in", "out")]
    assert np.allclose(itk_affine(images[0]), itk_affine(images[1])) and np.allclose(affine, AFFINE)
    assert np.array_equal(*map(sitk.GetArrayFromImage, images))
    back, _ = nrrd.read(str(tmp_path / "out.seg.nrrd"))
    assert np.array_equal(back, array if layers > 1 else array[0])
    header = read_grid(tmp_path / "in.seg.nrrd", labels=True)
    assert (header.shape, header.channels) == (SHAPE, 1)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20).map(
                str.strip
            ),
            st.integers(1, 65535),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda one: (one[1], one[2]),
    )
)
def test_names_values_and_layers_survive(tmp_path: Path, listed: list[tuple[str, int, int]]) -> None:
    rng = np.random.default_rng(0)
    depth = max(layer for _, _, layer in listed) + 1
    layers = [np.zeros(SHAPE, np.uint16) for _ in range(depth)]
    for _, value, layer in listed:
        layers[layer][tuple(rng.integers(0, n, 9) for n in SHAPE)] = value
    segments = tuple(StoredSegment(name or "x", value, layer, value) for name, value, layer in listed)
    write_labels(Segments(tuple(layers), segments), AFFINE, tmp_path / "a.seg.nrrd")
    found, _ = read_segments(tmp_path / "a.seg.nrrd")
    expected = [(s.name, s.layer_value, s.layer) for s in segments]
    assert [(s.name, s.layer_value, s.layer) for s in found.segments] == expected
    assert all(np.array_equal(a, b) for a, b in zip(found.layers, layers, strict=False))
    assert len({s.value for s in found.segments}) == len(segments)


def test_the_smaller_segment_lies_on_top_and_both_are_told(tmp_path: Path) -> None:
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 1:8, 1:6, 1:4], layers[1, 3:5, 3:5, 2:3] = 2, 1
    found = Segments(tuple(layers), (StoredSegment("liver", 2, 0, 2), StoredSegment("tumour", 1, 1, 1)))
    flat = found.flat()
    assert (flat == 1).sum() == 4 and (flat == 2).sum() == (layers[0] == 2).sum() - 4
    assert found.overlaps() == {(1, 2): 4}
    write_labels(found, AFFINE, tmp_path / "flat.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "flat.nii.gz").dataobj), flat)
    assert stored_names(tmp_path / "flat.nii.gz") == {1: "tumour", 2: "liver"}


def test_a_part_of_the_image_is_put_into_its_place(tmp_path: Path) -> None:
    array = _slicer(tmp_path / "whole.seg.nrrd", 2, [1, 1])
    found, _ = read_segments(tmp_path / "whole.seg.nrrd")
    grid = Grid(SHAPE, AFFINE)
    for first, name in (((2, 1, 0), "inner"), ((0, 0, 0), "corner")):
        place = AFFINE.copy()
        place[:3, 3] += AFFINE[:3, :3] @ first
        cut = tuple(layer[first[0] : 7, first[1] : 6, first[2] : 4] for layer in found.layers)
        write_labels(replace(found, layers=cut), place, tmp_path / f"{name}.seg.nrrd")
        moved = read_label_segments(tmp_path / f"{name}.seg.nrrd", grid)
        for n in range(2):
            expected = np.zeros(SHAPE, np.uint8)
            expected[first[0] : 7, first[1] : 6, first[2] : 4] = array[n][
                first[0] : 7, first[1] : 6, first[2] : 4
            ]
            assert np.array_equal(moved.layers[n], expected)


def test_what_is_no_segmentation_of_its_own(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "plain.nrrd"), np.zeros(SHAPE, np.uint8))
    assert not is_segmentation(tmp_path / "plain.nrrd")
    _slicer(tmp_path / "a.nrrd", 2, [1, 1])
    assert is_segmentation(tmp_path / "a.nrrd")  # by what is in it, not by its name
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.seg.nrrd").write_bytes(
        content.replace(b"encoding: gzip", b"encoding: raw\ndata file: secret.raw")
    )
    with pytest.raises(ValueError, match=r"b\.seg\.nrrd holds no voxels but the name of another file"):
        read_labels(tmp_path / "b.seg.nrrd", Grid(SHAPE, AFFINE))
    (tmp_path / "c.seg.nrrd").write_bytes(content.replace(b"Segment1_Layer:=1", b"Segment1_Layer:=5"))
    with pytest.raises(ValueError, match="2 layers, but a segment in layer 5"):
        read_segments(tmp_path / "c.seg.nrrd")
    (tmp_path / "d.seg.nrrd").write_bytes(content.replace(b"Segment1_Layer:=1", b"Segment1_Layer:=x"))
    with pytest.raises(ValueError, match="is not a number"):
        read_segments(tmp_path / "d.seg.nrrd")
    (tmp_path / "e.seg.nrrd").write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"e\.seg\.nrrd cannot be read"):
        read_segments(tmp_path / "e.seg.nrrd")


def test_no_name_in_the_header_of_a_segmentation_is_followed(tmp_path: Path) -> None:
    array = _slicer(tmp_path / "a.nrrd", 2, [1, 1])
    head = (
        (tmp_path / "a.nrrd").read_bytes().partition(b"\n\n")[0].replace(b"encoding: gzip", b"encoding: raw")
    )
    grid, inner = Grid(SHAPE, AFFINE), tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.raw").write_bytes(array.tobytes(order="F"))
    (inner / "link.raw").symlink_to(tmp_path / "secret.raw")
    for n, name in enumerate(
        ("../secret.raw", str(tmp_path / "secret.raw"), "LIST\nsecret.raw", "link.raw", "gone.raw")
    ):
        for extension in (".seg.nrrd", ".nrrd", ".nhdr"):
            path = inner / f"{n}{extension}"
            path.write_bytes(head + f"\ndata file: {name}\n\n".encode())
            with pytest.raises(
                ValueError, match=rf"{n}\S* (holds no voxels|names|are missing|are not read)"
            ) as refused:
                read_labels(path, grid)
            assert "/" not in str(refused.value)
    # a complete local study of two files
    (tmp_path / "b.seg.nhdr").write_bytes(head + b"\ndata file: secret.raw\n\n")
    assert np.array_equal(np.stack(read_label_segments(tmp_path / "b.seg.nhdr", grid).layers), array)
    os.mkfifo(tmp_path / "c.seg.nrrd")
    with pytest.raises(ValueError, match="not a regular file"):
        read_labels(tmp_path / "c.seg.nrrd", grid)


def test_a_segmentation_that_is_packed_by_bzip2(tmp_path: Path) -> None:
    array = _slicer(tmp_path / "a.nrrd", 2, [1, 1])
    head = (
        (tmp_path / "a.nrrd")
        .read_bytes()
        .partition(b"\n\n")[0]
        .replace(b"encoding: gzip", b"encoding: bzip2")
    )
    (tmp_path / "b.seg.nrrd").write_bytes(head + b"\n\n" + bz2.compress(array.tobytes(order="F")))
    assert np.array_equal(np.stack(read_segments(tmp_path / "b.seg.nrrd")[0].layers), array)
    (tmp_path / "c.seg.nrrd").write_bytes(head + b"\n\nno bzip2")
    with pytest.raises(ValueError, match=r"c\.seg\.nrrd cannot be read"):
        read_segments(tmp_path / "c.seg.nrrd")


def test_several_layers_are_a_label_map_and_no_image(tmp_path: Path) -> None:
    _slicer(tmp_path / "a.seg.nrrd", 3, [1, 1, 1])
    assert read_grid(tmp_path / "a.seg.nrrd", labels=True).shape == SHAPE
    with pytest.raises(ValueError, match="a segmentation of 3 layers, which is not an image"):
        read_grid(tmp_path / "a.seg.nrrd")


def test_values_that_no_segment_names_are_kept(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1:3], array[5:7] = 4, 9
    nrrd.write(str(tmp_path / "a.seg.nrrd"), array, {"Segment0_Name": "liver", "Segment0_LabelValue": "4"})
    found, _ = read_segments(tmp_path / "a.seg.nrrd")
    assert [(s.name, s.value) for s in found.segments] == [("liver", 4), ("", 9)]
    assert np.array_equal(found.flat(), array)


def test_segments_are_packed_into_few_layers() -> None:
    places = {1: np.arange(0, 50), 2: np.arange(60, 90), 3: np.arange(40, 70), 300: np.arange(45, 48)}
    layers, where = pack(places.items(), (10, 10, 1))
    assert where == {1: 0, 2: 0, 3: 1, 300: 2}
    for value, there in places.items():
        assert np.array_equal(np.flatnonzero(layers[where[value]].ravel(order="F") == value), there)
    assert len(pack([], (2, 2, 2))[0]) == 1


# --- tables of names ---


def test_the_table_beside_a_nifti_file(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0], labels[1], labels[2] = 2, 5, 9
    found = name_values(labels, {2: "Läsion 腫瘍", 5: "liver"})
    write_labels(found, AFFINE, tmp_path / "a.b.nii.gz")
    rows = [line.split("\t") for line in (tmp_path / "a.b.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["index", "name", "color"]
    assert [row[:2] for row in rows[1:]] == [["2", "Läsion 腫瘍"], ["5", "liver"], ["9", "label 9"]]
    back = read_sidecar(tmp_path / "a.b.nii.gz")
    assert [(s.value, s.name) for s in back] == [(2, "Läsion 腫瘍"), (5, "liver"), (9, "label 9")]
    coloured = [s.coloured((1, 2, 250)) for s in found.segments]
    write_sidecar(coloured, tmp_path / "a.b.nii.gz")
    assert [s.colour for s in read_sidecar(tmp_path / "a.b.nii.gz")] == [(1, 2, 250)] * 3
    assert sidecar_of(tmp_path / "x.seg.nrrd") == tmp_path / "x.tsv"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "index\tname\nx\ty\n", "index\n1\n", "\x00\xff"])
def test_a_table_of_another_kind_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tsv").write_text(text, encoding="latin-1")
    assert read_sidecar(tmp_path / "a.nii.gz") == []
    assert read_sidecar(tmp_path / "none.nii.gz") == []


def test_a_pipe_in_the_place_of_a_table_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tsv")
    assert read_sidecar(tmp_path / "a.nii.gz") == []
    with pytest.raises(ValueError, match=r"a\.tsv is not a table of label names"):
        write_sidecar([StoredSegment("liver", 1)], tmp_path / "a.nii.gz")


def test_a_table_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("participant\tage\n")
    with pytest.raises(ValueError, match=r"a\.tsv is not a table of label names"):
        write_sidecar([StoredSegment("liver", 1)], tmp_path / "a.nii.gz")
    assert (tmp_path / "a.tsv").read_text() == "participant\tage\n"


def test_pictures_with_a_palette_hold_labels_by_index(tmp_path: Path) -> None:
    from PIL import Image

    indices = np.arange(63, dtype=np.uint8).reshape(7, 9) % 3
    picture = Image.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    for name in ("a.png", "a.bmp"):
        picture.save(tmp_path / name)
        assert np.array_equal(read_labels(tmp_path / name, Grid((9, 7, 1)))[:, :, 0], indices.T)
