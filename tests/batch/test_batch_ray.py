"""Workers in processes of Ray, some of which die."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from batch_stand_in import StandIns, items
from segmed.batch.manifest import MOST_TRIES, Manifest
from segmed.batch.report import collect, measurement_rows
from segmed.batch.runs import RunOptions, open_pool
from segmed.batch.scheduler import Scheduler

# Ray reads its settings when it is imported, so that only the session may do that.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


def test_a_worker_that_dies_costs_its_item_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    manifest = Manifest(tmp_path)
    manifest.plan({"model": "m", "version": "v", "source": "s"}, items(30))
    faults = {"0003": "dies once", "0007": "dies", "0009": "unreadable", "0011": "sends"}
    pool = open_pool(StandIns(tmp_path, faults), "cpu", RunOptions(workers=2))
    try:
        state = Scheduler(manifest, pool, "v").run()
    finally:
        pool.close()
    assert (state.done, state.failed) == (28, 2)
    found = manifest.sql.execute("SELECT key, state, tries, error FROM items")
    rows = {row[0]: tuple(row)[1:] for row in found}
    assert rows["0003"][:2] == ("done", 1)
    assert rows["0007"][:2] == ("failed", MOST_TRIES) and "Its worker died" in rows["0007"][2]
    assert rows["0009"][:2] == ("failed", 1)
    assert len(list(measurement_rows(tmp_path))) == 28 and collect(tmp_path).unsent == 0
    assert (tmp_path / "pacs").read_text() == "0011\n"
    manifest.close()
