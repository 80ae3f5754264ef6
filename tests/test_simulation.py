"""The simulated annotator: what it counts, what comes of a run, and that a run is not done twice."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import simulate_annotation  # noqa: E402
from segmed.active.scoring.strategies import CandidatePool, rank  # noqa: E402
from simulation import curves  # noqa: E402
from simulation.annotator import effort  # noqa: E402
from simulation.archive import CLINIC, Kind, draw, from_dataset  # noqa: E402
from simulation.loops import FirstRound, dice_of  # noqa: E402
from small_training import make_discs  # noqa: E402


def test_a_right_proposal_costs_a_look_and_an_error_its_outline() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:22, 10:22] = 1
    truth[30:33, 30:33] = 2
    assert effort(truth, truth, (1, 2)).clicks == 0
    assert effort(truth, truth, (1, 2)).seconds == 10
    # outlines of 44 px and of 8 px: a click every 6 px, at least three
    assert effort(None, truth, (1, 2)).clicks == 8 + 3
    assert effort(None, truth, (1, 2)).seconds == 10 + 1.5 * 11
    speck = truth.copy()
    speck[0, :3] = 1
    assert effort(speck, truth, (1, 2)).clicks == 0
    wrong = 3 - truth  # everything: drawn anew it costs no more than without a proposal
    assert effort(wrong, truth, (1, 2)).clicks == 8 + 3
    assert effort(truth, np.zeros_like(truth), (1, 2)).clicks == 2, "both are deleted"
    swapped = truth.copy()
    swapped[truth == 2] = 1
    assert effort(swapped, truth, (1, 2)).clicks == 3 + 3, "too much of one and too little of the other"


def test_the_drawn_archive_is_the_same_each_time_and_its_patients_are_in_one_part() -> None:
    kinds = (Kind("CT", patients=2, tested=1), Kind("CT follow-up", patients=1, pictures=3, tested=1))
    first, second = draw(kinds, 3), draw(kinds, 3)
    assert [c.name for c in first.pool] == [f"{c.patient}_{n}" for n, c in enumerate(first.pool)]
    assert sorted({c.patient for c in first.pool}) == ["p000", "p001", "p002"]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first.pool, second.pool, strict=True))
    assert not {c.patient for c in first.pool} & {c.patient for c in first.test}
    again = [c.image.astype(float) for c in first.pool if c.kind == "CT follow-up"]
    others = [c.image.astype(float) for c in first.pool if c.kind == "CT"]
    assert np.abs(again[0] - again[1]).mean() < np.abs(others[0] - others[1]).mean() / 2
    assert not np.array_equal(first.pool[0].image, draw(kinds, 4).pool[0].image)
    assert sum(kind.patients * kind.pictures for kind in CLINIC) == 212


def test_any_dataset_is_cut_into_pictures(tmp_path: Path) -> None:
    make_discs(tmp_path / "discs", volumes=4)
    archive = from_dataset("msd", str(tmp_path / "discs"), 0, patients=2, slices=4, tested=1)
    assert (len(archive.pool), len(archive.test)) == (8, 4)
    assert archive.classes == {1: "bright", 2: "dark"}
    assert {c.kind for c in archive.pool if not c.truth.any()} == {"empty"}
    with pytest.raises(ValueError, match="too few to test on 4"):
        from_dataset("msd", str(tmp_path / "discs"), 0, patients=2, slices=4, tested=4)
    with pytest.raises(ValueError, match="no dataset 'oracle'"):
        from_dataset("oracle", "", 0, patients=2, slices=4, tested=4)


def test_dice_is_that_of_patients_and_nothing_served_is_nothing_found() -> None:
    case = draw((Kind("CT", patients=1, tested=1),), 0).pool[0]
    classes = {1: "liver", 2: "spleen", 3: "none"}
    assert dice_of([case.truth], [case], classes)["dice"] == 1
    assert dice_of(None, [case], classes)["dice"] == 0
    half = np.where(case.truth == 1, 1, 0)
    assert dice_of([half], [case], classes)["dice"] == 0.5
    assert dice_of([half], [case], classes)["kind CT"] == 0.5
    two = [case, case]  # one patient twice: pictures are taken together
    assert dice_of([half, case.truth], two, classes)["spleen"] == pytest.approx(2 / 3)


def test_labels_that_are_needed_lie_on_the_line_between_two_rounds() -> None:
    assert curves.needed([10, 20, 30], [0.2, 0.6, 0.8], 0.7) == pytest.approx(25)
    assert curves.needed([10, 20], [0.9, 0.6], 0.7) == 10
    assert math.isinf(curves.needed([10, 20], [0.1, 0.6], 0.7))


def _rows() -> list[curves.Row]:
    found = []
    for strategy, gains in (("random", (0.0, 0.0, 0.0)), ("good", (0.10, 0.12, 0.14))):
        for seed, gain in enumerate(gains):
            for n, dice in enumerate((0.4, 0.5, 0.6)):
                facts = {
                    "strategy": strategy,
                    "seed": seed,
                    "round": n,
                    "labels": 10 * (n + 1),
                    "clicks": 5 * n,
                }
                found.append(
                    {**facts, "minutes": 2.0 * n, "dice": dice + seed / 100 + gain, "picked": {"CT": 10}}
                )
    full = {"strategy": "full", "seed": 0, "round": 0, "labels": 90, "clicks": 9, "minutes": 9.0, "dice": 0.6}
    return [*found, {**full, "picked": {"CT": 45, "MR": 45}}]


def test_a_strategy_is_compared_seed_by_seed(tmp_path: Path) -> None:
    rows = _rows()
    gain, half, p = curves.against_random(rows, "good")
    assert gain == pytest.approx(0.12)
    assert half == pytest.approx(4.303 * 0.02 / math.sqrt(3), rel=1e-3)
    assert p == pytest.approx(0.0092, abs=2e-4)
    text = curves.table(rows)
    good = next(line for line in text.splitlines() if line.startswith("| good"))
    # 95 % of 0.6 are reached after 14 labels, by random after 26
    assert "| 14 | 0.54 | +0.120 ± 0.050 | 0.009 |" in good
    # between 0.53 with 10 labels and 0.63 with 20
    assert "The 0.610 that random has with 30 labels good has with 18: 0.60." in text
    assert list(curves.picked(rows))[2] == "| all pictures | 50 | 50 |"
    assert curves.matrix([*rows, {**rows[0], "seed": 9}], "random", "dice").shape == (3, 3), (
        "unfinished ones are left"
    )
    longer = [*rows, *({**r, "round": 3, "labels": 40, "dice": 0.7} for r in rows if r["round"] == 2)]
    short = [r for r in longer if (r["strategy"], r["round"]) != ("good", 3)]
    assert curves.against_random(short, "good")[0] == pytest.approx(0.12), "rounds that both have"
    assert "| 10 | 20 | 30 | 40 | mean to 30 |" in curves.table(short)
    assert curves.strategies_of([rows[3], *rows]) == ["random", "good"]
    curves.plot(rows, tmp_path / "curve.png", "test")
    assert 5_000 < (tmp_path / "curve.png").stat().st_size < 200_000


def test_the_first_round_of_a_seed_is_played_once(tmp_path: Path) -> None:
    kept = FirstRound(tmp_path / "kept")
    assert kept.restore(tmp_path / "a", "hybrid") is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state").write_text("after the first round")
    kept.keep(tmp_path / "a", {"strategy": "hybrid", "clicks": 3, "minutes": 1.0, "labels": 2, "round": 0})
    row = kept.restore(tmp_path / "b", "random")
    assert row == {"strategy": "random", "clicks": 3, "minutes": 1.0, "labels": 2, "round": 0}
    assert (tmp_path / "b" / "state").read_text() == "after the first round"


def test_a_kind_in_which_the_model_finds_nothing_is_proposed_all_the_same() -> None:
    """Without an object there is no score; the kind was left until all others were labelled."""
    embeddings = np.concatenate([np.zeros((10, 2)), np.full((10, 2), 9.0)]) + np.random.default_rng(0).random(
        (20, 2)
    )
    scores = {"jitter": np.concatenate([np.full(10, 0.5), np.full(10, np.nan)])}
    labelled = np.arange(20) < 2
    pool = CandidatePool([str(n) for n in range(20)], ~labelled, scores, embeddings)
    assert all(int(rank("hybrid", pool, 1, seed, labelled)[0]) >= 10 for seed in range(5))


def _run(out: Path, *words: str) -> str:
    always = ["--in-process", "--out", str(out), "--strategies", "full,typicality", "--seeds", "0"]
    options = simulate_annotation.parse([*always, "--batch", "4", "--rounds", "2", *words])
    simulate_annotation.play(options)
    return simulate_annotation.report(options)


def test_a_small_run_from_the_first_label_to_the_table(tmp_path: Path) -> None:
    make_discs(tmp_path / "discs", volumes=5)
    words = [
        "--dataset",
        "msd",
        "--root",
        str(tmp_path / "discs"),
        "--patients",
        "3",
        "--slices",
        "4",
        "--tested",
        "2",
    ]
    words += [
        "--options",
        "epochs=2,epoch_steps=6,batch=4,patience=9,learning_rate=0.03",
        "--image-size",
        "32",
        "--full-epochs",
        "2",
        "--work",
        str(tmp_path),
    ]
    out = tmp_path / "rows.jsonl"
    text = _run(out, *words)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(r["strategy"], r["round"], r["labels"]) for r in rows] == [
        ("full", 0, 12),
        ("typicality", 0, 4),
        ("typicality", 1, 8),
    ]
    states = [r["state"] for r in rows]
    assert "promoted" in states
    assert {*states} <= {"promoted", "rejected", "failed"}, "so short a training may find only background"
    assert all(
        0 <= r["dice"] <= 1 and sum(r["picked"].values()) == len(r["images"] or range(12)) for r in rows
    )
    assert len({*rows[1]["images"], *rows[2]["images"]}) == 8, "no picture twice"
    assert rows[2]["clicks"] > rows[1]["clicks"] > 0
    assert rows[2]["minutes"] == pytest.approx((8 * 10 + 1.5 * rows[2]["clicks"]) / 60, abs=0.01)
    assert "| typicality | 1 |" in text
    assert not list(tmp_path.glob("simulation-*"))
    before = out.read_bytes()
    out.write_bytes(b"".join(before.splitlines(keepends=True)[:2]))  # as if it had been stopped in between
    _run(out, *words)
    again = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [{**r, "seconds": 0} for r in again] == [{**r, "seconds": 0} for r in rows], (
        "what is missing is made up for"
    )
