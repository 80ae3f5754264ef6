"""Labels of a workspace as a whole: names, colours, joining, deleting, and several objects at once."""

from __future__ import annotations

import numpy as np
import pytest
from segmed.imaging.labels.segments import Segments, StoredSegment
from segmed.server.workspace.edits.labels import (
    add_objects,
    delete_label,
    keep_locked,
    merge_label,
    recolour_label,
    rename_label,
)
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.storage import label_info
from segmed.server.workspace.workspace import Workspace

SHAPE = (12, 10, 4)
ORANGE = (230, 159, 0)


def _square(first: int, last: int) -> np.ndarray:
    out = np.zeros((10, 12), bool)
    out[first:last, first:last] = True
    return out


@pytest.fixture
def work() -> Workspace:
    """Liver and spleen on slice 1, the liver also on slice 2; they come from a file."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:4, 1:4, 1:3], array[6:8, 6:8, 1] = 3, 5
    segments = (StoredSegment("liver", 3, 0, 3, {"ID": "a"}), StoredSegment("spleen", 5, 0, 5))
    one = Workspace(SHAPE, ["kidney"])
    one.open(Segments((array,), segments), as_segmentation=True)
    return one


def _names(work: Workspace) -> dict[str, int]:
    """What is written: number of voxels by name."""
    found = work.segments()
    return {s.name: int(found.mask(s).sum()) for s in found.segments}


def test_a_renamed_label_keeps_voxels_value_and_facts_of_its_file(work: Workspace) -> None:
    before = work.volume()
    assert rename_label(work, "liver", " Leber 🫀 ") == []
    assert work.labels == {"kidney": 1, "Leber 🫀": 3, "spleen": 5} and work.unsaved
    assert (work.volume() == before).all()
    (written,) = [s for s in work.segments().segments if s.name == "Leber 🫀"]
    assert (written.value, written.fields["ID"]) == (3, "a")
    work.undo()
    assert work.labels == {"kidney": 1, "liver": 3, "spleen": 5} and "liver" in _names(work)
    work.redo()
    assert "Leber 🫀" in _names(work)
    for name, new, words in (
        ("spleen", "kidney", "already"),
        ("heart", "x", "no label heart"),
        ("spleen", " ", "1 to 64"),
        ("spleen", "a\tb", "printable letters only, this one holds a tab"),
        ("spleen", "a\u200bb", r"holds the character U\+200B ZERO WIDTH SPACE"),
    ):
        with pytest.raises(ValueError, match=words):
            rename_label(work, name, new)


def test_a_renamed_label_keeps_how_it_was_made(work: Workspace) -> None:
    work.records = {"liver": {"Model": "a"}, "Leber": {"Model": "of a label that was deleted"}}
    rename_label(work, "liver", "Leber")
    assert work.records == {"Leber": {"Model": "a"}}
    work.records |= {"spleen": {"Model": "b"}}
    work.undo()
    assert work.records == {"liver": {"Model": "a"}, "spleen": {"Model": "b"}}
    work.redo()
    rename_label(work, "spleen", "Milz")
    info = label_info(work, work.segments(), ["Leber", "Milz"])
    assert info["provenance"] == {"Leber": {"Model": "a"}, "Milz": {"Model": "b"}}
    rename_label(work, "kidney", "liver")  # drawn by hand
    assert set(work.records) == {"Leber", "Milz"}


def test_merged_and_deleted_labels_come_back_with_their_names(work: Workspace) -> None:
    before = work.volume()
    patches = merge_label(work, "spleen", "liver")
    assert [p.k for p in patches] == [1] and "spleen" not in work.labels
    assert _names(work) == {"liver": 18 + 4}
    assert {p.k for p in delete_label(work, "liver")} == {1, 2}
    assert work.labels == {"kidney": 1} and not work.volume().any() and _names(work) == {}
    assert work.value_of("new") == 2  # values are free again
    work.undo()
    work.undo()
    assert (work.volume() == before).all()
    assert work.labels["spleen"] == 5 and _names(work) == {"liver": 18, "spleen": 4}
    with pytest.raises(ValueError, match="itself"):
        merge_label(work, "liver", "liver")


def test_colours_are_stored_with_the_label_and_told(work: Workspace) -> None:
    recolour_label(work, "spleen", ORANGE)
    assert work.naming.to_json()["colours"] == {"spleen": "#e69f00"}
    assert {s.name: s.colour for s in work.segments().segments}["spleen"] == ORANGE
    work.undo()
    assert work.naming.to_json()["colours"] == {}


def test_names_and_colours_outlive_a_restart(work: Workspace) -> None:
    rename_label(work, "liver", "away")
    rename_label(work, "spleen", "liver")  # exchanged
    rename_label(work, "away", "spleen")
    recolour_label(work, "liver", ORANGE)
    delete_label(work, "kidney")
    again = Workspace(SHAPE)
    again.open(
        Segments(
            (np.zeros(SHAPE, np.uint8),),
            (StoredSegment("liver", 3, 0, 3, {"ID": "a"}), StoredSegment("spleen", 5, 0, 5)),
        ),
        as_segmentation=True,
    )
    again.restore(work.facts(), work.packed())
    assert again.labels == {"spleen": 3, "liver": 5}
    assert _names(again) == _names(work) == {"spleen": 18, "liver": 4}
    by_name = {s.name: s for s in again.segments().segments}
    assert by_name["spleen"].fields["ID"] == "a" and by_name["liver"].colour == ORANGE


def test_a_deleted_label_leaves_nothing_beneath_others() -> None:
    lower, upper = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    lower[1:8, 1:8, 1], upper[2:5, 2:5, 1] = 1, 2
    found = Segments((lower, upper), (StoredSegment("organ", 1, 0, 1), StoredSegment("lesion", 2, 1, 2)))
    work = Workspace(SHAPE)
    work.open(found)
    assert _names(work) == {"organ": 49, "lesion": 9}
    rename_label(work, "organ", "Organ")
    assert _names(work) == {"Organ": 49, "lesion": 9}
    delete_label(work, "Organ")
    assert _names(work) == {"lesion": 9}


def test_objects_are_added_in_one_step_and_leave_other_labels(work: Workspace) -> None:
    before = work.volume()
    masks = {
        f"cell {n}": [patch]
        for n, (a, b) in enumerate(((0, 3), (5, 7)), 1)
        if (patch := Patch.cut(1, _square(a, b), _square(a, b)))
    }
    patches, voxels = add_objects(work, masks)
    assert len(patches) == 1 and voxels == {"cell 1": 9 - 4, "cell 2": 4 - 1}
    assert ((work.volume() == before) | (before == 0)).all()
    work.undo()
    assert (work.volume() == before).all() and "cell 1" not in work.labels
    _, voxels = add_objects(work, masks, overwrite=True, locked=["liver"])
    assert voxels == {"cell 1": 5, "cell 2": 4}
    assert ((work.volume() == 3) == (before == 3)).all()


def test_locked_labels_get_back_what_an_object_takes(work: Workspace) -> None:
    after = np.where(_square(0, 10), 1, work.slice(1)).astype(np.uint8)
    slices, values = keep_locked(work, ["spleen", "unknown"], {1: work.slice(1)}, {1: after})
    assert values == [5]
    assert ((slices[1] == 5) == (work.slice(1) == 5)).all() and (slices[1] == 1).sum() == 100 - 4
