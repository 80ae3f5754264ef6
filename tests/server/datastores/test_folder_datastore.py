"""The list of a folder's datastore is whole at any time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from segmed.data.datastore import LIST
from segmed.server.config.settings import ServerSettings
from segmed.server.datastores.folder_datastore import FolderDatastore
from segmed.server.http.errors import BadRequest
from segmed.server.tasks.train import MethodTrainTask


def _store(folder: Path, auto_reload: bool = False) -> FolderDatastore:
    return FolderDatastore(str(folder), extensions=["*.png"], auto_reload=auto_reload)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(3):
        (tmp_path / f"case {n}.png").write_bytes(b"a picture")
    return tmp_path


def _wait(until: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)
    return until()


def test_a_full_disk_leaves_the_list_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(folder)
    store.update_image_info("case 1", {"checked": "Frau Müller"})
    before = (folder / LIST).read_bytes()
    assert "Müller" in json.loads(before)["objects"]["case 1"]["image"]["info"]["checked"]

    def full(path: Path, *_: object, **__: object) -> int:
        with path.open("wb") as file:
            file.write(b"{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        store.update_image_info("case 1", {"checked": "nobody"})
    assert (folder / LIST).read_bytes() == before
    assert not list(folder.glob("*.part"))


def test_labels_of_each_annotator_are_kept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store, drawn = _store(folder), tmp_path_factory.mktemp("drawn") / "label.png"

    def save(content: str, user: str, tag: str = "final") -> None:
        drawn.write_text(content, encoding="utf-8")
        store.save_label("case 0", str(drawn), tag, {"client_id": user} if user else {})

    def kept() -> dict[str, tuple[str, str]]:
        entry = store.json()["objects"]["case 0"]["labels"]
        read = {tag: Path(store.get_label_uri("case 0", tag)).read_text(encoding="utf-8") for tag in entry}
        return {tag: (read[tag], label["info"].get("client_id", "")) for tag, label in entry.items()}

    save("proposal", "", "original")
    save("a1", "ann")
    save("a2", "ann")  # corrects herself
    assert kept() == {"original": ("proposal", ""), "final": ("a2", "ann")}
    save("b1", "Frau Müller")
    save("a3", "ann")
    save("c1", "cem")
    save("b2", "Frau Müller")
    assert kept() == {
        "original": ("proposal", ""),
        "final": ("b2", "Frau Müller"),
        "version_1": ("a3", "ann"),
        "version_2": ("b1", "Frau Müller"),
        "version_3": ("c1", "cem"),
    }
    save("x", "")
    assert kept()["final"] == ("x", "") and kept()["version_2"] == ("b2", "Frau Müller")


def test_training_is_told_patients_by_names(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("p1_a", "p1_b", "p2_a", "alone"):
        Image.fromarray(np.eye(8, dtype=np.uint8) * 200).save(studies / f"{name}.png")
    store, label = _store(studies), tmp_path / "label.png"
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(label)
    for name in store.list_images():
        store.save_label(name, str(label), "final", {"label_info": [{"name": "liver", "idx": 1}]})

    def patients(**conf: str) -> dict[str, str]:
        engine = SimpleNamespace(settings=ServerSettings.from_conf({"models": "classical", **conf}))
        return MethodTrainTask._data(SimpleNamespace(engine=engine), store).images  # type: ignore[arg-type]

    assert patients(patient="^([^_]+)_") == {"alone": "alone", "p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    assert patients() == {name: name for name in ("alone", "p1_a", "p1_b", "p2_a")}


def test_what_another_process_writes_is_read(folder: Path) -> None:
    store, other = _store(folder, auto_reload=True), _store(folder)
    other.update_image_info("case 2", {"checked": "yes"})
    assert _wait(lambda: store.get_image_info("case 2").get("checked") == "yes")
    store.update_image_info("case 0", {"checked": "too"})
    assert set(store.list_images()) == {"case 0", "case 1", "case 2"}
    assert _store(folder).get_image_info("case 0")["checked"] == "too"


def test_an_image_is_not_replaced_and_gets_no_labels_of_another(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, sent = _store(folder), tmp_path_factory.mktemp("sent") / "image.png"
    sent.write_bytes(b"another picture")
    for name in ("case 1", "case 1"):
        with pytest.raises(
            BadRequest, match="image 'case 1' in the studies already, and it is not replaced"
        ) as taken:
            store.add_image(name, str(sent), {})
        assert taken.value.status == 409
    assert (folder / "case 1.png").read_bytes() == b"a picture"
    assert store.free_name("case 1") == "case 1_2" and store.free_name("new") == "new"
    assert store.add_image("case 1_2", str(sent), {}) == "case 1_2"
    assert store.free_name("case 1") == "case 1_3"
    # nor another extension of that name, whether it is listed or not
    (folder / "other.NII.GZ").write_bytes(b"x")
    with pytest.raises(BadRequest, match="already"):
        store.add_image("other", str(sent), {})
    # labels whose image somebody has deleted by hand
    store.save_label("case 2", str(sent), "final", {"client_id": "alice"})
    (folder / "case 2.png").unlink()
    store.refresh()
    assert "case 2" not in store.list_images()
    with pytest.raises(BadRequest, match=r"labels of an earlier image 'case 2'.*new_name=true"):
        store.add_image("case 2", str(sent), {})
    assert store.free_name("case 2") == "case 2_2"
    store.save_label("case 0", str(sent), "final", {})
    store.remove_image("case 0")
    assert store.add_image("case 0", str(sent), {}) == "case 0"
    assert store.get_labels_by_image_id("case 0") == {}


def test_of_two_uploads_of_one_name_one_is_taken(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, sent = _store(folder), tmp_path_factory.mktemp("sent")
    answers: list[str] = []

    def add(n: int) -> None:
        (sent / f"{n}.png").write_bytes(bytes([n]) * 100)
        try:
            answers.append(store.add_image("Volume", str(sent / f"{n}.png"), {}))
        except BadRequest as error:
            answers.append(str(error.status))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["409"] * 7 + ["Volume"]
    assert len(set((folder / "Volume.png").read_bytes())) == 1


def test_upper_case_is_listed_and_what_is_left_out_is_told(folder: Path) -> None:
    for name in ("UPPER.PNG", "._case 1.png", "two..dots.png", "case 1.jpg"):
        (folder / name).write_bytes(b"x")
    store = FolderDatastore(str(folder), extensions=["*.png", "*.jpg"])
    assert sorted(store.list_images()) == ["UPPER", "case 0", "case 1", "case 2"]
    assert Path(store.get_image_uri("UPPER")).name == "UPPER.PNG"
    assert Path(store.get_image_uri("case 1")).name == "case 1.png"
    state = store.state()
    assert (state["kind"], state["state"]) == ("folder", "ok")
    assert {one["name"] for one in state["left_out"]} == {"._case 1.png", "two..dots.png", "case 1.jpg"}
    assert state["message"].startswith("3 files are left out: ") and "no two dots" in state["message"]
    assert store.status()["left_out"] == state["left_out"] and store.status()["total"] == 4
    for name in ("._case 1.png", "two..dots.png", "case 1.jpg"):
        (folder / name).unlink()
    assert store.state() == {"kind": "folder", "state": "ok", "message": ""}
    assert "message" not in store.status()


def test_what_an_older_list_offers_wrongly_goes(folder: Path) -> None:
    (folder / "._case 1.png").write_bytes(b"x")
    store = _store(folder)
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    listed["objects"]["._case 1"] = listed["objects"]["case 1"]
    (folder / LIST).write_text(json.dumps(listed), encoding="utf-8")
    assert (
        sorted(_store(folder).list_images()) == sorted(store.list_images()) == ["case 0", "case 1", "case 2"]
    )
