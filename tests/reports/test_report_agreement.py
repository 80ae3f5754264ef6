"""Agreement in the report: of two people, and of proposals with what became of them."""

from __future__ import annotations

import numpy as np
import pytest
from report_clinic import NAMES, Clinic, add_label, rows_of
from segmed.active.review.submission import LabelMap, read_submission
from segmed.evaluation.metrics import Overlap
from segmed.reports.cases import agreements
from segmed.reports.html import render


def test_agreement_is_the_dice_of_two_label_maps(clinic: Clinic) -> None:
    truth = clinic.image("a")
    moved = np.roll(truth, 2, 0)
    add_label(clinic, "a", "ann", truth)
    clinic.save("a", "version_1", moved, "bob", NAMES)
    clinic.save("a", "original", truth, "", NAMES)  # a proposal is nobody's
    report = clinic.report()
    dice = {
        name: Overlap.of(truth == n, moved == n).dice()
        for n, name in enumerate(NAMES, 1)
        if (truth == n).any()
    }
    assert len(report.pairs) == 1
    pair = report.pairs[0]
    assert (pair.image, pair.users, pair.tags) == ("a", ("ann", "bob"), ("final", "version_1"))
    assert pair.dice == pytest.approx(dice)
    found = agreements(report.pairs)
    assert [(row.users, row.pairs) for row in found] == [(("ann", "bob"), 1)]
    assert found[0].dice == pytest.approx(np.mean([*dice.values()]))
    assert ["ann, bob", "1", f"{found[0].dice:.3f}", f"{found[0].lowest:.3f}"] in rows_of(
        render(report), "agreement"
    )


def test_of_a_label_that_was_replaced_only_the_sizes_are_left(clinic: Clinic) -> None:
    truth = clinic.image("a")
    add_label(clinic, "a", "ann", truth)
    smaller = np.where(truth == 1, 1, 0).astype(np.uint8)
    smaller[20:] = 0
    add_label(clinic, "a", "bob", smaller)
    report = clinic.report()
    pair = report.pairs[0]
    assert (pair.users, pair.tags, pair.dice) == (("bob", "ann"), ("final", ""), None)
    liver = 2 * (smaller == 1).sum() / ((smaller == 1).sum() + (truth == 1).sum())
    there = [n for n in range(1, 7) if (truth == n).any()]
    assert pair.possible == pytest.approx(liver / len(there))
    page = render(report)
    assert "There are no two labels of one image to compare." in page
    assert ["a", "bob final", "ann replaced", f"{pair.possible:.3f}"] in rows_of(page, "agreement")
    add_label(clinic, "a", "carl", smaller)  # the same as bob's
    same = [pair for pair in clinic.report().pairs if set(pair.users) == {"bob", "carl"}]
    assert [pair.mean for pair in same] == [1.0]


def test_too_many_pairs_are_not_read(clinic: Clinic) -> None:
    clinic.state.observe({f"i{n}": "f" for n in range(42)}, [])
    for n in range(42):
        for user in ("ann", "bob"):
            clinic.label(f"i{n}", user)
    report = clinic.report()
    assert (len(report.pairs), report.pairs_left) == (40, 2)
    assert "2 images with several labels are left out" in render(report)
    assert {pair.image for pair in report.pairs} == {f"i{n}" for n in range(2, 42)}  # the newest


def test_the_worst_proposals_are_shown_where_they_differ(clinic: Clinic) -> None:
    slices, means = {}, {}
    for n, image in enumerate(("a", "b", "c")):
        truth = clinic.image(image, seed=n)
        proposal = truth.copy()
        slices[image] = int((truth > 0).sum((0, 1)).argmax())
        proposal[: 10 + 8 * n, :, slices[image]] = 0
        add_label(clinic, image, "ann", truth, proposal)
        names = dict(enumerate(NAMES, 1))
        maps = [
            LabelMap(clinic.studies / "labels" / tag / f"{image}.nii.gz", names)
            for tag in ("final", "original")
        ]
        agreement = read_submission(maps[0], maps[1]).agreement
        assert agreement
        means[image] = float(np.mean([*agreement.values()]))
    worst = clinic.report().worst
    assert [case.label.image for case in worst] == sorted(means, key=means.__getitem__)
    assert [case.dice for case in worst] == pytest.approx(sorted(means.values()))
    for case in worst:
        assert case.note.startswith(f"Slice {slices[case.label.image]} of 0 to 5,")
        assert case.overlay is not None and case.overlay.shape == (256, 256, 3)
        colours = {tuple(int(v) for v in colour) for colour in case.overlay.reshape(-1, 3)}
        assert {(0, 220, 0), (255, 220, 0)} <= colours, "cut off in the proposal, and the same elsewhere"
    assert render(clinic.report()).count("data:image/png;base64,") == 3
    (clinic.studies / "b.nii.gz").unlink()
    clinic.save("a", "final", truth, "eve", NAMES)
    (clinic.studies / "c.nii.gz").write_bytes(b"no image")
    notes = {case.label.image: case.note for case in clinic.report().worst}
    assert "replaced by another one" in notes["a"]
    assert "is missing" in notes["b"] and "cannot be read" in notes["c"]
    assert "data:image/png" not in render(clinic.report())
