"""The report says what the state, the datastore and the registry hold, whatever is in them."""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from report_clinic import DAY, EVIL, NAMES, NOON, Clinic, add_label, rows_of, weights_writer
from segmed.active.retraining import Retraining
from segmed.active.store.study_files import StudyFiles
from segmed.data.checksums import file_checksum
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.reports.anonymous import anonymised
from segmed.reports.html import render
from segmed.reports.numbers import labels_per_day, labels_per_user, running_median, work_per
from segmed.reports.report import Report, collect

NONE_YET = (
    "Nothing was trained yet.",
    "No retraining has begun yet.",
    "Nobody has submitted a label yet.",
    "No case with prompts was finished yet.",
    "There are no two labels of one image to compare.",
    "There is no label with a proposal of a model to compare it with.",
    "Too few images have scores to see a change.",
    "No label was held back.",
)


def test_labels_and_work_are_those_of_the_state(clinic: Clinic) -> None:
    clinic.state.observe({f"i{n}": "f" for n in range(9)}, [])
    clinic.label("i0", "ann", 2, 30, dice=0.5)
    clinic.label("i1", "ann", 4, 30, dice=0.7)
    clinic.label("i1", "bob", 1, 300)  # a pause counts two minutes
    clinic.clock.now += DAY
    clinic.label("i2", "ann", 9, 10, dice=0.9)
    clinic.label("i3", "", 0)  # copied
    clinic.log.work("i4", "bob")  # open
    clinic.log.review(clinic.label("i5", "bob", 1, 20), False, "ann")
    report = clinic.report()
    assert (report.images, report.labelled, len(report.labels)) == (9, 5, 6)
    first, second = date(2026, 3, 2), date(2026, 3, 3)
    assert labels_per_day(report.labels) == {
        (first, "ann"): 2,
        (first, "bob"): 1,
        (second, "ann"): 1,
        (second, "bob"): 1,
        (second, ""): 1,
    }
    ann = labels_per_user(report.labels)[0]
    assert (ann.user, ann.labels, ann.images, ann.first, ann.last) == ("ann", 3, 3, first, second)
    assert (ann.states["kept"], ann.proposals) == (3, 0.7)
    work = {row.name: row for row in work_per(report.cases, lambda case: case.user)}
    assert set(work) == {"ann", "bob"}
    assert (work["ann"].cases, work["ann"].prompts, work["ann"].seconds, work["ann"].prompts_in_all) == (
        3,
        4,
        90,
        15,
    )
    assert work["ann"].hours == pytest.approx((60 + 120 + 90) / 3600)
    assert (work["bob"].cases, work["bob"].prompts, work["bob"].seconds) == (2, 1, 70)
    page = render(report)
    rows = rows_of(page, "labels")
    assert ["ann", "3", "3", "3", "0", "0", "0", "0.700", "2026-03-02", "2026-03-03"] in rows
    assert ["bob", "2", "2", "1", "0", "1", "0", "–", "2026-03-02", "2026-03-03"] in rows
    assert ["2026-03-02", "ann", "2"] in rows and ["2026-03-03", "(unknown)", "1"] in rows
    assert ["ann", "3", "4", "90", "15", "0.1"] in rows_of(page, "work")
    assert ["segmed", "5", "2", "90", "17", "0.1"] in rows_of(page, "work")
    assert "1 case is open" in page
    assert running_median([3, 1, 2, 9], 3) == [3, 2, 2, 2]


def test_versions_and_retrainings_are_those_of_the_registry(clinic: Clinic) -> None:
    first = clinic.version(1, 0.7, None, 0.5)
    second = clinic.version(2, 0.6, first, 0.7)
    third = clinic.registry.add("lora", weights_writer(3), VersionRecord((), DataFingerprint((), {}, {})))
    (third.folder / "metrics.json").write_text("{", encoding="utf-8")
    retraining = Retraining(clinic.database)
    job = retraining.reserve("lora", "3 images were labelled.")
    assert job is not None
    clinic.clock.now += 600
    retraining.advance(job, "failed", message=f"no room on the {EVIL}")
    report = clinic.report()
    assert [(v.version, v.served) for v in report.versions] == [
        (first, True),
        (second, False),
        (third.version, False),
    ]
    assert [v.dice for v in report.versions[:2]] == pytest.approx([0.7, 0.6])
    assert math.isnan(report.versions[2].dice) and report.versions[2].damage
    page = render(report)
    rows = {row[1]: row for row in rows_of(page, "versions") if len(row) == 6 and row[1].startswith("lora 0")}
    assert rows[f"lora {first} served"][2:5] == ["2", "4", "0.700"]
    assert rows[f"lora {first} served"][5].startswith(
        "accepted Better than the untrained method. Mean Dice 0.700"
    )
    assert rows[f"lora {second}"][5].startswith("rejected Not served")
    assert rows[f"lora {third.version}"][5].startswith("damaged metrics.json")
    job_row = next(row for row in rows_of(page, "versions") if "failed" in row)
    assert job_row[1:5] == ["lora", "failed", "10 min", "3 images were labelled."]
    assert "no room on the &lt;script&gt;" in job_row[5]
    assert any(row[1:4] == ["promote", "untrained", first] for row in rows_of(page, "versions"))


def test_nothing_there_yet(tmp_path: Path, clinic: Clinic) -> None:
    for report in (Report(NOON), collect(None, StudyFiles(), None), clinic.report()):
        page = render(report)
        for sentence in NONE_YET:
            assert sentence in page
        assert "<img" not in page
        assert render(anonymised(report))
    clinic.image("a")
    clinic.save("a", "final", np.ones((40, 32, 6), np.uint8), "", ())
    found = collect(None, StudyFiles.read(clinic.studies), None)
    assert (found.images, found.labelled) == (1, 1)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        StudyFiles.read(tmp_path / "nowhere")
    (clinic.studies / "datastore_v2.json").write_text('{"objects": [1]}', encoding="utf-8")
    with pytest.raises(ValueError, match="is not the list of a datastore"):
        StudyFiles.read(clinic.studies)


def test_what_users_typed_is_text_and_the_page_needs_nothing_else(clinic: Clinic) -> None:
    image = "x<i>1"
    labels = clinic.image("case")
    clinic.state.observe({image: "f", "case": "f"}, [])
    clinic.log.work(image, EVIL, 1, EVIL)
    clinic.clock.now += 5
    clinic.log.work(image, EVIL, 1, EVIL)
    record = clinic.log.record(image, EVIL, "c", {EVIL: 3}, {EVIL: 0.25})
    assert record is not None
    clinic.log.review(record.id, False, EVIL)
    for tag, user in (("final", EVIL), ("version_1", "bob")):
        clinic.save("case", tag, np.where(labels, 1, 0).astype(np.uint8), user, (EVIL,))
    clinic.version(1, 0.7, None, 0.5)
    page = render(clinic.report())
    assert "<script" not in page.lower() and "<i>" not in page
    assert page.count("&lt;script&gt;alert(") >= 6
    assert "x&lt;i&gt;1" in page
    assert not re.search(r"https?:|//[a-z]", re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", page))
    assert set(re.findall(r'(?:src|href)="(.{4})', page)) <= {
        "data",
        "#ver",
        "#lab",
        "#wor",
        "#agr",
        "#dri",
        "#qua",
    }
    assert "default-src &#39;none&#39;" in page


def test_the_quarantine_is_listed_with_its_model_agreements(clinic: Clinic) -> None:
    clinic.state.observe({f"i{n}": "f" for n in range(8)}, [])
    for n in range(6):
        assert not clinic.log.examine(clinic.label(f"i{n}", "ann"), {"v1": 0.9})
    number = clinic.label("i6", "bob")
    assert clinic.log.examine(number, {"v1": 0.05})
    turned_down = clinic.label("i7", "bob")
    clinic.log.review(turned_down, False, "ann")
    rows = rows_of(render(clinic.report()), "quarantine")
    held = next(row for row in rows if row and row[0] == str(number))
    assert held[1:3] == ["i6", "bob"] and held[4] == "held" and held[6] == "v1 0.050"
    assert "Dice v1 0.05, usually 0.90" in held[5]
    assert next(row for row in rows if row and row[0] == str(turned_down))[4] == "dropped by ann"
    assert [row for row in rows if row] and len(rows) == 3  # the head, and two labels


def test_anonymous_reports_have_no_names(clinic: Clinic) -> None:
    truth = clinic.image("miller 1970")
    add_label(clinic, "miller 1970", "dr. smith", truth, np.roll(truth, 1, 0))
    clinic.save("miller 1970", "version_1", np.roll(truth, 2, 0), "dr. jones", NAMES)
    clinic.clock.now += DAY
    number = clinic.label("miller 1971", "dr. smith", 2, 20, dice=0.9)
    clinic.log.review(number, False, "dr. king")
    first = clinic.version(1, 0.7, None, 0.5)
    clinic.registry.rollback("lora", "dr. king said so")
    retraining = Retraining(clinic.database)
    job = retraining.reserve("lora", "2 images were labelled.")
    assert job is not None
    retraining.advance(job, "failed", message="miller 1970 cannot be read")
    report = clinic.report()
    hidden = anonymised(report)
    page = render(hidden)
    plain = render(report)
    for name in ("smith", "jones", "king said", "miller", "ward 7"):
        assert name in plain and name not in page
    assert "king" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert "image 1" in page and "user 3" in page and first in page
    for section in ("labels", "work", "agreement"):
        numbers = [
            [[c for c in row if re.fullmatch(r"[\d.]+", c)] for row in rows_of(p, section)]
            for p in (plain, page)
        ]
        assert numbers[0] == numbers[1] and any(numbers[0])
    assert file_checksum(clinic.studies / "labels" / "final" / "miller 1970.nii.gz") not in repr(hidden)
