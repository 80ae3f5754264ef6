"""Jobs of the benchmark: planned by row and method, resumed, and repeated after a killed worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from segmed.benchmark.inputs import weights_text
from segmed.benchmark.job import run_job
from segmed.benchmark.plan import plan
from segmed.benchmark.ray_runner import run_jobs
from segmed.benchmark.settings import PROGRESS, RESULT, BenchmarkJob, Budget
from segmed.benchmark.tables import TABLES, Entry
from segmed.methods import find_method
from small_benchmark import job_of


def test_an_interrupted_training_goes_on_to_the_same_numbers(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    whole = run_job(job_of(folders, backbone, tmp_path / "whole"))
    job, asked = job_of(folders, backbone, tmp_path / "parts"), iter(range(100))
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
    jobs = [replace(job_of(folders, backbone, tmp_path / "ray", 60), seed=seed) for seed in (0, 1)]
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
    alone = run_job(job_of(folders, backbone, tmp_path / "alone", 60))
    assert results[0]["sets"] == alone["sets"]


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


def test_results_are_kept_for_the_same_files_only(
    folders: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    def folder_of(data: Path) -> Path:
        template = BenchmarkJob(
            "lgg-sam", Entry("", "classical"), 0, {"lgg": str(data)}, tmp_path / "out", str(backbone)
        )
        return plan([TABLES["lgg-sam"]], ["medsam"], 1, {}, template)[0].jobs[0].folder

    first = folder_of(folders["lgg"])
    copied = tmp_path / "copied"
    shutil.copytree(folders["lgg"], copied)
    assert folder_of(copied) == first, "a dataset may be moved"
    label = next(copied.rglob("*_mask.tif"))
    label.write_bytes(label.read_bytes()[:-1] + b"x")
    assert folder_of(copied) != first
    weights = backbone / "config.json"
    os.utime(weights, ns=(1, 1))
    assert folder_of(folders["lgg"]) != first


def test_the_box_of_a_network_is_its_prompt(folders: dict[str, Path], tmp_path: Path) -> None:
    template = BenchmarkJob(
        "lgg-baselines", Entry("", "classical"), 0, {"lgg": str(folders["lgg"])}, tmp_path
    )
    for boxes, protocol in ((True, "box"), (False, "classes")):
        jobs = plan([TABLES["lgg-baselines"]], ["unet"], 1, {"box_channel": boxes}, template)[0].jobs
        assert [job.entry.protocol for job in jobs] == [protocol]


@pytest.mark.parametrize(
    ("table", "row", "settings", "text"),
    [
        ("lgg-sam", "medsam", {}, "segmed-tiny, trained on synthetic images only"),
        ("lgg-sam", "featup", {"jbu": "a/edges.safetensors"}, "images only; upsampler of edges.safetensors"),
        (
            "lgg-sam",
            "detector",
            {},
            "random weights for the detector; for its prompter segmed, segmed-default, trained on public",
        ),
        ("brats-medsam", "chain-sam", {}, "for its prompter sam, sam-vit-base"),
        ("brats-medsam", "chain-medsam", {"start": "/x/coco.pth"}, "coco.pth for the detector; for its "),
        ("lgg-baselines", "unet", {}, "an encoder pretrained on ImageNet"),
    ],
)
def test_rows_name_the_weights_they_started_from(
    table: str, row: str, settings: dict[str, object], text: str
) -> None:
    entry = next(one for one in TABLES[table].entries if one.name == row)
    entry = replace(entry, settings={**entry.settings, **settings})
    job = BenchmarkJob(table, entry, 0, {}, Path())
    assert text in weights_text(find_method(entry.method), job, True)


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
