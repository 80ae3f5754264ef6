"""`segmed benchmark`: what is absent or does not match, bad input, splits, detectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniature import LAYOUTS
from segmed.benchmark.parts import open_parts
from segmed.benchmark.tables import TABLES
from segmed.data.datasets.catalogue import DATASETS
from small_benchmark import data_options, job_of, numbers_in, run_benchmark


def test_what_is_absent_is_skipped_with_a_line_that_helps(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "brats"
    LAYOUTS["brats"](odd, 2)
    (odd / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-t1c.nii.gz").unlink()
    words = ["--data", f"lgg={folders['lgg']}", "--data", f"brats={odd}", "--data", f"gid5={tmp_path}"]
    result = run_benchmark(
        "all", *words, "--methods", "medsam,sam2-oracle", "--backbone", backbone, "--quick", "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    lines = {line.partition(":")[0]: line for line in result.output.splitlines() if ": skipped, " in line}
    for name, dataset in (("flare22", "flare22"), ("sirst", "sirst"), ("sessile", "kvasir-sessile")):
        assert DATASETS[dataset].source in lines[name]
        assert DATASETS[dataset].layout in lines[name]
    assert "BraTS-GLI-00001-000-t1c.nii.gz is not in" in lines["brats-medsam"]
    assert "does not hold the dataset" in lines["gid5"] or "image/*/*.tif is not there" in lines["gid5"]
    assert "not public" in lines["liver-phases"]
    tables = {t["table"]: t for t in numbers_in(tmp_path)["tables"]}
    assert tables["flare22"]["skipped"]
    assert len(tables["flare22"]["published"]) > 80
    assert [row["entry"] for row in tables["lgg-sam"]["rows"] if row["results"]] == [
        "untrained medsam",
        "medsam",
    ]
    assert "skipped, there is no --data flare22=FOLDER" in result.output.replace("\n", " ")


def test_a_method_without_weights_is_a_row_that_says_why(folders: dict[str, Path], tmp_path: Path) -> None:
    result = run_benchmark(
        "sirst",
        "--data",
        f"sirst={folders['sirst']}",
        "--methods",
        "sam2-oracle,classical",
        "--quick",
        "--out",
        tmp_path,
    )
    assert result.exit_code == 0, result.output
    rows = {row["entry"]: row for row in numbers_in(tmp_path)["tables"][0]["rows"]}
    assert "'sam2' needs weights of its own" in rows["sam2-oracle"]["reason"]
    assert rows["classical"]["weights"] == "no weights"
    assert rows["classical"]["results"]
    assert "needs weights of its own" in (tmp_path / "results.html").read_text(encoding="utf-8").replace(
        "&#39;", "'"
    )


def test_classes_that_do_not_match_are_told(folders: dict[str, Path], backbone: Path, tmp_path: Path) -> None:
    seg = tmp_path / "odd" / "labelsTr" / "FLARE22_Tr_0000.nii.gz"
    LAYOUTS["flare22"](tmp_path / "odd", 1)
    import nibabel as nib

    image = nib.load(seg)
    nib.save(nib.Nifti1Image(np.full(image.shape, 77, np.uint8), image.affine), seg)
    words = ("--methods", "lora-1", "--backbone", backbone, "--quick", "--out", tmp_path / "out")
    result = run_benchmark("flare22", "--data", f"flare22={tmp_path / 'odd'}", *words)
    assert result.exit_code == 2
    assert "holds the label 77" in numbers_in(tmp_path / "out")["tables"][0]["rows"][0]["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "There is no table 'nothing'. Choose from all, lgg-baselines"),
        (["sirst", "--data", "sirst"], "Give KEY=VALUE"),
        (["sirst", "--data", "moon=/tmp"], "There is no dataset 'moon'"),
        (["sirst", "--methods", "magic"], "There is no row 'magic'"),
        (["sirst", "--seeds", "0"], "0 seeds give no numbers"),
        (["sirst", "--set", "colour=red"], "lora-4) knows 'colour'. They know decoder, labels"),
        (
            ["hippocampus", "--methods", "lora-1", "--set", "encoder=resnet18"],
            "None of the selected rows (lora-1) knows 'encoder'. In these tables, deeplabv3plus, unet, "
            "unetpp, deeplabv3, pan know it: select one of them with --methods, or leave it out.",
        ),
        (["sirst", "--steps", "5", "--epochs", "5"], "not both"),
        (["sirst"], "None of the tables can be made"),
        (["sirst", "--own-backbone", "lora=x"], "lora takes no weights of another architecture"),
        (["sirst", "--own-backbone", "lara=x"], "There is no method 'lara'"),
        (["lgg-baselines", "--methods", "unet", "--image-size", "64"], "Give --set input_size=SIZE"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    result = run_benchmark(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_the_published_split_by_slices_leaks_and_says_so(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    job = job_of(folders, backbone, tmp_path)
    parts, _ = open_parts(TABLES["lgg-sam"], job)
    owners = [set(part.patients) for part in parts]
    assert not owners[0] & owners[2]
    parts, how = open_parts(TABLES["lgg-sam"], replace(job, slice_split=True))
    assert [len(part) for part in parts] == [18, 4, 2]
    trained_on = {name.rpartition(" ")[0] for name in parts[0].patients}
    assert set(parts[2].patients) <= trained_on, "tested slices are scored under their patients"
    assert "slices" in how
    assert replace(job, slice_split=True).folder != job.folder
    words = (
        "--methods",
        "sam",
        "--backbone",
        backbone,
        "--quick",
        "--patients",
        "0",
        "--slices",
        "0",
        "--slice-split",
        "--out",
        tmp_path,
    )
    result = run_benchmark("lgg-sam", "--data", f"lgg={folders['lgg']}", *words)
    assert result.exit_code == 0, result.output
    assert "Neighbours of the tested slices were used" in (tmp_path / "results.md").read_text(
        encoding="utf-8"
    )


def test_detectors_are_measured_by_boxes_and_chains_by_masks_too(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    small = ("--set", "image_size=64", "--quick", "--steps", "3", "--device", "cpu")
    rows = []
    for table, name in (("lgg-sam", "detector"), ("brats-detectors", "fcos")):
        result = run_benchmark(
            table, *data_options(folders), "--methods", name, "--out", tmp_path / table, *small
        )
        assert result.exit_code == 0, result.output
        rows.append(numbers_in(tmp_path / table)["tables"][0]["rows"][0]["results"][0])
    chain, boxes = rows
    for row in rows:
        assert 0 <= row["values"]["map50_95"]["mean"] <= row["values"]["map50"]["mean"] <= 1
        assert row["values"]["boxless"]["mean"] >= 0
    assert "dice" in chain["values"] and "dice" not in boxes["values"]
    true = numbers_in(tmp_path / "lgg-sam")["tables"][0]["rows"][0]["results"][1]
    assert true["where"] == "=true boxes"
    assert true["values"]["dice"]["mean"] > max(0.5, chain["values"]["dice"]["mean"])
    report = (tmp_path / "lgg-sam" / "results.md").read_text(encoding="utf-8")
    assert "slices with an object and no box" in report
    assert "| with true boxes |" in report
