"""Some seconds of `scripts/soak.py`: mixed requests of many clients, each answer checked; the gate runs ten
minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from running import ROOT, Start

sys.path.insert(0, str(ROOT / "scripts"))

import soak
from soak_client import Seen

CLIENTS = 6
SECONDS = 12.0


def test_clients_at_once_get_what_they_asked_for(start: Start, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    soak.write_studies(studies, CLIENTS)
    server = start(studies, "--conf", "scoring", "off")
    clients, seen = soak.drive(server.url, CLIENTS, 0, SECONDS)
    assert seen.faults == []
    assert soak.lost_on_disk(studies, clients) == []
    kinds = {kind for kind, status, _ in seen.answers if status == 200}
    assert {"box", "paint", "save", "read", "info", "work"} <= kinds
    assert server.process.poll() is None
    assert server.left_behind() == []


def test_a_lost_save_is_found(tmp_path: Path) -> None:
    soak.write_studies(tmp_path, 1)
    client = soak.Client("http://127.0.0.1:9", 0, soak.SHAPE, soak.SHARED, 0, Seen())
    assert soak.lost_on_disk(tmp_path, [client]) == []
    client.saved = np.ones(soak.SHAPE, np.uint8)
    assert soak.lost_on_disk(tmp_path, [client]) == ["own0"]
    place = tmp_path / "labels" / "final" / "own0.nii.gz"
    place.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(client.saved, np.eye(4)), place)
    assert soak.lost_on_disk(tmp_path, [client]) == []
    nib.save(nib.Nifti1Image(client.saved * 2, np.eye(4)), place)
    assert soak.lost_on_disk(tmp_path, [client]) == ["own0"]
