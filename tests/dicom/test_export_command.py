"""`segmed export`: a label map as DICOM SEG or RTSTRUCT of its series."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import typer
from label_series import SHAPE, WriteSeries, make_series, seen
from segmed.commands.exports.export import export
from segmed.dicom.segmentation import read_segmentation
from segmed.imaging.labels.masks import write_mask
from segmed.imaging.reading import read_volume
from typer.testing import CliRunner

app = typer.Typer()
app.command()(export)


def _run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, " ".join(done.output.split())


def test_export(tmp_path: Path, write_series: WriteSeries) -> None:
    folder = make_series(tmp_path / "ct", write_series)
    series, labels = seen(folder)
    label, out = tmp_path / "label.nii.gz", tmp_path / "out.dcm"
    write_mask(labels, read_volume(folder).affine, label)
    code, text = _run(label, "--series", folder, "--names", "liver, spleen", "--model", "medsam", "-o", out)
    assert code == 0, text
    assert "label 1: liver (SCT 10200004, Liver)" in text
    assert "label 3: label 3 (SCT 85756007, Tissue)" in text
    found, names = read_segmentation(out, series)
    assert names == {1: "liver", 2: "label 3", 3: "label 4"}
    assert np.array_equal(found, np.array([0, 1, 0, 2, 3])[labels])
    code, text = _run(label, "--series", folder, "--to", "rtstruct", "-o", out)
    assert (code, pydicom.dcmread(out).Modality) == (0, "RTSTRUCT")


def test_export_brings_a_label_map_of_another_grid_onto_the_series(
    tmp_path: Path, write_series: WriteSeries
) -> None:
    """Such as one that a converter has turned, with its rows from front to back."""
    folder = make_series(tmp_path / "ct", write_series)
    series, labels = seen(folder)
    turned = read_volume(folder).affine @ np.array(
        [[1.0, 0, 0, 0], [0, -1, 0, 25], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    nib.save(nib.Nifti1Image(np.ascontiguousarray(labels[:, ::-1]), turned), tmp_path / "label.nii.gz")
    code, text = _run(tmp_path / "label.nii.gz", "--series", folder, "-o", tmp_path / "out.dcm")
    assert code == 0, text
    assert np.array_equal(
        read_segmentation(tmp_path / "out.dcm", series)[0], np.array([0, 1, 0, 2, 3])[labels]
    )


def test_export_says_what_is_wrong(tmp_path: Path, write_series: WriteSeries) -> None:
    folder = make_series(tmp_path / "ct", write_series)
    affine = read_volume(folder).affine
    label, out = tmp_path / "label.nii.gz", tmp_path / "out.dcm"

    def save(array: np.ndarray, place: np.ndarray = affine) -> None:
        nib.save(nib.Nifti1Image(array, place), label)

    save(np.zeros(SHAPE, np.uint8))
    assert "The mask is empty" in _run(label, "--series", folder, "-o", out)[1]
    save(np.full(SHAPE, 0.5, np.float32))
    assert "holds fractions" in _run(label, "--series", folder, "-o", out)[1]
    away = affine.copy()
    away[:3, 3] += 500
    save(np.ones(SHAPE, np.uint8), away)
    code, text = _run(label, "--series", folder, "-o", out)
    assert (code, "does not lie on its image" in text) == (2, True)
    assert "cannot be written" in _run(label, "--series", folder, "-o", tmp_path / "no" / "out.dcm")[1]
    assert "There is no image at" in _run(label, "--series", tmp_path / "no", "-o", out)[1]
    assert not out.exists()


def test_what_is_read_is_not_replaced(tmp_path: Path, write_series: WriteSeries) -> None:
    folder = make_series(tmp_path / "ct", write_series)
    _, labels = seen(folder)
    label = tmp_path / "label.nii.gz"
    write_mask(labels, read_volume(folder).affine, label)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out, says in (
        (label, "is an input, and the result would replace it"),
        (next(folder.iterdir()), "would lie among the files of the series"),
        (folder / "new.dcm", "would lie among the files of the series"),
    ):
        code, text = _run(label, "--series", folder, "-o", out)
        assert code == 2 and says in text, text
    (tmp_path / "report-seg.dcm").write_bytes(b"of somebody else")
    code, text = _run(label, "--series", folder, "--to", "sr", "-o", tmp_path / "report.dcm")
    assert code == 2 and "exists already" in text, text
    (tmp_path / "report-seg.dcm").unlink()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
