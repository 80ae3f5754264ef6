"""Labels and images through kills, full disks and damaged lists: the old one or the new one, whole, and in
the list."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmed.cli import app
from segmed.data.datastore import LIST
from segmed.imaging.durable import appear_whole, sweep
from segmed.server.datastores.folder_datastore import FolderDatastore
from segmed.server.datastores.label_files import LabelFiles
from segmed.server.datastores.label_history import KEPT, LabelHistory, bring_back
from segmed.server.http.errors import BadRequest
from typer.testing import CliRunner

INFO = {"client_id": "anna", "segments": [{"name": "liver", "value": 1, "color": [255, 0, 0]}]}
_POINTS = ("replace", "rename", "fsync", "unlink", "link")


def _picture(path: Path, seed: int, side: int = 24) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 3, (side, side), np.uint8)).save(path)
    return path


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    _picture(folder / "case.png", 0)
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> list[Path]:
    return [_picture(tmp_path / f"drawn{n}.png", n) for n in range(1, 4)]


def _open(studies: Path) -> FolderDatastore:
    return FolderDatastore.of_folder(studies, auto_reload=False)


def _label(studies: Path) -> bytes:
    return (studies / "labels" / "final" / "case.png").read_bytes()


def _child(work: Callable[[], None]) -> int | None:
    """How a forked process ended that did the work."""

    def run() -> None:
        work()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode


def _killed(work: Callable[[], None], after: int) -> Callable[[], None]:
    """The work, and SIGKILL at the so-manieth change of the disk, before or after it (even and odd
    numbers)."""

    def run() -> None:
        left = after

        def deadly(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*arguments: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                done = real(*arguments, **options)
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

            return call

        for name in _POINTS:
            setattr(os, name, deadly(name))
        work()

    return run


def test_a_kill_at_any_point_of_a_save_leaves_one_whole_label(studies: Path, drawn: list[Path]) -> None:
    old, new = (path.read_bytes() for path in drawn[:2])
    seen = set()
    for point in range(60):
        _open(studies).save_label("case", str(drawn[0]), "final", dict(INFO))
        ended = _child(
            _killed(lambda: _open(studies).save_label("case", str(drawn[1]), "final", dict(INFO)), point)
        )
        store = _open(studies)
        assert store.list_images() == ["case"]
        assert store.get_labeled_images() == ["case"]
        assert _label(studies) in (old, new)
        seen.add((ended == 0, _label(studies) == new))
        if ended == 0:
            break
    assert seen == {(False, False), (False, True), (True, True)}


def test_a_kill_at_any_point_of_a_removal_loses_nothing(studies: Path, drawn: list[Path]) -> None:
    for point in range(40):
        _open(studies).save_label("case", str(drawn[0]), "final", dict(INFO))
        ended = _child(_killed(lambda: _open(studies).remove_label("case", "final"), point))
        store = _open(studies)
        if store.get_labeled_images():
            assert _label(studies) == drawn[0].read_bytes()
        else:
            assert store.history.versions("case", "final")[0].file.read_bytes() == drawn[0].read_bytes()
        if ended == 0:
            break
    assert ended == 0
    assert not _open(studies).get_labeled_images()


def test_a_kill_at_any_point_of_an_upload_leaves_a_whole_image_or_none(
    studies: Path, drawn: list[Path]
) -> None:
    for point in range(40):
        (studies / "other.png").unlink(missing_ok=True)
        ended = _child(_killed(lambda: _open(studies).add_image("other", str(drawn[1]), {}), point))
        listed = _open(studies).list_images()
        assert listed in (["case"], ["case", "other"], ["other", "case"])
        assert ("other" in listed) == (studies / "other.png").is_file()
        if "other" in listed:
            assert (studies / "other.png").read_bytes() == drawn[1].read_bytes()
        if ended == 0:
            break
    assert ended == 0
    assert "other" in listed


def test_a_full_disk_leaves_the_old_label(studies: Path, tmp_path: Path) -> None:
    small, large = _picture(tmp_path / "small.png", 1), _picture(tmp_path / "large.png", 2, 600)
    _open(studies).save_label("case", str(small), "final", dict(INFO))
    noted = (studies / LIST).read_bytes()

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (large.stat().st_size // 2,) * 2)
        try:
            _open(studies).save_label("case", str(large), "final", dict(INFO))
        except OSError:
            os._exit(7)

    assert _child(fill) == 7
    assert _label(studies) == small.read_bytes()
    assert (studies / LIST).read_bytes() == noted
    assert not list(studies.rglob(".part-*"))


def test_former_labels_are_kept_and_come_back(studies: Path, drawn: list[Path]) -> None:
    store = _open(studies)
    for n in range(KEPT + 4):
        store.save_label("case", str(drawn[n % 3]), "final", dict(INFO))
    kept = store.history.versions("case", "final")
    assert len(kept) == KEPT
    assert [one.version for one in kept] == sorted((one.version for one in kept), reverse=True)
    assert kept[0].to_json()["labels"] == ["liver"]
    assert kept[0].to_json()["by"] == "anna"
    now, wanted = _label(studies), kept[1].file.read_bytes()
    assert wanted != now
    bring_back(store, "case", "final", kept[1].version)
    assert _label(studies) == wanted
    assert store.history.versions("case", "final")[0].file.read_bytes() == now
    assert store.get_label_info("case", "final")["segments"] == INFO["segments"]
    with pytest.raises(BadRequest, match="no former version"):
        bring_back(store, "case", "final", "../../../etc/passwd")


def test_the_command_lists_and_restores(studies: Path, drawn: list[Path]) -> None:
    runner = CliRunner()
    nothing = runner.invoke(app, ["labels", "history", "case", "--studies", str(studies)])
    assert nothing.exit_code == 2
    assert "No former label" in nothing.output
    store = _open(studies)
    for path in drawn[:2]:
        store.save_label("case", str(path), "final", dict(INFO))
    version = store.history.versions("case", "final")[0].version
    listed = runner.invoke(
        app, ["labels", "history", "case", "--studies", str(studies)], env={"COLUMNS": "200"}
    )
    assert listed.exit_code == 0
    assert version in listed.output
    done = runner.invoke(app, ["labels", "restore", "case", version, "--studies", str(studies)])
    assert done.exit_code == 0, done.output
    assert _label(studies) == drawn[0].read_bytes()
    wrong = runner.invoke(
        app, ["labels", "restore", "case", "19990101T000000-000000", "--studies", str(studies)]
    )
    assert wrong.exit_code == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b'{"objects": 3}', b'{"name": "\\ud800"}', b"[" * 400]
)
def test_a_damaged_list_is_made_anew_from_the_files(studies: Path, drawn: list[Path], damage: bytes) -> None:
    _open(studies).save_label("case", str(drawn[0]), "final", dict(INFO))
    (studies / LIST).write_bytes(damage)
    store = _open(studies)
    assert store.list_images() == ["case"]
    assert store.get_labeled_images() == ["case"]
    assert json.loads((studies / LIST).read_text())["objects"]["case"]["labels"]["final"]["ext"] == ".png"
    assert [path.read_bytes() for path in studies.glob("*.damaged-*.json")] == [damage]
    assert _open(studies).get_labeled_images() == ["case"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"objects": 3}', b"[]"])
def test_so_is_the_list_beside_dicom(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "drawn.nii.gz"
    file.write_bytes(b"a label map")
    labels = LabelFiles(tmp_path / "root")
    labels.put("1.2.3", "final", file, dict(INFO))
    (tmp_path / "root" / LIST).write_bytes(damage)
    again = LabelFiles(tmp_path / "root")
    assert again.labelled("final") == ["1.2.3"]
    assert again.place("1.2.3", "final").read_bytes() == b"a label map"
    labels.put("1.2.3", "final", file, dict(INFO))
    assert len(labels.history.versions("1.2.3", "final")) == 1


def test_half_written_files_vanish(tmp_path: Path) -> None:
    def stop() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError), appear_whole(tmp_path / "a.nii.gz") as part:
        part.write_bytes(b"half")
        stop()
    assert not list(tmp_path.iterdir())
    left = tmp_path / ".part-0123.nii.gz"
    left.write_bytes(b"half")
    sweep(tmp_path)
    assert left.exists()  # somebody may be at it
    os.utime(left, (0, 0))
    sweep(tmp_path)
    assert not left.exists()


def test_two_servers_of_one_folder_keep_what_the_other_wrote(studies: Path, drawn: list[Path]) -> None:
    _picture(studies / "other.png", 9)
    first, second = _open(studies), _open(studies)
    first.save_label("case", str(drawn[0]), "final", dict(INFO))
    second.save_label("other", str(drawn[1]), "final", dict(INFO))
    first.update_image_info("case", {"checked": "yes"})
    second.update_label_info("case", "final", {"seen": 1})
    first.add_image("third", str(drawn[2]), {})
    second.update_image_info("third", {"checked": "no"})
    noted = json.loads((studies / LIST).read_text())["objects"]
    assert sorted(noted) == ["case", "other", "third"]
    assert noted["case"]["labels"]["final"]["info"]["client_id"] == "anna"
    assert noted["case"]["labels"]["final"]["info"]["seen"] == 1
    assert noted["case"]["image"]["info"]["checked"] == "yes"
    assert noted["other"]["labels"]["final"]["ext"] == ".png"
    assert noted["third"]["image"]["info"]["checked"] == "no"


def test_a_studies_folder_that_is_gone_is_not_made_anew(studies: Path, drawn: list[Path]) -> None:
    store = _open(studies)
    studies.rename(studies.with_name("elsewhere"))
    for change in (
        lambda: store.save_label("case", str(drawn[0]), "final", dict(INFO)),
        lambda: store.add_image("new", str(drawn[0]), {}),
        lambda: store.remove_label("case", "final"),
        lambda: store.update_image_info("case", {}),
    ):
        with pytest.raises(BadRequest, match="not there any more") as caught:
            change()
        assert caught.value.status == 503
    assert not studies.exists()
    studies.with_name("elsewhere").rename(studies)
    store.save_label("case", str(drawn[0]), "final", dict(INFO))
    assert _label(studies) == drawn[0].read_bytes()


def test_versions_stay_in_order_when_the_clock_is_set_back(tmp_path: Path) -> None:
    history, file = LabelHistory(tmp_path, kept=2), tmp_path / "label.nii.gz"
    home = history.folder / "final" / "case"
    home.mkdir(parents=True)
    for n in range(2):
        (home / f"20990101T00000{n}-000000.nii.gz").write_bytes(b"before")
    file.write_bytes(b"after")
    history.keep("case", "final", file, {})
    kept = [one.file.read_bytes() for one in history.versions("case", "final")]
    assert kept == [b"after", b"before"]
