"""A worker that needs no model: it writes one small file an item, and goes wrong where a test wants it to."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segmed.batch.items import Item
from segmed.batch.tasks import Away, Ending, Outcome, Phase, Task
from segmed.imaging.durable import appear_whole


@dataclass(frozen=True)
class StandIns:
    """Makes workers.

    Attributes:
        out: Folder of the run.
        faults: What happens to an item by its key: `unreadable`, `bug`, `full`, `away`, `dies` (at each try),
            `dies once`, or `sends` (its result has to be sent).
    """

    out: Path
    faults: Mapping[str, str] = field(default_factory=dict)

    def __call__(self) -> StandIn:
        return StandIn(self.out, self.faults)


class StandIn:
    """The worker."""

    def __init__(self, out: Path, faults: Mapping[str, str]) -> None:
        self.out, self.faults = out, faults

    def read(self, task: Task) -> Task:
        fault = self.faults.get(task.key, "")
        if fault == "unreadable":
            raise ValueError(f"The image {task.key} cannot be read.")
        if fault == "bug":
            raise ZeroDivisionError("division by zero")
        if fault == "full":
            raise OSError(28, "No space left on device")
        if fault == "away" and not (self.out / "pacs is back").exists():
            raise Away("The PACS cannot be reached.")
        return task

    def segment(self, task: Task) -> Task:
        fault, died = self.faults.get(task.key, ""), self.out / f"died-{task.item}"
        if fault == "dies" or (fault == "dies once" and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    def finish(self, task: Task) -> Outcome:
        if task.phase is Phase.SEND:
            with (self.out / "pacs").open("a") as file:
                file.write(f"{task.key}\n")
            return Outcome(task.item, Ending.DONE)
        path = self.out / "masks" / f"{task.name}.txt"
        path.parent.mkdir(exist_ok=True, parents=True)
        with appear_whole(path, sync=False) as part:
            part.write_text(task.key)
        digest = hashlib.sha256(task.key.encode()).hexdigest()
        ending = Ending.WRITTEN if self.faults.get(task.key) == "sends" else Ending.DONE
        row = {"label": 1, "name": "object", "empty": False, "voxels": task.size, "volume_ml": 1.0}
        outputs = {path.relative_to(self.out).as_posix(): digest}
        return Outcome(task.item, ending, "", digest, outputs, (row,), 0.001)

    def discard(self, task: Task) -> None:
        return


def items(count: int, size: int = 10) -> list[Item]:
    """Items with the keys `0000`, `0001`, …"""
    return [Item(f"{n:04d}", f"{n:04d}", {"file": f"/nowhere/{n}"}, size) for n in range(count)]
