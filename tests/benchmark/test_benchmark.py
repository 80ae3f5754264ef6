"""`segmed benchmark`: golden numbers on drawn bodies in public layouts, resuming, a killed worker, and bad
input."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from miniature import LAYOUTS
from PIL import Image
from segmed.benchmark import job as job_module
from segmed.benchmark.job import run_job
from segmed.benchmark.numbers import compared, identity_holds, rows_of
from segmed.benchmark.parts import open_parts
from segmed.benchmark.plan import plan
from segmed.benchmark.published import Published
from segmed.benchmark.ray_runner import run_jobs
from segmed.benchmark.settings import PROGRESS, RESULT, BenchmarkJob, Budget
from segmed.benchmark.tables import TABLES, Entry
from segmed.cli import app
from segmed.data.datasets.catalogue import DATASETS
from segmed.methods import METHODS
from small_training import small_sam
from typer.testing import CliRunner, Result

# Dice, and Dice of all pixels together, by table, row and test set
GOLDEN = {
    ("lgg-baselines", "unet", ""): (0.079756, 0.048792),
    ("lgg-sam", "untrained sam", ""): (0.764615, 0.699001),
    ("lgg-sam", "untrained medsam", ""): (0.774884, 0.764865),
    ("lgg-sam", "sam", ""): (0.789498, 0.839713),
    ("lgg-sam", "medsam", ""): (0.888859, 0.891705),
    ("brats-medsam", "medsam-tuned", ""): (0.781416, 0.669131),
    ("sessile", "medsam", ""): (0.90538, 0.905321),
    ("sessile", "medsam", "@128"): (0.905774, 0.905723),
    ("sessile", "medsam", "@896"): (0.902832, 0.902802),
    ("sessile", "medsam", ">cvc-clinicdb"): (0.886394, 0.886076),
    ("flare22", "unet", ""): (0.045909, 0.018579),
    ("flare22", "segmed", ""): (0.987841, 0.959431),
    ("gid5", "segmed", ""): (0.945669, 0.929730),
    ("sirst", "segmed", ""): (0.994505, 0.993711),
}
GOLDEN_ORACLE = (0.353792, 0.276671)  # Dice of the classes, and of the background
_RUNS = {
    "one": (
        "lgg-baselines",
        "lgg-sam",
        "brats-medsam",
        "sessile",
        "--methods",
        "unet,sam,medsam-tuned,medsam",
    ),
    "two": ("flare22", "--methods", "unet,segmed"),  # rows that this table does not have
    "three": ("gid5", "sirst", "--methods", "segmed"),
}
_FEW = ("--steps", "10", "--batch", "8", "--patients", "0", "--slices", "0", "--device", "cpu")
_SMALL = ("--set", "encoder=resnet18", "--set", "input_size=64", "--set", "pretrained=false")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads are not the same each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("datasets")
    for name in LAYOUTS:
        (root / name).mkdir()
    return {name: write(root / name) for name, write in LAYOUTS.items()}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_sam().save_pretrained(folder)
    return folder


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", *map(str, words)])


def _data(folders: dict[str, Path]) -> list[str]:
    return [word for name, folder in folders.items() for word in ("--data", f"{name}={folder}")]


def _numbers(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text(encoding="utf-8")))


def _golden(run: str, folders: dict[str, Path], out: Path) -> Result:
    small = _SMALL if "unet" in _RUNS[run][-1] else ()
    return _run(*_RUNS[run], *_data(folders), *small, "--quick", *_FEW, "--out", out / run)


@pytest.fixture(scope="module")
def golden(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("golden")
    for run in _RUNS:
        result = _golden(run, folders, out)
        assert result.exit_code == 0, result.output
    return out


def _results(golden: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Table, row and what was found, of both runs."""
    return [
        (table["table"], row["entry"], one)
        for run in _RUNS
        for table in _numbers(golden / run)["tables"]
        for row in table["rows"]
        for one in row["results"]
    ]


def test_the_golden_numbers(golden: Path) -> None:
    found = {
        (table, entry, one["where"]): tuple(one["values"][key]["mean"] for key in ("dice", "dice_pooled"))
        for table, entry, one in _results(golden)
    }
    assert set(found) == set(GOLDEN)
    # ten steps of a network from random weights end a little elsewhere on each kind of CPU
    near = {key: 5e-3 if key[1] == "unet" else 1e-3 for key in GOLDEN}
    wrong = {
        key: found[key]
        for key, values in GOLDEN.items()
        if found[key] != pytest.approx(values, abs=near[key])
    }
    assert not wrong


def test_the_identity_holds_in_every_row(golden: Path) -> None:
    rows = [one for _, _, one in _results(golden)]
    for row in rows:
        dice, iou = (row["values"][key]["mean"] for key in ("dice_pooled", "iou_pooled"))
        assert iou == pytest.approx(dice / (2 - dice), abs=1e-9)
        assert row["identities"] > row["seeds"]
        assert row["violations"] == 0
    pages = [(golden / run / "results.md").read_text(encoding="utf-8") for run in _RUNS]
    assert sum(len(re.findall(r"holds in \d+ \|", page)) for page in pages) == len(rows)
    assert identity_holds(0.8, 0.8 / 1.2)
    assert not identity_holds(0.7786, 0.6757)


def test_reports_say_what_ours_began_from_and_all_versions(golden: Path) -> None:
    page, text = ((golden / "one" / f"results.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    for report in (page, text):
        assert "segmed-tiny, trained on synthetic images only" in report
        assert "random weights" in report
        assert "cannot be compared with published results of pretrained models" in report
        assert "0.7004 (Table IV)" in report
        assert "0.9245 (Table III)" in report
        assert "medsam against untrained medsam: +" in report
        assert "0.8095 (Table II, reduced image size)" in report
        assert "0.6757 (Table III, Table IV)" in report
    assert page.count("data:image/png;base64,") == 7  # best, median and worst case of each row
    assert page.count("data:image/svg+xml;base64,") == 3  # curves of the tables whose rows are told boxes
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    authors = next(t for t in _numbers(golden / "three")["tables"] if t["table"] == "sirst")
    assert authors["split"].startswith("Split as the dataset's authors did")
    curve = next(r for t in _numbers(golden / "one")["tables"] for r in t["rows"] if r["entry"] == "sam")[
        "curve"
    ]
    assert curve["0.0"]["mean"] > curve["0.3"]["mean"] + 0.02


def test_an_oracle_chooses_among_proposals(folders: dict[str, Path], tmp_path: Path) -> None:
    entry = Entry("best", "sam", {"proposals": "all"}, "oracle", train=False)
    mine = {"gid5": str(folders["gid5"])}
    result = run_job(BenchmarkJob("gid5", entry, 0, mine, tmp_path, budget=Budget(points=4)))
    row = rows_of("best", [result])[0]
    assert result["steps"] == 0
    odd = replace(entry, settings={"proposals": "best"})
    assert (
        "Choose from published, "
        in run_job(BenchmarkJob("gid5", odd, 0, mine, tmp_path, budget=Budget(points=4)))["error"]
    )
    assert row.values["dice"].mean == pytest.approx(GOLDEN_ORACLE[0], abs=1e-3)
    assert row.values["dice:background"].mean == pytest.approx(GOLDEN_ORACLE[1], abs=1e-3)
    classes = [value for key, value in row.values.items() if key.startswith("dice:")]
    assert row.values["dice_with_background"].mean == pytest.approx(np.mean([v.mean for v in classes]))


def test_finished_jobs_are_not_done_again(
    golden: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("done again")

    before = _numbers(golden / "three")["tables"]
    monkeypatch.setattr(job_module, "_measured", refuse)
    assert _golden("three", folders, golden).exit_code == 0
    assert _numbers(golden / "three")["tables"] == before


def _job(
    folders: dict[str, Path], backbone: Path, out: Path, steps: int = 12, **changes: Any
) -> BenchmarkJob:
    budget = Budget(steps=steps, batch=4, curve=0)
    mine = {"lgg": str(folders["lgg"])}
    return BenchmarkJob(
        "lgg-sam", Entry("sam", "medsam"), 0, mine, out, str(backbone), budget=budget, **changes
    )


def test_an_interrupted_training_goes_on_to_the_same_numbers(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    whole = run_job(_job(folders, backbone, tmp_path / "whole"))
    job, asked = _job(folders, backbone, tmp_path / "parts"), iter(range(100))
    stopped = run_job(job, lambda: next(asked) >= 6)
    assert re.search(r"Stopped after 7 of 12 steps.*same command again", stopped["error"])
    assert not (job.folder / RESULT).exists()
    result = run_job(job)
    assert result["resumed_at_step"] == 7
    assert result["sets"] == whole["sets"]
    assert {path.name for path in job.folder.iterdir()} == {RESULT, "cases.png"}
    (job.folder / RESULT).write_text('{"settings', encoding="utf-8")  # as a full disk leaves it
    assert run_job(job)["sets"] == whole["sets"]


def test_a_killed_worker_loses_nothing(folders: dict[str, Path], backbone: Path, tmp_path: Path) -> None:
    jobs = [replace(_job(folders, backbone, tmp_path / "ray", 60), seed=seed) for seed in (0, 1)]
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        """The worker of the first job, once that has a checkpoint."""
        while not over.is_set() and not killed:
            if (jobs[0].folder / "run" / "checkpoint.pt").is_file() and (jobs[0].folder / PROGRESS).is_file():
                killed.append(json.loads((jobs[0].folder / PROGRESS).read_text(encoding="utf-8"))["pid"])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    shares: list[float] = []
    listening: list[str] = []
    others = {
        child.pid for child in psutil.Process().children(recursive=True)
    }  # such as a PACS of other tests

    def tell(now: Sequence[float], doing: str) -> None:
        shares.append(sum(now))
        mine = {
            psutil.Process().pid,
            *(child.pid for child in psutil.Process().children(recursive=True)),
        } - others
        found = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in mine]
        listening.extend(c.laddr.ip for c in found)

    try:
        results = run_jobs(jobs, workers=2, tell=tell)
    finally:
        over.set()
        killer.join()
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert killed
    assert killed[0] != os.getpid()
    assert results[0]["resumed_at_step"] > 0
    assert results[1]["resumed_at_step"] == 0
    assert shares[-1] == 2
    alone = run_job(_job(folders, backbone, tmp_path / "alone", 60))
    assert results[0]["sets"] == alone["sets"]


def test_what_is_absent_is_skipped_with_a_line_that_helps(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "brats"
    LAYOUTS["brats"](odd, 2)
    (odd / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-t1c.nii.gz").unlink()
    words = ["--data", f"lgg={folders['lgg']}", "--data", f"brats={odd}", "--data", f"gid5={tmp_path}"]
    result = _run(
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
    tables = {t["table"]: t for t in _numbers(tmp_path)["tables"]}
    assert tables["flare22"]["skipped"]
    assert len(tables["flare22"]["published"]) > 80
    assert [row["entry"] for row in tables["lgg-sam"]["rows"] if row["results"]] == [
        "untrained medsam",
        "medsam",
    ]
    assert "skipped, there is no --data flare22=FOLDER" in result.output.replace("\n", " ")


def test_a_method_without_weights_is_a_row_that_says_why(folders: dict[str, Path], tmp_path: Path) -> None:
    result = _run(
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
    rows = {row["entry"]: row for row in _numbers(tmp_path)["tables"][0]["rows"]}
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
    result = _run("flare22", "--data", f"flare22={tmp_path / 'odd'}", *words)
    assert result.exit_code == 2
    assert "holds the label 77" in _numbers(tmp_path / "out")["tables"][0]["rows"][0]["reason"]


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
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    result = _run(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_the_published_split_by_slices_leaks_and_says_so(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    job = _job(folders, backbone, tmp_path)
    parts, _ = open_parts(TABLES["lgg-sam"], job)
    owners = [set(part.patients) for part in parts]
    assert not owners[0] & owners[2]
    parts, how = open_parts(TABLES["lgg-sam"], replace(job, slice_split=True))
    assert [len(part) for part in parts] == [18, 4, 2]
    owners = [{name.rpartition(" ")[0] for name in part.patients} for part in parts]
    assert owners[2] <= owners[0]
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
    result = _run("lgg-sam", "--data", f"lgg={folders['lgg']}", *words)
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
        result = _run(table, *_data(folders), "--methods", name, "--out", tmp_path / table, *small)
        assert result.exit_code == 0, result.output
        rows.append(_numbers(tmp_path / table)["tables"][0]["rows"][0]["results"][0])
    chain, boxes = rows
    for row in rows:
        assert 0 <= row["values"]["map50_95"]["mean"] <= row["values"]["map50"]["mean"] <= 1
        assert row["values"]["boxless"]["mean"] >= 0
    assert "dice" in chain["values"] and "dice" not in boxes["values"]
    true = _numbers(tmp_path / "lgg-sam")["tables"][0]["rows"][0]["results"][1]
    assert true["where"] == "=true boxes"
    assert true["values"]["dice"]["mean"] > max(0.5, chain["values"]["dice"]["mean"])
    report = (tmp_path / "lgg-sam" / "results.md").read_text(encoding="utf-8")
    assert "slices with an object and no box" in report
    assert "| with true boxes |" in report


def test_a_chain_trains_its_prompter_as_well(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    settings = {"prompter": "medsam", "prompter_weights": str(backbone), "image_size": 64}
    entries = [
        Entry(name, "detector", settings, "classes", tunes_prompter=tuned)
        for name, tuned in (("chain", False), ("chain-tuned", True))
    ]
    mine = {"brats": str(folders["brats"])}
    budget = Budget(steps=8, batch=4, curve=0)
    plain, tuned = (
        run_job(BenchmarkJob("brats-medsam", e, 0, mine, tmp_path, budget=budget)) for e in entries
    )
    assert "error" not in plain and "error" not in tuned
    assert plain["boxes"] == tuned["boxes"], "the detector is the same"
    assert plain["sets"]["=true boxes"] != tuned["sets"]["=true boxes"]
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_all_versions_of_a_published_number_stand_beside_ours() -> None:
    table = TABLES["lgg-sam"]
    found = {(c.entry, c.metric): c for c in compared(table.published, [])}
    assert [v.value for v in found["gafl", "iou"].published] == [0.9245, 0.7004]
    assert "Table III" in found["gafl", "dice"].odd
    assert "Table IV" not in found["gafl", "dice"].odd
    assert found["sam", "dice"].odd.startswith("below the IoU of Table II")
    averages = {v.entry: v.value for v in TABLES["flare22"].published if v.metric == "dice_with_background"}
    for entry, average in averages.items():
        organs = [
            v.value for v in TABLES["flare22"].published if v.entry == entry and v.metric.startswith("dice:")
        ]
        assert len(organs) == 14
        assert np.mean(organs) == pytest.approx(average, abs=1e-4)


def test_every_table_names_what_exists() -> None:
    for table in TABLES.values():
        assert not table.dataset or table.dataset in DATASETS
        assert all(other.dataset in DATASETS for other in table.external_tests)
        assert len({entry.name for entry in table.entries}) == len(table.entries)
        assert not [entry.name for entry in table.entries if "," in entry.name], "--methods separates by commas"
        classes = set(DATASETS[table.dataset].labels.values()) | {"background"} if table.dataset else set()
        for entry in table.entries:
            training = METHODS[entry.method].training
            if entry.train:
                assert training is not None
                training.config(**entry.settings)
        named = {v.metric.removeprefix("dice:") for v in table.published if v.metric.startswith("dice:")}
        assert named <= classes, table.name


def test_means_spreads_and_pooling_over_seeds() -> None:
    def result(*rows: tuple[int, ...]) -> dict[str, Any]:
        packed = [
            [n, *row, *((1.0, 0.9, 2.0) if row[1] else ("inf", 0, "inf"))] for n, row in enumerate(rows)
        ]
        sets = {"": {"slices": packed, "whole": packed}}
        facts = {
            "classes": {"1": "polyp"},
            "parameters": 2_000_000,
            "trainable": 0,
            "slices": [0, 0, len(rows)],
        }
        return {"sets": sets, "seconds": 1.0, "model_seconds": 0.8, **facts}

    # label, tp, fp, fn, tn
    row = rows_of(
        "x", [result((1, 8, 2, 2, 88), (1, 0, 0, 10, 90)), result((1, 6, 2, 2, 90), (1, 10, 0, 0, 90))]
    )[0]
    assert row.values["dice"].mean == pytest.approx((0.4 + 0.875) / 2)
    assert row.values["dice"].spread == pytest.approx(abs(0.4 - 0.875) / 2**0.5)
    assert row.values["dice_pooled"].mean == pytest.approx(48 / (48 + 4 + 14))
    assert row.values["iou_pooled"].mean == pytest.approx(24 / (24 + 4 + 14))
    assert (row.identities, row.violations) == (4 + 2 + 1 + 1, 0)
    assert row.values["parameters"].mean == 2
    assert [row.values[key].mean for key in ("nsd", "hd95", "hd")] == pytest.approx([0.675, 1, 2])
    ours = compared((Published("x", "f1", 0.5, "Table 1"),), [row])[0].ours
    assert ours == row.values["dice"]
    assert "dice_whole" not in row.values, "every slice is an image"
    volume = result((1, 8, 2, 2, 88), (1, 0, 0, 10, 90))
    volume["sets"][""]["whole"] = [["patient", 1, 8, 2, 12, 178, 1.0, 0.9, 2.0]]
    assert rows_of("x", [volume])[0].values["dice_whole"].mean == pytest.approx(16 / 30)


def test_plan_takes_rows_by_name_and_by_method(folders: dict[str, Path], tmp_path: Path) -> None:
    template = BenchmarkJob(
        "sirst", Entry("", "classical"), 0, {k: str(v) for k, v in folders.items()}, tmp_path
    )
    plans = plan([TABLES["flare22"], TABLES["sirst"]], ["lora", "classical"], 2, {"rank": 2}, template)
    names = [[(j.entry.name, j.seed) for j in one.jobs] for one in plans]
    assert names[1] == [("lora-4", 0), ("classical", 0), ("lora-4", 1), ("classical", 1)]
    assert plans[0].jobs[0].entry.settings == {"rank": 2}
    assert list(plans[1].jobs[0].folders) == ["sirst"]
    oracle = plan([TABLES["sessile"]], ["sam-oracle"], 1, {"proposals": "relaxed"}, template)[0].jobs[0].entry
    assert (oracle.protocol, oracle.settings) == ("oracle", {"proposals": "relaxed"})


def test_pictures_show_truth_and_mask(golden: Path) -> None:
    picture = np.asarray(Image.open(next((golden / "one" / "jobs" / "lgg-sam").glob("sam-0-*/cases.png"))))
    assert picture.shape == (256, 3 * 256, 3)
    green, red = (picture == (0, 220, 0)).all(-1), (picture == (255, 40, 40)).all(-1)
    for n in range(3):
        tile = slice(n * 256, (n + 1) * 256)
        assert green[:, tile].any()
        assert red[:, tile].any()
