#!/usr/bin/env python
"""How fast batch runs are, and whether large ones hold: what the scheduler costs, and a simulated archive.

    python scripts/bench_batch.py plan            # 10,000 items planned from a folder
    python scripts/bench_batch.py overhead        # 10,000 items that cost nothing
    python scripts/bench_batch.py model           # one worker beside the bare model
    python scripts/bench_batch.py workers         # two workers of Ray beside one, on decoding
    python scripts/bench_batch.py archive         # 100,000 items; workers and the run itself are killed
    python scripts/bench_batch.py archive --in-process   # without Ray; the run itself is killed

`archive` starts itself again as the run that is killed. Its items cost nothing, one in a hundred fails, and
one in ten thousand kills its worker at the first try.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from segmed.batch.items import Item
from segmed.batch.manifest import Manifest
from segmed.batch.pools import Pool, ThreadPool
from segmed.batch.report import collect, measurement_rows
from segmed.batch.runs import plan_run
from segmed.batch.scheduler import RunState, Scheduler
from segmed.batch.settings import BOXES, RunSettings
from segmed.batch.tasks import Ending, Outcome, Task

FAILS, DIES = 100, 10_000  # one item in so many
SETTINGS = {"model": "none", "version": "none", "source": "simulated"}


@dataclass(frozen=True)
class Tiny:
    """Makes workers whose items cost nothing."""

    out: Path
    dies: bool = False

    def __call__(self) -> Tiny:
        return self

    def read(self, task: Task) -> Task:
        number = int(task.key)
        if number % FAILS == 7:
            raise ValueError(f"The image {task.key} cannot be read.")
        if self.dies and number % DIES == 9:
            with contextlib.suppress(FileExistsError):
                (self.out / f"died-{number}").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return task

    def segment(self, task: Task) -> Task:
        return task

    def finish(self, task: Task) -> Outcome:
        row = {"label": 1, "name": "object", "empty": False, "voxels": 10, "volume_ml": 0.01}
        return Outcome(task.item, Ending.DONE, "", sha256(task.key.encode()).hexdigest(), {}, (row,), 0.0)

    def discard(self, task: Task) -> None:
        return


def plan(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder, "studies")
        for n in range(count):
            path = studies / f"{n // 100:03d}" / f"{n:06d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(1000))
        manifest = Manifest(Path(folder, "out"))
        begun, worked = time.perf_counter(), time.process_time()
        plan_run(manifest, RunSettings(str(studies), "segmed_3d", "untrained", registry=folder))
        spent, worked = time.perf_counter() - begun, time.process_time() - worked
        print(f"{count} items of a folder planned in {spent:.1f} s, {worked:.1f} s of the processor")


def overhead(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = _planned(Path(folder), count)
        pool = ThreadPool(Tiny(Path(folder)))
        begun, worked = time.perf_counter(), time.process_time()
        Scheduler(manifest, pool).run()
        spent, worked = time.perf_counter() - begun, time.process_time() - worked
        print(
            f"{count} items that cost nothing: {spent / count * 1000:.2f} ms each, "
            f"{worked / count * 1000:.2f} ms of the processor, in one process"
        )
        pool.close()


def model(images: int, model_name: str) -> None:
    """The rate of a run beside that of the same model on images that were read before.

    The bare model runs before and after the run, so that other programs disturb both alike. Processor time is
    that of all threads of this process: it does not depend on other programs as the clock does.
    """
    from segmed.batch.worker import SegmentationWorkers
    from segmed.imaging.store import ByteBoundedStore

    with tempfile.TemporaryDirectory() as folder:
        settings = _phantoms(Path(folder), images + 1, model_name)
        manifest = Manifest(Path(folder, "out"))
        worker = SegmentationWorkers(plan_run(manifest, settings), Path(folder, "out"))()
        warm, *tasks = manifest.next_tasks(0, images + 1)
        with manifest.write():
            manifest.begin(warm)
            manifest.end(worker.finish(worker.segment(worker.read(warm))))  # first use of everything

        def timed(work: Callable[[], object]) -> np.ndarray:
            """Seconds by the clock, and of the processor."""
            worker._model.predictor.embeddings = ByteBoundedStore(2**28)
            begun = time.perf_counter(), time.process_time()
            work()
            return np.subtract((time.perf_counter(), time.process_time()), begun)

        def bare_model(part: Sequence[Task]) -> np.ndarray:
            read = [worker.read(task) for task in part]
            return timed(lambda: [worker.segment(one) for one in read])

        bare = bare_model(tasks[: images // 2])
        pool = ThreadPool(lambda: worker)
        run = timed(Scheduler(manifest, pool, "untrained").run)
        pool.close()
        bare += bare_model(tasks[images // 2 :])
        assert manifest.counts() == {"done": images + 1}, manifest.counts()
    rate = images / bare[0] * 60, images / run[0] * 60
    print(
        f"{model_name}, {images} images: {rate[0]:.1f} a minute by the model alone, {rate[1]:.1f} by a run "
        f"that reads, measures and writes: {bare[0] / run[0]:.2f} x by the clock, {bare[1] / run[1]:.2f} x "
        f"by processor time ({bare[1] / images:.2f} and {run[1] / images:.2f} s an image)"
    )


def workers(images: int) -> None:
    """Runs that mostly decode, by one actor of Ray and by two, without the start of Ray."""
    spent = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder, _ray(Decoding(), count) as pool:
            manifest = Manifest(Path(folder))
            manifest.plan(SETTINGS, [Item(str(n), str(n), {}, 1) for n in range(images + count)])
            for task in manifest.next_tasks(0, count):  # the processes start at their first task
                with manifest.write():
                    manifest.begin(task)
                pool.submit(task)
            first: list[Outcome] = []
            while len(first) < count:
                first += pool.wait(60)
            with manifest.write():
                for outcome in first:
                    manifest.end(outcome)
            begun = time.perf_counter()
            Scheduler(manifest, pool).run()
            spent[count] = time.perf_counter() - begun
    print(
        f"{images} volumes decoded: {spent[1]:.1f} s by one worker, {spent[2]:.1f} s by two: "
        f"{spent[1] / spent[2]:.2f} x as fast"
    )


@dataclass
class Decoding:
    """Makes workers that decompress a volume and do nothing else."""

    def __call__(self) -> Decoding:
        volume = np.random.default_rng(0).integers(0, 200, (256, 256, 60)).astype(np.int16)
        self.file = Path(tempfile.mkdtemp()) / "ct.nii.gz"
        nib.save(nib.Nifti1Image(volume, np.eye(4)), self.file)
        return self

    def read(self, task: Task) -> Task:
        from segmed.imaging.reading import read_volume

        read_volume(self.file)
        return task

    def segment(self, task: Task) -> Task:
        return task

    def finish(self, task: Task) -> Outcome:
        return Outcome(task.item, Ending.DONE, "", sha256(task.key.encode()).hexdigest())

    def discard(self, task: Task) -> None:
        return


def archive(count: int, kills: int, in_process: bool) -> None:
    """An archive in which workers die and the run itself is killed; the results are counted at the end."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        for n in range(kills + 1):
            command = [sys.executable, __file__, "--count", str(count), "--folder", folder, "driver"]
            command += ["--in-process"] if in_process else []
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            if n < kills:
                assert process.stdout is not None
                wanted = count * (n + 1) // (kills + 1)
                for line in process.stdout:
                    if line.startswith("done") and int(line.split()[1]) >= wanted:
                        process.kill()
                        break
                process.wait()
            else:
                said = process.communicate()[0]
                assert process.returncode == 0, said
        spent = time.perf_counter() - begun
        memory = [int(line.split()[2]) for line in said.splitlines() if line.startswith("done")]
        began = time.perf_counter()
        report = collect(Path(folder))
        rows = sum(1 for _ in measurement_rows(Path(folder)))
        reported = time.perf_counter() - began
        deaths = len(list(Path(folder).glob("died-*")))
    failing = len([n for n in range(count) if n % FAILS == 7])
    assert report.states == {"done": count - failing, "failed": failing}, report.states
    assert rows == count - failing and report.same_content == 0
    print(
        f"{count} items, {failing} of which fail, {deaths} workers and {kills} runs killed: {spent:.0f} s, "
        f"{spent / count * 1000:.2f} ms an item; no item lost or doubled; the last run grew by "
        f"{memory[-1] - memory[0]} MiB; report and table in {reported:.1f} s"
    )


def driver(folder: Path, count: int, in_process: bool) -> None:
    """The run that `archive` kills."""
    manifest = Manifest(folder)
    if manifest.settings() is None:
        manifest.plan(SETTINGS, _items(count))
    manifest.recover()
    told = 0

    def tell(state: RunState) -> None:
        nonlocal told
        if (finished := state.done + state.failed) >= told + count // 50:
            told = finished
            print(f"done {finished} {psutil.Process().memory_info().rss // 2**20}", flush=True)

    with (
        contextlib.closing(ThreadPool(Tiny(folder)))
        if in_process
        else _ray(Tiny(folder, dies=True), 2) as pool
    ):
        Scheduler(manifest, pool, tell=tell).run()
    manifest.close()


@contextlib.contextmanager
def _ray(factory: object, count: int) -> Iterator[Pool]:
    from segmed.batch.ray_pool import RayPool

    pool = RayPool(factory, count)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        pool.close()


def _items(count: int) -> Iterator[Item]:
    return (Item(f"{n:06d}", f"{n:06d}", {"file": f"/archive/{n:06d}"}, 1000) for n in range(count))


def _planned(folder: Path, count: int) -> Manifest:
    manifest = Manifest(folder)
    manifest.plan(SETTINGS, _items(count))
    return manifest


def _phantoms(folder: Path, count: int, name: str) -> RunSettings:
    from segmed.data.phantom import make_phantom
    from segmed.imaging.labels.masks import bounding_box

    lines = ["image,label,i0,i1,j0,j1,k0,k1"]
    for n in range(count):
        phantom = make_phantom("CT", shape=(192, 160, 24), spacing=(1.8, 1.8, 8.0), seed=n)
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), folder / f"ct{n}.nii.gz")
        found = bounding_box(phantom.labels == 1)
        assert found is not None
        (i0, i1), (j0, j1), (k0, k1) = found
        lines.append(f"ct{n}.nii.gz,liver,{i0},{i1},{j0},{j1},{k0},{k1}")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    boxes = str(folder / "boxes.csv")
    return RunSettings(
        str(folder), name, "untrained", prompts=BOXES, boxes=boxes, registry=str(folder / "models")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["plan", "overhead", "model", "workers", "archive", "driver"])
    parser.add_argument("--count", type=int, default=0, help="number of items")
    parser.add_argument("--kills", type=int, default=3, help="of the run, in `archive`")
    parser.add_argument("--in-process", action="store_true", help="without Ray, in `archive`")
    parser.add_argument("--model", default="segmed_3d")
    parser.add_argument("--folder", type=Path, default=Path())
    a = parser.parse_args()
    if a.what == "plan":
        plan(a.count or 10_000)
    elif a.what == "overhead":
        overhead(a.count or 10_000)
    elif a.what == "model":
        model(a.count or 8, a.model)
    elif a.what == "workers":
        workers(a.count or 60)
    elif a.what == "archive":
        archive(a.count or 100_000, a.kills, a.in_process)
    else:
        driver(a.folder, a.count, a.in_process)


if __name__ == "__main__":
    main()
