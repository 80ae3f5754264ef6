"""Page and server mean the same state: revisions, restarts, what was saved, what is protected."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import requests
from page_client import Page, box_around, change_of
from running import Start
from segmed.data.phantom import Phantom

SQUARE = change_of(3, [5, 9], [6, 8], np.full((2, 4), 1))


def _served(start: Start, studies: Path, phantom: Phantom) -> Page:
    studies.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    server = start(studies, "--conf", "models", "classical", "--conf", "labels", "liver,spleen")
    return Page(server, "dr")


def _unsaved(page: Page) -> bool:
    listed = requests.get(f"{page.server.url}/api/images", params={"client": page.client}, timeout=30).json()
    return bool(next(one["unsaved"] for one in listed if one["id"] == page.image))


def test_one_truth(start: Start, phantom: Phantom, tmp_path: Path) -> None:
    """One server for all of it, as each start takes long."""
    studies = tmp_path / "studies"
    page = _served(start, studies, phantom)
    assert not _unsaved(page)

    # each answer tells the revision, which grows with each change
    began = page.told["revision"]
    other = Page(page.server, page.client)  # another tab
    assert other.believed() == page.believed()
    page.do("paint", label="liver", changes=[SQUARE], **page.believed())
    assert page.told["revision"] == began + 1
    assert page.told["unsaved"] and _unsaved(page)
    seen = requests.get(f"{page.url}/revision", params={"client": page.client}, timeout=30).json()
    assert seen == page.believed()

    # the other tab is told, and nothing is done for it
    for what in ("undo", "clear", "accept", "save", "paint", "prompt", "segment"):
        body = {"model": "classical", "label": "liver"} if what in ("prompt", "segment") else {}
        refused = other.post(what, **body, **other.believed())
        assert refused.status_code == 409, what
        assert "has changed" in refused.json()["detail"]
    assert (page.there() == page.labels).all() and page.labels.any()
    assert page.told["revision"] == began + 1
    assert page.post("undo", revision=began + 1, boot="another run").status_code == 409
    assert page.post("accept", client="dr").status_code == 200  # clients that believe nothing go on as before

    # accepted labels are protected
    truth = np.asarray(phantom.labels == 1)
    page.prompt("liver", box=box_around(truth))
    page.do("accept")
    liver = page.labels == 1
    told = page.prompt("spleen", box=box_around(truth))
    assert (page.labels[liver] == 1).all()
    assert told["replaced"] == {}
    assert "of liver, which stay" in " ".join(told["warnings"])
    told = page.prompt("spleen", overwrite=True)
    lost = int((page.labels[liver] == 2).sum())
    assert lost > 0 and told["replaced"] == {"liver": lost}
    assert f"has replaced {lost} voxels of liver" in " ".join(told["warnings"])
    told = page.prompt("spleen")  # not asked for any more: the liver is back
    assert (page.labels[liver] == 1).all()

    # killed amid the work
    before, labels = page.believed(), page.labels.copy()
    page.server.process.kill()
    page.server.process.wait(30)
    again = _served(start, studies, phantom)
    assert (again.labels == labels).all()
    assert again.told["revision"] == before["revision"] and again.told["boot"] != before["boot"]
    assert "brought back" in " ".join(again.told["warnings"])
    assert again.post("undo", **before).status_code == 409
    assert _unsaved(again)

    # saving tells what was saved
    saved = again.post("save", **again.believed()).json()
    counts = {name: int((again.labels == value).sum()) for name, value in again.told["labels"].items()}
    assert saved["voxels"] == {name: count for name, count in counts.items() if count}
    assert (saved["revision"], saved["boot"]) == (again.told["revision"], again.told["boot"])
    assert not _unsaved(again)
    assert list((studies / "labels").rglob("*.work")) + list((studies / ".segmed").rglob("*.work")) == []
