"""A run on a real PACS: what is found by a query is segmented and comes back as DICOM SEG."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_phantom import phantom_series
from orthanc import Pacs, pacs
from segmed.batch.report import collect
from segmed.batch.settings import RunSettings
from segmed.batch.sources import FETCHED, list_items
from segmed.batch.tasks import Away, Task
from segmed.batch.worker import SegmentationWorkers
from segmed.cli import app
from segmed.data.phantom import Phantom
from segmed.imaging.labels.masks import bounding_box
from segmed.imaging.reading import read_volume
from typer.testing import CliRunner

__all__ = ["pacs"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Phantom, Path]:
    """A phantom, and the folder of its series."""
    folder = tmp_path_factory.mktemp("series")
    return phantom_series(folder), folder


@pytest.fixture(scope="module")
def series(pacs: Pacs, studied: tuple[Phantom, Path]) -> str:
    """The UID of the series in the PACS."""
    pacs.upload(studied[1])
    return str(pydicom.dcmread(next(studied[1].glob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)


def _box(phantom: Phantom) -> list[float]:
    found = bounding_box(phantom.labels == 1)
    assert found is not None
    return [float(end) for pair in found for end in pair]


def test_results_come_back_once(
    pacs: Pacs, series: str, studied: tuple[Phantom, Path], tmp_path: Path
) -> None:
    phantom = studied[0]
    boxes, out = tmp_path / "boxes.json", tmp_path / "out"
    boxes.write_text(json.dumps({series: [{"label": "liver", "roi": _box(phantom)}]}))
    words = [
        "batch",
        "run",
        pacs.url,
        "-o",
        str(out),
        "--model",
        "classical_3d",
        "--boxes",
        str(boxes),
        "--send",
    ]
    words += ["--registry", str(tmp_path / "models"), "--modality", "CT", "--nice", "0"]
    words += ["--filter", f"SeriesInstanceUID={series}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (stored,) = pacs.series("SEG")
    seg = pydicom.dcmread(io.BytesIO(stored))
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    (segment,) = seg.SegmentSequence
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert segment.SegmentLabel == "liver" and algorithm.AlgorithmName == "SegMed classical_3d"
    assert all(
        f"{key}=" in algorithm.AlgorithmParameters for key in ("weights", "image", "prompt", "software")
    )
    mask = read_volume(out / "masks" / f"{series}.nii.gz").array > 0
    assert mask.sum() > 0.5 * (phantom.labels == 1).sum()
    assert not any((out / FETCHED).iterdir())
    if shutil.which("dciodvfy"):
        said = subprocess.run(
            ["dciodvfy", str(out / "seg" / f"{series}.dcm")], capture_output=True, text=True
        )
        assert "Error" not in said.stderr, said.stderr

    # killed after the PACS had taken it, and before that was noted
    import sqlite3

    with sqlite3.connect(out / "manifest.sqlite3") as sql:
        sql.execute("UPDATE items SET state = 'running'")
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(pacs.series("SEG")) == 1 and collect(out).is_complete


def test_a_pacs_that_is_away_is_told_from_a_series_that_is(pacs: Pacs, series: str, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"1.2.3": [[1, 5, 1, 5, 0, 0]], series: [[1, 5, 1, 5, 0, 0]]}))
    settings = RunSettings(
        pacs.url, "classical", "untrained", prompts="boxes", boxes=str(boxes), registry=str(tmp_path)
    )
    worker = SegmentationWorkers(settings, tmp_path / "out")()
    facts = {"series": "1.2.3", "study": "1.2"}
    with pytest.raises(ValueError, match="no longer in the PACS"):
        worker.read(Task(1, "1.2.3", "1.2.3", {"series": facts}, 1))
    settings = RunSettings(
        "http://127.0.0.1:9/dicom-web",
        "classical",
        "untrained",
        prompts="boxes",
        boxes=str(boxes),
        registry=str(tmp_path),
    )
    worker = SegmentationWorkers(settings, tmp_path / "out")()
    for _ in range(2):  # it is not asked again at once
        with pytest.raises(Away, match="cannot be reached"):
            worker.read(Task(1, "1.2.3", "1.2.3", {"series": facts}, 1))


def test_a_query_without_series_is_told(pacs: Pacs, series: str, tmp_path: Path) -> None:
    found = list_items(RunSettings(pacs.url, "unet", modalities=("CT",)), tmp_path).items
    assert series in [item.key for item in found]
    assert np.all([item.size > 0 for item in found])
    with pytest.raises(ValueError, match="lists no series"):
        list_items(RunSettings(pacs.url, "unet", filters={"StudyDate": "19000101"}), tmp_path)
    with pytest.raises(ValueError, match="--modality"):
        list_items(RunSettings(pacs.url, "unet", filters={"Modality": "CT"}), tmp_path)
