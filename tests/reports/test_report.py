"""The report says what the state, the datastore and the registry hold, whatever is in them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segmed.active.drift import DriftConfig
from segmed.active.retraining import Retraining
from segmed.active.review.submission import LabelMap, read_submission
from segmed.active.store.clock import Reading
from segmed.active.store.database import Database
from segmed.active.store.drift_history import EMBEDDING, drift_history
from segmed.active.store.labels import LabelLog
from segmed.active.store.state import ActiveState
from segmed.active.store.study_files import StudyFiles
from segmed.data.checksums import file_checksum
from segmed.data.phantom import make_phantom
from segmed.evaluation.case_scores import CaseScore
from segmed.evaluation.metrics import Overlap
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from segmed.reports.anonymous import anonymised
from segmed.reports.cases import agreements
from segmed.reports.html import render
from segmed.reports.numbers import labels_per_day, labels_per_user, running_median, work_per
from segmed.reports.report import Report, collect

DAY = 86400.0
NOON = time.mktime((2026, 3, 2, 12, 0, 0, 0, 0, -1))
EVIL = '<script>alert("x")</script>'
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


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> Reading:
        return Reading("one", self.now, self.now)


class Clinic:
    """Studies of phantoms with a state and a registry."""

    def __init__(self, root: Path) -> None:
        self.studies, self.clock = root / "ward 7", Clock()
        self.studies.mkdir()
        self.database = Database(self.studies / ".segmed", self.clock)
        self.state, self.log = ActiveState(self.database), LabelLog(self.database)
        self.registry = Registry(root / "models")
        self.objects: dict[str, dict[str, dict[str, object]]] = {}

    def image(self, image: str, seed: int = 0) -> np.ndarray:
        """Add an image; its true labels."""
        phantom = make_phantom("CT", shape=(40, 32, 6), spacing=(8.0, 8.0, 20.0), seed=seed)
        nib.save(nib.Nifti1Image(phantom.image, phantom.affine), self.studies / f"{image}.nii.gz")
        self.objects[image] = {"image": {"ext": ".nii.gz", "info": {}}, "labels": {}}
        self._write()
        return phantom.labels

    def save(self, image: str, tag: str, labels: np.ndarray, user: str, names: tuple[str, ...]) -> Path:
        file = self.studies / "labels" / tag / f"{image}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(labels, nib.load(self.studies / f"{image}.nii.gz").affine), file)  # type: ignore[attr-defined]
        info = {"label_info": [{"name": name} for name in names], "client_id": user}
        self.objects[image]["labels"][tag] = {"ext": ".nii.gz", "info": info}
        self._write()
        return file

    def label(
        self, image: str, user: str, prompts: int = 0, gap: float = 10.0, dice: float | None = None
    ) -> int:
        """Work on an image and submit a label without a file."""
        self.log.work(image, user)
        for _ in range(prompts):
            self.clock.now += gap
            self.log.work(image, user, 1, "segmed")
        agreement = None if dice is None else {"liver": dice}
        record = self.log.record(image, user, f"{image}{user}{self.clock.now}", {"liver": 10}, agreement)
        assert record is not None
        return record.id

    def version(self, value: float, dice: float, against: str | None, served: float) -> str:
        def scores(mean: float) -> tuple[CaseScore, ...]:
            return tuple(CaseScore(f"case{n}", "liver", mean, 2.5) for n in range(4))

        record = VersionRecord(scores(dice), DataFingerprint(("a", "b"), {}, {"train": ("a", "b")}))
        return self.registry.decide("lora", _writer(value), record, against, scores(served)).version

    def report(self) -> Report:
        return collect(self.database, StudyFiles.read(self.studies), self.registry, name=self.studies.name)

    def _write(self) -> None:
        facts = {"images_dir": ".", "labels_dir": "labels", "objects": self.objects}
        (self.studies / "datastore_v2.json").write_text(json.dumps(facts), encoding="utf-8")


def _writer(value: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file({"a": torch.full((4,), value)}, folder / "weights.safetensors")
        facts = {"method": "lora", "backbone": "abc", "image_size": 96, "config": {}}
        (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")

    return write


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def _rows(page: str, section: str) -> list[list[str]]:
    """Cells of all tables of a section, without tags."""
    part = page.split(f'<section id="{section}">')[1].split("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part, re.S)
    return [
        [" ".join(re.sub("<[^>]*>", " ", c).split()) for c in re.findall(r"<td.*?>(.*?)</td>", r, re.S)]
        for r in rows
    ]


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
    rows = _rows(page, "labels")
    assert ["ann", "3", "3", "3", "0", "0", "0", "0.700", "2026-03-02", "2026-03-03"] in rows
    assert ["bob", "2", "2", "1", "0", "1", "0", "–", "2026-03-02", "2026-03-03"] in rows
    assert ["2026-03-02", "ann", "2"] in rows and ["2026-03-03", "(unknown)", "1"] in rows
    assert ["ann", "3", "4", "90", "15", "0.1"] in _rows(page, "work")
    assert ["segmed", "5", "2", "90", "17", "0.1"] in _rows(page, "work")
    assert "1 case is open" in page
    assert running_median([3, 1, 2, 9], 3) == [3, 2, 2, 2]


def test_versions_and_retrainings_are_those_of_the_registry(clinic: Clinic) -> None:
    first = clinic.version(1, 0.7, None, 0.5)
    second = clinic.version(2, 0.6, first, 0.7)
    third = clinic.registry.add("lora", _writer(3), VersionRecord((), DataFingerprint((), {}, {})))
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
    rows = {row[1]: row for row in _rows(page, "versions") if len(row) == 6 and row[1].startswith("lora 0")}
    assert rows[f"lora {first} served"][2:5] == ["2", "4", "0.700"]
    assert rows[f"lora {first} served"][5].startswith(
        "accepted Better than the untrained method. Mean Dice 0.700"
    )
    assert rows[f"lora {second}"][5].startswith("rejected Not served")
    assert rows[f"lora {third.version}"][5].startswith("damaged metrics.json")
    job_row = next(row for row in _rows(page, "versions") if "failed" in row)
    assert job_row[1:5] == ["lora", "failed", "10 min", "3 images were labelled."]
    assert "no room on the &lt;script&gt;" in job_row[5]
    assert any(row[1:4] == ["promote", "untrained", first] for row in _rows(page, "versions"))


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


NAMES = ("liver", "spleen", "kidney right", "kidney left", "aorta", "lesion")


def _submit(
    clinic: Clinic, image: str, user: str, final: np.ndarray, proposal: np.ndarray | None = None
) -> Path:
    file = clinic.save(image, "final", final, user, NAMES)
    first = None
    names = dict(enumerate(NAMES, 1))
    if proposal is not None:
        first = LabelMap(clinic.save(image, "original", proposal, "", NAMES), names)
    found = read_submission(LabelMap(file, names), first)
    clinic.log.record(image, user, found.checksum, found.sizes, found.agreement)
    return file


def test_agreement_is_the_dice_of_two_label_maps(clinic: Clinic) -> None:
    truth = clinic.image("a")
    moved = np.roll(truth, 2, 0)
    _submit(clinic, "a", "ann", truth)
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
    assert ["ann, bob", "1", f"{found[0].dice:.3f}", f"{found[0].lowest:.3f}"] in _rows(
        render(report), "agreement"
    )


def test_of_a_label_that_was_replaced_only_the_sizes_are_left(clinic: Clinic) -> None:
    truth = clinic.image("a")
    _submit(clinic, "a", "ann", truth)
    smaller = np.where(truth == 1, 1, 0).astype(np.uint8)
    smaller[20:] = 0
    _submit(clinic, "a", "bob", smaller)
    report = clinic.report()
    pair = report.pairs[0]
    assert (pair.users, pair.tags, pair.dice) == (("bob", "ann"), ("final", ""), None)
    liver = 2 * (smaller == 1).sum() / ((smaller == 1).sum() + (truth == 1).sum())
    there = [n for n in range(1, 7) if (truth == n).any()]
    assert pair.possible == pytest.approx(liver / len(there))
    page = render(report)
    assert "There are no two labels of one image to compare." in page
    assert ["a", "bob final", "ann replaced", f"{pair.possible:.3f}"] in _rows(page, "agreement")
    _submit(clinic, "a", "carl", smaller)  # the same as bob's
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
        _submit(clinic, image, "ann", truth, proposal)
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


def test_the_quarantine_is_listed_with_its_model_agreements(clinic: Clinic) -> None:
    clinic.state.observe({f"i{n}": "f" for n in range(8)}, [])
    for n in range(6):
        assert not clinic.log.examine(clinic.label(f"i{n}", "ann"), {"v1": 0.9})
    number = clinic.label("i6", "bob")
    assert clinic.log.examine(number, {"v1": 0.05})
    turned_down = clinic.label("i7", "bob")
    clinic.log.review(turned_down, False, "ann")
    rows = _rows(render(clinic.report()), "quarantine")
    held = next(row for row in rows if row and row[0] == str(number))
    assert held[1:3] == ["i6", "bob"] and held[4] == "held" and held[6] == "v1 0.050"
    assert "Dice v1 0.05, usually 0.90" in held[5]
    assert next(row for row in rows if row and row[0] == str(turned_down))[4] == "dropped by ann"
    assert [row for row in rows if row] and len(rows) == 3  # the head, and two labels


def test_drift_is_seen_where_it_begins() -> None:
    generator = np.random.default_rng(0)
    times = np.arange(120.0)
    values = np.where(times < 90, 0.2, 0.8) + 0.01 * generator.random(120)
    embeddings = generator.standard_normal((120, 4)) + 9 * (times >= 90)[:, None]
    order = generator.permutation(120)
    found = drift_history(times[order], 59, {"entropy": values[order], "jitter": values}, embeddings[order])
    assert [quantity.name for quantity in found] == [EMBEDDING, "entropy"]
    for quantity in found:
        assert sum(window.images for window in quantity.windows) == 120
        reference = [window for window in quantity.windows if window.drift is None]
        assert sum(window.images for window in reference) == 60
        late = [window for window in quantity.windows if window.drift]
        assert [bool(w.drift and w.drift.message) for w in late] == [w.begin >= 90 for w in late]
        assert quantity.overall.message
        assert all(a.end <= b.begin for a, b in zip(quantity.windows, quantity.windows[1:], strict=False))
    medians = [window.quartiles[1] for window in found[1].windows if window.quartiles]
    assert medians[0] == pytest.approx(0.205, abs=0.004) and medians[-1] == pytest.approx(0.805, abs=0.004)


def test_drift_of_few_images_or_of_one_moment_is_not_told() -> None:
    values = {"entropy": np.linspace(0, 1, 40)}
    assert drift_history(range(19), None, {"entropy": np.zeros(19)}, None) == ()
    assert drift_history(range(40), None, {"jitter": np.zeros(40)}, None) == ()
    together = drift_history([5.0] * 40, None, values, None)  # copied in at once, in whatever order
    assert len(together[0].windows) == 1
    assert math.isnan(together[0].overall.size)
    first = drift_history(range(40), None, values, None, DriftConfig(fewest=10))[0]
    assert [window.drift is None for window in first.windows] == [True, False, False, False]


def test_drift_of_the_state_is_shown(clinic: Clinic) -> None:
    images = [f"i{n}" for n in range(60)]
    for n in range(0, 60, 5):
        clinic.clock.now = NOON + n * DAY
        clinic.state.observe(dict.fromkeys(images[: n + 5], "f"), [])
    for n, image in enumerate(images):
        clinic.state.save_scores(
            image, "v1", "f", {"predicted_iou": 0.1 + 0.5 * (n >= 30)}, np.full(3, n / 60)
        )
    page = render(clinic.report())
    rows = _rows(page, "drift")
    assert len(rows) and "alarm" in page.split('<section id="drift">')[1]
    assert any(row[2:4] == ["10", "0.600"] and row[6] == "alarm" for row in rows if row)
    assert any(row[2:4] == ["10", "0.100"] and row[6] == "reference" for row in rows if row)


def test_anonymous_reports_have_no_names(clinic: Clinic) -> None:
    truth = clinic.image("miller 1970")
    _submit(clinic, "miller 1970", "dr. smith", truth, np.roll(truth, 1, 0))
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
            [[c for c in row if re.fullmatch(r"[\d.]+", c)] for row in _rows(p, section)]
            for p in (plain, page)
        ]
        assert numbers[0] == numbers[1] and any(numbers[0])
    assert file_checksum(clinic.studies / "labels" / "final" / "miller 1970.nii.gz") not in repr(hidden)
