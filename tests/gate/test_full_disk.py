"""A disk that fills up at each place where something is written: the error says so, and the old bytes are
there."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
import torch
from full_disk import Disk, disk
from PIL import Image
from running import Start
from segmed.data.datastore import LIST
from segmed.evaluation.case_scores import CaseScore
from segmed.methods.base.trainable import save_trained
from segmed.registry.gate import GateConfig
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from segmed.server.access.audit import Audit, entries
from segmed.server.datastores.folder_datastore import FolderDatastore
from segmed.server.datastores.label_files import LabelFiles
from segmed.server.workspace.journal import Journal
from segmed.server.workspace.workspace import Workspace
from segmed.server.workspace.workspaces import Workspaces
from segmed.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["disk"]
FULL = (errno.ENOSPC, errno.EFBIG)
INFO = {"client_id": "anna", "segments": [{"name": "liver", "value": 1, "color": [255, 0, 0]}]}


def _noise(path: Path, seed: int, side: int) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 3, (side, side), np.uint8)).save(path)
    return path


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".filler"
    }


@pytest.fixture
def store(disk: Disk) -> FolderDatastore:
    studies = disk.folder / "studies"
    studies.mkdir()
    _noise(studies / "case.png", 0, 24)
    return FolderDatastore.of_folder(studies, auto_reload=False)


@pytest.mark.parametrize("left", [0, 8 * 2**10, 40 * 2**10])
def test_a_label_that_does_not_fit_changes_nothing(
    disk: Disk, store: FolderDatastore, tmp_path: Path, left: int
) -> None:
    small, large = _noise(tmp_path / "small.png", 1, 24), _noise(tmp_path / "large.png", 2, 800)
    store.save_label("case", str(small), "final", dict(INFO))
    before = {name: content for name, content in _files(disk.folder).items() if "history" not in name}
    with disk.full(left), pytest.raises(OSError) as caught:
        store.save_label("case", str(large), "final", dict(INFO))
    assert caught.value.errno in FULL
    after = {name: content for name, content in _files(disk.folder).items() if "history" not in name}
    assert after == before
    store.save_label("case", str(large), "final", dict(INFO))
    assert Path(store.get_label_uri("case", "final")).read_bytes() == large.read_bytes()


def test_nor_does_one_whose_entry_in_the_list_does_not_fit(
    disk: Disk, store: FolderDatastore, tmp_path: Path
) -> None:
    first, second = _noise(tmp_path / "a.png", 1, 24), _noise(tmp_path / "b.png", 2, 24)
    store.save_label("case", str(first), "final", dict(INFO))
    store.update_image_info("case", {"note": "x" * 300_000})
    label, noted = Path(store.get_label_uri("case", "final")), store.root / LIST
    before = label.read_bytes(), noted.read_bytes()
    with disk.full(100 * 2**10), pytest.raises(OSError) as caught:
        store.save_label("case", str(second), "final", dict(INFO))
    assert caught.value.errno in FULL
    assert (label.read_bytes(), noted.read_bytes()) == before
    assert not list(disk.folder.rglob(".part-*"))
    again = FolderDatastore.of_folder(store.root, auto_reload=False)
    assert again.get_label_info("case", "final")["client_id"] == "anna"


def test_labels_beside_dicom_are_as_safe(disk: Disk, tmp_path: Path) -> None:
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    first.write_bytes(b"the first label")
    second.write_bytes(b"the second one")
    labels = LabelFiles(disk.folder / "root")
    labels.put("1.2.3", "final", first, dict(INFO))
    labels.note_image("1.2.3", {"note": "x" * 300_000})
    before = {name: content for name, content in _files(disk.folder).items() if "history" not in name}
    with disk.full(100 * 2**10), pytest.raises(OSError) as caught:
        labels.put("1.2.3", "final", second, {**INFO, "client_id": "berta"})
    assert caught.value.errno in FULL
    after = {name: content for name, content in _files(disk.folder).items() if "history" not in name}
    assert after == before
    assert LabelFiles(labels.root).info("1.2.3", "final")["client_id"] == "anna"
    labels.put("1.2.3", "final", second, dict(INFO))
    assert labels.place("1.2.3", "final").read_bytes() == second.read_bytes()


def test_an_image_that_does_not_fit_is_not_listed(disk: Disk, store: FolderDatastore, tmp_path: Path) -> None:
    large = _noise(tmp_path / "large.png", 2, 800)
    before = _files(disk.folder)
    with disk.full(8 * 2**10), pytest.raises(OSError) as caught:
        store.add_image("other", str(large), {})
    assert caught.value.errno in FULL
    assert _files(disk.folder) == before
    assert store.list_images() == ["case"]
    assert store.add_image("other", str(large), {}) == "other"


def _work(seed: int) -> Workspace:
    work = Workspace((64, 64, 4), ["liver"])
    work.identity = "same"
    rng = np.random.default_rng(seed)
    work.change({k: rng.integers(0, 2, (64, 64)).astype(np.uint8) for k in range(4)})
    work.unsaved = True
    return work


def test_unsaved_work_that_does_not_fit_leaves_what_was_kept(disk: Disk) -> None:
    (disk.folder / "studies").mkdir()
    journal = Journal(disk.folder / "studies" / ".segmed" / "work")
    key = ("", "anna", "case")
    assert journal.write(key, _work(1))
    before = _files(disk.folder)
    with disk.full():
        assert not journal.write(key, _work(2))
    assert _files(disk.folder) == before
    assert not journal.holds(key)  # it is not what the user has now
    back = Workspace((64, 64, 4), ["liver"])
    back.identity = "same"
    assert Journal(journal.folder).read(key, back)
    assert np.array_equal(back.slice(2), _work(1).slice(2))
    assert journal.write(key, _work(2))
    assert journal.holds(key)


def test_the_user_is_told_while_work_cannot_be_kept(disk: Disk) -> None:
    (disk.folder / "studies").mkdir()
    spaces = Workspaces(journal=Journal(disk.folder / "studies" / ".segmed" / "work"))
    key = ("", "anna", "case")

    def change(seed: int) -> list[str]:
        with spaces.use(key, lambda: _work(0), lambda: "same") as (work, notes):
            rng = np.random.default_rng(seed)
            work.change({0: rng.integers(0, 2, (64, 64)).astype(np.uint8)})
            work.unsaved = True
        return notes

    assert change(1) == []
    with disk.full():
        change(2)
        assert any("disk" in note for note in change(3))
    change(4)
    assert change(5) == []


def test_the_audit_log_goes_on_after_a_full_disk(disk: Disk) -> None:
    log = disk.folder / "audit.jsonl"
    audit = Audit(log)
    audit.add(user="anna", action="first")
    refused = 0
    with disk.full(6_000):
        for number in range(60):
            try:
                audit.add(user="anna", action=f"number {number}", text="x" * 150)
            except OSError as error:
                assert error.errno in FULL
                refused += 1
    assert refused > 5
    audit.add(user="anna", action="last")
    found = [entry["action"] for entry in entries(log)]
    assert (found[0], found[-1]) == ("first", "last")
    Audit(log).add(user="anna", action="after a restart")
    assert sum(1 for _ in entries(log)) == len(found) + 1


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(disk: Disk) -> None:
    path, facts = disk.folder / "last.pt", {"method": "lora"}
    save_checkpoint(path, facts, {"step": 1, "weights": torch.zeros(2_000)})
    before = path.read_bytes()
    with disk.full(16 * 2**10), pytest.raises(OSError, match="previous one is unchanged"):
        save_checkpoint(path, facts, {"step": 2, "weights": torch.rand(400_000)})
    assert path.read_bytes() == before
    assert not list(disk.folder.glob(".part-*"))
    state = load_checkpoint(path, facts)
    assert state is not None and state["step"] == 1


def test_a_version_that_does_not_fit_is_not_served(disk: Disk) -> None:
    registry = Registry(disk.folder / "registry")

    def write(size: int) -> Any:
        one: Any = SimpleNamespace(
            name="lora",
            image_size=64,
            config=GateConfig(),  # any dataclass
            state_dict=lambda: {"w": torch.rand(size)},
            trained_names=lambda: ["w"],
            extra_buffers=lambda: [],
        )
        return lambda folder: save_trained(one, folder, "abc")

    data = DataFingerprint(("a", "b"), {"a": "1" * 64}, {"train": ("a",), "validation": ("b",)})
    record = VersionRecord((CaseScore("b", "liver", 0.5, 1.0),), data)
    first = registry.add("lora", write(1_000), record)
    registry.promote("lora", first.version)
    before = _files(disk.folder)
    with disk.full(16 * 2**10), pytest.raises(OSError) as caught:
        registry.add("lora", write(400_000), record)
    assert caught.value.errno in FULL
    assert _files(disk.folder) == before
    second = registry.add("lora", write(1_000), record)
    with disk.full(), pytest.raises(OSError):
        registry.promote("lora", second.version)
    served = registry.served("lora")
    assert served is not None and served.version == first.version
    assert [v.damage for v in registry.versions("lora")] == ["", ""]
    registry.promote("lora", second.version)
    assert Registry(registry.folder).served("lora").version == second.version  # type: ignore[union-attr]


@pytest.mark.parametrize("where", ["studies", "temporary"])
def test_a_server_answers_507(start: Start, disk: Disk, tmp_path: Path, where: str) -> None:
    if not disk.mounted:
        pytest.skip("a disk of its own can be mounted by root only")
    studies, temporary = tmp_path / "studies", tmp_path / "temporary"
    for name, place in (("studies", studies), ("temporary", temporary)):
        (disk.folder / name).mkdir() if name == where else place.mkdir()
    studies, temporary = (
        disk.folder / n if n == where else p for n, p in (("studies", studies), ("temporary", temporary))
    )
    _noise(studies / "case.png", 0, 24)
    server = start(studies, "--conf", "models", "classical", "--conf", "scoring", "off", temporary=temporary)
    small, large = _noise(tmp_path / "small.png", 1, 24), _noise(tmp_path / "large.png", 2, 2400)
    body = {"client": "a", "model": "classical", "label": "x", "box": [2, 9, 2, 9, 0, 0]}

    def label(file: Path) -> requests.Response:
        url = f"{server.url}/datastore/label?image=case"
        return requests.put(
            url, files={"label": ("l.png", file.read_bytes())}, data={"params": "{}"}, timeout=30
        )

    def upload(name: str) -> requests.Response:
        files = {"file": ("i.png", large.read_bytes())}
        return requests.put(f"{server.url}/datastore/image?image={name}", files=files, timeout=30)

    def post(what: str, sent: Any) -> requests.Response:
        return requests.post(f"{server.url}/api/images/case/{what}", json=sent, timeout=30)

    assert label(small).status_code == 200
    assert post("prompt", body).status_code == 200
    kept = _files(studies / "labels")
    noted = json.loads((studies / LIST).read_bytes())
    with disk.full():
        refused = {"upload": upload("other"), "save": post("save", {"client": "a"})}
        if where == "studies":
            refused["label"] = label(small)
        for name, answer in refused.items():
            assert answer.status_code == 507, (name, answer.status_code, answer.text)
            assert "disk is full" in answer.json()["detail"]
        for path in ("/info/", "/api/state", "/api/images", "/datastore/?output=all"):
            assert requests.get(f"{server.url}{path}", timeout=30).status_code == 200, path
        if where == "studies":
            told = [
                post("prompt", {**body, "label": name, "box": [10, 20, 10, 20, 0, 0]}) for name in ("y", "z")
            ]
            assert [answer.status_code for answer in told] == [200, 200]
            assert any("disk" in note for note in told[1].json()["warnings"])
        chosen = requests.post(f"{server.url}/activelearning/random", json={}, timeout=30)
        assert chosen.status_code in (200, 507), chosen.text
        assert _files(studies / "labels") == kept
        assert json.loads((studies / LIST).read_bytes()) == noted
    assert post("save", {"client": "a"}).status_code == 200
    assert upload("other").status_code == 200
    assert label(small).status_code == 200
