"""A run from its settings to its results: plan or resume, workers, and the loop over all items."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from segmed.batch.items import Shard
from segmed.batch.manifest import Manifest
from segmed.batch.pools import Pool, ThreadPool
from segmed.batch.scheduler import Courtesy, Limits, RunState, Scheduler
from segmed.batch.settings import BOXES, DETECTOR, RunSettings
from segmed.batch.tasks import WorkerFactory
from segmed.inference.device_use import seconds_since_answer

_QUIET = 2.0  # s after an answer of a server in which its user may ask again
_ENDS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, which does not change its results.

    Attributes:
        shard: Part of the archive.
        workers: Number of workers.
        ray_address: Address of a Ray cluster, or "".
        retry_failed: Whether failed items are processed again.
        rescan: Whether the source is listed again, for images that have come since.
        limits: Limits of memory and patience.
        give_way: Whether no item is started while a server on this machine answers prompts.
    """

    shard: Shard = field(default_factory=Shard)
    workers: int = 1
    ray_address: str = ""
    retry_failed: bool = False
    rescan: bool = False
    limits: Limits = field(default_factory=Limits)
    give_way: bool = True

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; give at least 1.")


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        state: Last state.
        stopped: Why it stopped before all items were processed, or "".
    """

    state: RunState
    stopped: str


class ServerCourtesy(Courtesy):
    """Gives way to a server on this machine with the same folder of models.

    An item that is under way is not interrupted: a user waits for the rest of one item at most.

    Args:
        registry: Folder of trained models.
    """

    def __init__(self, registry: Path) -> None:
        self._registry = registry

    def busy(self) -> bool:
        """Whether a prompt is being answered, or was a moment ago."""
        return seconds_since_answer(self._registry) < _QUIET


def run_batch(
    wanted: RunSettings,
    out: Path,
    options: RunOptions,
    tell: Callable[[RunState], None] = lambda state: None,
    say: Callable[[str], None] = lambda text: None,
) -> RunEnd:
    """Plan a run, or resume it, and process its items.

    Args:
        wanted: Settings of the run.
        out: Folder of the run.
        options: How it is carried out.
        tell: Function called when the state changes.
        say: Function for messages to the user.

    Raises:
        ValueError: The settings cannot be used or differ from those of the manifest, or another run holds it.
        FileNotFoundError: Source, weights or file of boxes are missing.
        OSError: The disk cannot be written.
    """
    manifest = Manifest(out, options.shard)
    try:
        settings = plan_run(manifest, wanted, options.rescan, say)
        if interrupted := manifest.recover():
            say(f"{interrupted} items were under way when the last run ended; they are processed again.")
        if options.retry_failed:
            say(f"{manifest.retry_failed()} failed items are processed again.")
        if not manifest.next_tasks(0, 1):  # no model needs to be loaded
            counts = manifest.counts()
            return RunEnd(RunState(sum(counts.values()), counts.get("done", 0), counts.get("failed", 0)), "")
        from segmed.batch.worker import SegmentationWorkers

        pool = open_pool(SegmentationWorkers(settings, out.absolute()), settings.device, options)
        try:
            courtesy = ServerCourtesy(Path(settings.registry)) if options.give_way else Courtesy()
            scheduler = Scheduler(
                manifest, pool, settings.version, options.limits, tell=tell, courtesy=courtesy
            )
            with _ending_gently(scheduler, say):
                state = scheduler.run()
            return RunEnd(state, scheduler.stopped)
        finally:
            pool.close()
    finally:
        manifest.close()


def plan_run(
    manifest: Manifest, wanted: RunSettings, rescan: bool = False, say: Callable[[str], None] = lambda _: None
) -> RunSettings:
    """The settings of a run, with pinned versions; the items are listed unless the manifest has them.

    Raises what `run_batch` raises.
    """
    from segmed.batch.prompt_files import read_prompts
    from segmed.batch.sources import list_items
    from segmed.imaging.labels.provenance import checksum_of

    prompts = read_prompts(Path(wanted.boxes)) if wanted.prompts == BOXES else None
    if prompts:
        wanted = replace(wanted, boxes_sha=checksum_of(wanted.boxes))
    stored = manifest.settings()
    if stored is None:
        settings = _pinned(wanted)
    else:
        settings = RunSettings.from_json(stored).resumed(wanted, manifest.folder)
        if not rescan:
            return settings
    listing = list_items(settings, manifest.folder)
    notes = list(listing.notes)
    if prompts and (strangers := prompts.strangers(item.key for item in listing.items)):
        notes.append(
            f"{len(strangers)} images of {Path(settings.boxes).name} are not there, such as {strangers[0]}."
        )
    mine = [item for item in listing.items if manifest.shard.holds(item.key)]
    added = manifest.plan(settings.to_json(), mine, notes)
    say(f"{added} of {len(listing.items)} items were added to {manifest.path}.")
    for note in notes:
        say(note)
    return settings


def open_pool(factory: WorkerFactory, device: str, options: RunOptions) -> Pool:
    """Workers in this process, or on Ray if there are several or a cluster is named.

    Raises:
        ValueError: Ray is missing, or there is no cluster at the address.
    """
    if options.workers == 1 and not options.ray_address:
        return ThreadPool(factory)
    import torch

    from segmed.batch.ray_pool import RayPool

    gpus = torch.cuda.device_count() / options.workers if device != "cpu" else 0.0
    threads = max(1, torch.get_num_threads() // options.workers)
    return RayPool(factory, options.workers, options.ray_address, gpus, threads)


def _pinned(wanted: RunSettings) -> RunSettings:
    """Settings with the versions that are served now, so that a promotion does not change a run."""
    from segmed.registry.predictors import UNTRAINED, find_model, find_version

    registry = Path(wanted.registry)
    found = find_version(
        registry, find_model(wanted.model, wanted.backbone, wanted.precision), wanted.version
    )
    settings = replace(wanted, version=found.version if found else UNTRAINED)
    if wanted.prompts == DETECTOR:
        detector = find_version(registry, find_model("auto"), wanted.detector_version)
        settings = replace(settings, detector_version=detector.version if detector else UNTRAINED)
    return settings


@contextlib.contextmanager
def _ending_gently(scheduler: Scheduler, say: Callable[[str], None]) -> Iterator[None]:
    """At the first signal, items under way are finished; at the second, the process ends."""

    def end(number: int, frame: FrameType | None) -> None:
        for one, handler in before.items():
            signal.signal(one, handler)
        scheduler.stop("The run was ended. Run the same command again to continue.")
        say("ending after the items that are under way; once more ends at once")

    try:
        before = {number: signal.signal(number, end) for number in _ENDS}
    except ValueError:  # not in the main thread, where nobody sends signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
