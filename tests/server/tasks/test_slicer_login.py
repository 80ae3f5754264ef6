"""MONAI Label's modules of 3D Slicer sign in to a server with a login, and only reviewers approve labels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from guarded_server import PASSWORD, Guarded, guarded
from slicer_module import PLUGINS, Module, needs_plugins
from slicer_stub import Stub

__all__ = ["guarded"]
pytestmark = needs_plugins


def test_a_login(stub: Stub, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialog asks once; then each request carries the token."""
    module = Module(stub, guarded.server.url)
    asked: list[int] = []

    def dialog(**_: Any) -> Any:
        asked.append(1)
        texts = {"username": SimpleNamespace(text="annotator"), "password": SimpleNamespace(text=PASSWORD)}
        return SimpleNamespace(exec=lambda: None, ui=SimpleNamespace(**texts))

    monkeypatch.setattr(module.source, "LoginDialog", dialog)
    module.connect()
    assert asked == [1] and module.ui.deepgrowModelSelector.items


def test_the_reviewers_module(guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MONAI Label Reviewer notes its verdict with the label; with a login, reviewers may, and others not.

    The module knows no login, so that the header is put into its requests here, as a reverse proxy does.
    """
    rest = _rest()
    image = nib.load(guarded.server.studies / "ct.nii.gz")
    mask = (np.asarray(image.dataobj) > 300).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "l.nii.gz")
    label = {"label": ("l.nii.gz", (tmp_path / "l.nii.gz").read_bytes())}
    assert guarded.ask("annotator", "PUT", "/datastore/label?image=ct", files=label).status_code == 200
    server = rest.MonaiServerREST(guarded.server.url)
    verdict = {"segmentationMeta": {"status": "approved", "level": "easy", "approvedBy": "Dr Lee"}}
    answers = {}
    for role in ("reader", "annotator", "reviewer"):
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {guarded.tokens[role]}"
        for verb in ("get", "put"):
            monkeypatch.setattr(rest.requests, verb, getattr(session, verb))
        answers[role] = server.updateLabelInfo("ct", "final", verdict)
    assert answers == {"reader": 403, "annotator": 403, "reviewer": 200}
    noted = server.requestDataStoreInfo()["objects"]["ct"]["labels"]["final"]["info"]
    assert noted["segmentationMeta"]["status"] == "approved" and noted["segments"]
    assert server.requestSegmentation("ct", "final").status_code == 200


def _rest() -> Any:
    """The requests of MONAI Label Reviewer."""
    path = PLUGINS / "MONAILabelReviewer" / "MONAILabelReviewerLib" / "MonaiServerREST.py"
    spec = importlib.util.spec_from_file_location("MonaiServerREST", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
