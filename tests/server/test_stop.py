"""What a stopped server leaves behind."""

from __future__ import annotations

import signal
from pathlib import Path

import nibabel as nib
import pytest
from running import Start
from segmed.data.phantom import Phantom


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_sessions_and_temporary_files_go_with_the_server(
    start: Start, phantom: Phantom, tmp_path: Path, how: signal.Signals
) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "loaded.nii.gz")
    server = start(studies)
    server.client.create_session(str(tmp_path / "loaded.nii.gz"))
    assert list(server.temporary.rglob("*.nii.gz"))
    server.process.send_signal(how)
    server.process.wait(30)
    assert list(server.temporary.rglob("*")) == []


def test_a_killed_server_is_cleaned_up_after_by_the_next(
    start: Start, phantom: Phantom, tmp_path: Path
) -> None:
    server = start(tmp_path)
    server.process.kill()
    server.process.wait(30)
    (left,) = server.temporary.iterdir()
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), left / "left.nii.gz")
    again = start(tmp_path, temporary=server.temporary)
    assert not left.exists()
    assert len(list(again.temporary.iterdir())) == 1
