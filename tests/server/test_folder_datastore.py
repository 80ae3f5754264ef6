"""The list of a folder's datastore is whole at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from segmed.data.datastore import LIST
from segmed.server.folder_datastore import FolderDatastore
from segmed.server.settings import ServerSettings
from segmed.server.train import MethodTrainTask


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
