"""A server inside of another program, in a process of its own because it is there once for all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
from segmed.data.phantom import Phantom

_PROGRAM = """
import sys, tempfile
from pathlib import Path
from segmed.client import SegMedClient
from segmed.server.embedded import start_embedded

studies, registry = map(Path, sys.argv[1:])
temporary = tempfile.gettempdir()
try:
    start_embedded(studies / "nowhere")
except FileNotFoundError as error:
    print(">", error)
server = start_embedded(studies, {"models": "classical", "labels": "liver", "registry": str(registry)})
with SegMedClient(server.url, "me") as client:
    work = client.open("ct")
    told = work.prompt("classical", "liver", box=[30, 60, 30, 60, 8, 8])
    work.save()
    print(">", told.slices, [image.labelled for image in client.images()])
try:
    start_embedded(studies)
except RuntimeError as error:
    print(">", error)
assert tempfile.gettempdir() == temporary
server.close()
print("> closed")
"""


def test_a_program_has_its_own_server(phantom: Phantom, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    command = [sys.executable, "-c", _PROGRAM, str(studies), str(tmp_path / "registry")]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = [line.removeprefix("> ") for line in ran.stdout.splitlines() if line.startswith("> ")]
    assert "There is no folder" in told[0] and "has started a server before" in told[2]
    assert (told[1], told[3]) == ("[8] [True]", "closed")
    assert (studies / "labels" / "final" / "ct.nii.gz").is_file()
