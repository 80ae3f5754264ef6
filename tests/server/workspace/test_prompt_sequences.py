"""Random sequences of prompts, edits and undos: what holds after every step, whatever came before.

SEGMED_SEQUENCES sets how many; `scripts/release_gate.sh` runs hundreds.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import requests
from page_client import Page, change_of
from running import Server  # type: ignore[import-not-found]

COUNT = int(os.environ.get("SEGMED_SEQUENCES", "4"))
FIRST = int(os.environ.get("SEGMED_FIRST_SEQUENCE", "0"))
STEPS = 14
MODELS = ("segmed", "segmed", "segmed_3d", "classical", "medsam", "medsam_3d", "sam")
LABELS = ("liver", "spleen")
STEP_KINDS = {"prompt": 8, "paint": 1, "undo": 2, "redo": 1, "accept": 1, "clear": 0.3}


class Sequence:
    """One user, whose steps are drawn from a seed.

    Attributes:
        past: Label maps that undo goes back to, the newest last.
        future: Label maps that redo goes forward to, the next one last.
        changes: Number of steps that have changed the label map.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.page = Page(server, f"sequence {seed}")
        told = requests.get(self.page.url, timeout=60).json()
        self.planes: dict[str, int] = told["planes"]
        self.past: list[np.ndarray] = []
        self.future: list[np.ndarray] = []
        self.changes = 0

    def step(self) -> str:
        """Do one step and check it; what was done."""
        weights = np.array([*STEP_KINDS.values()])
        kind = str(self.rng.choice([*STEP_KINDS], p=weights / weights.sum()))
        before = self.page.labels.copy()
        done = getattr(self, kind)()
        self.changes += bool((before != self.page.labels).any())
        if kind not in ("undo", "redo") and (before != self.page.labels).any():
            self.past.append(before)
            self.future = []
        return f"{kind} {done}"

    def prompt(self) -> dict[str, Any]:
        before = self.page.labels.copy()
        values = dict(self.page.told["labels"])
        body = self._prompt()
        answer = self.page.post("prompt", **body)
        if answer.status_code != 200:
            assert 400 <= answer.status_code < 500, answer.text[:300]
            assert answer.json()["detail"].endswith((".", "?")), answer.text[:300]
            assert (self.page.there() == before).all()
            return {**body, "refused": answer.json()["detail"]}
        self.page.take(answer)
        after, value = self.page.labels, self.page.told["labels"].get(body["label"], -1)
        others = [v for name, v in values.items() if name != body["label"]]
        kept = [v for name, v in values.items() if name in body["locked"]]
        fixed = np.isin(before, kept if body["overwrite"] else others)
        assert (after[fixed] == before[fixed]).all(), "voxels of other labels have changed"
        changed = after != before
        assert np.isin(after[changed], (0, value, *others)).all()
        for stroke in body.get("scribbles", ()):
            self._check_stroke(stroke, body, fixed, value)
        if body["model"].startswith("segmed"):
            for kind in ("foreground", "background"):
                for voxel in map(tuple, body.get(kind, ())):
                    assert fixed[voxel] or (after[voxel] == value) == (kind == "foreground"), (voxel, kind)
        return body

    def _check_stroke(
        self, stroke: dict[str, Any], body: dict[str, Any], fixed: np.ndarray, value: int
    ) -> None:
        for point in stroke["points"]:
            voxel = self._voxel(body["plane"], stroke["k"], point)
            if not fixed[voxel]:
                assert (self.page.labels[voxel] == value) == stroke["foreground"], (voxel, "of a stroke")

    def _prompt(self) -> dict[str, Any]:
        rng = self.rng
        plane = str(rng.choice([*self.planes]))
        across = self.planes[plane]
        size = np.array(self.page.shape)
        low = np.array([rng.integers(2, n // 2) for n in size])
        high = np.array([rng.integers(a + 3, n) for a, n in zip(low, size - 1, strict=True)])
        place = rng.integers(low, high)
        in_plane = [axis for axis in range(3) if axis != across]
        (p0, q0), (p1, q1) = low[in_plane].tolist(), high[in_plane].tolist()
        k = int(place[across])
        body: dict[str, Any] = {
            "model": str(rng.choice(MODELS)),
            "label": str(rng.choice(LABELS, p=(0.8, 0.2))),
            "plane": plane,
            "overwrite": bool(rng.random() < 0.3),
            "locked": [name for name in LABELS if rng.random() < 0.1],
        }
        kind = rng.choice(["box", "thick", "click", "clicks", "stroke", "lasso", "refine"])
        if kind in ("box", "thick"):
            low[across], high[across] = (
                (k, k) if kind == "box" else (max(0, k - 2), min(size[across] - 1, k + 2))
            )
            body["box"] = np.stack([low, high], 1).ravel().tolist()
        elif kind == "stroke":
            line = [[p0, q0], [(p0 + p1) // 2, (q0 + q1) // 2]]
            body["scribbles"] = [{"k": k, "foreground": bool(rng.random() < 0.6), "points": line, "width": 2}]
        elif kind == "lasso":
            body["lasso"] = {"k": k, "points": [[p0, q0], [p1, q0], [p1, q1], [p0, (q0 + q1) // 2]]}
        elif kind == "refine":
            body["refine"] = True
        else:
            body["foreground" if rng.random() < 0.7 else "background"] = [place.tolist()]
            if kind == "clicks":
                body["background"] = [low.tolist()]
        return body

    def _voxel(self, plane: str, k: int, point: list[int]) -> tuple[int, int, int]:
        voxel = [0, 0, 0]
        across = self.planes[plane]
        for axis, value in zip((axis for axis in range(3) if axis != across), point, strict=True):
            voxel[axis] = value
        voxel[across] = k
        return voxel[0], voxel[1], voxel[2]

    def paint(self) -> list[int]:
        i, j, k = (int(self.rng.integers(0, n - 6)) for n in self.page.shape)
        values = np.full((4, 5), self.page.told["labels"].get("liver", 1), np.uint8)
        self.page.do("paint", label="liver", changes=[change_of(k, [i, i + 5], [j, j + 4], values)])
        return [i, j, k]

    def undo(self) -> None:
        self._travel("undo", self.past, self.future)

    def redo(self) -> None:
        self._travel("redo", self.future, self.past)

    def _travel(self, what: str, ahead: list[np.ndarray], behind: list[np.ndarray]) -> None:
        if not self.page.told[f"can_{what}"]:
            return
        now = self.page.labels.copy()
        self.page.do(what)
        if (now != self.page.labels).any():
            assert (self.page.labels == ahead.pop()).all(), f"{what} shows another label map"
            behind.append(now)

    def accept(self) -> None:
        before = self.page.labels.copy()
        self.page.do("accept")
        assert (self.page.labels == before).all()

    def clear(self) -> None:
        self.page.do("clear")
        assert not self.page.labels.any()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_sequence_of_prompts_and_edits(server: Server, seed: int) -> None:
    sequence = Sequence(server, seed)
    done: list[str] = []
    for _ in range(STEPS):
        try:
            done.append(sequence.step())
        except AssertionError as error:
            raise AssertionError(f"{error}\nafter:\n" + "\n".join(done)) from error
    assert (sequence.page.there() == sequence.page.labels).all()
    assert sequence.changes > 2, done
