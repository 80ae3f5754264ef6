"""The way of a prompt through the library: few rooms, each calling only rooms below it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
from segmed.data.phantom import Phantom
from test_layers import LIBRARY, RANK

APP = Path(__file__).resolve().parents[1] / "apps" / "segmed"
MOST_ROOMS = 9

# Prints the calls from one room into another while POST /infer is answered the second time, [caller, called].
_TRACE = """
import json, sys, threading

library, studies = sys.argv[1] + "/", sys.argv[2]
calls, watching = set(), False

def room(path):
    return path[len(library):].split("/")[0]

def note(frame, event, argument):
    if not watching or event != "call" or not frame.f_code.co_filename.startswith(library):
        return
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(library):
        caller = caller.f_back
    if caller is not None and room(caller.f_code.co_filename) != room(frame.f_code.co_filename):
        calls.add((room(caller.f_code.co_filename), room(frame.f_code.co_filename)))

threading.setprofile(note)
sys.setprofile(note)
from fastapi.testclient import TestClient
from segmed.server.asgi import app

client = TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 1))
for watching in (False, True):
    params = json.dumps({"roi": [20, 60, 20, 60, 8, 8]})
    answer = client.post("/infer/segmed_3d?image=ct&output=image", data={"params": params})
    assert answer.status_code == 200, answer.text
watching = False
print(json.dumps(sorted(calls)))
"""


@pytest.fixture(scope="module")
def calls(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The calls between rooms that a prompt takes."""
    folder = tmp_path_factory.mktemp("trace")
    (studies := folder / "studies").mkdir()
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "ct.nii.gz")
    settings = {
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": json.dumps({"registry": str(folder / "registry"), "scoring": "off"}),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "PYTHONPATH": str(LIBRARY.parent),
    }
    command = [sys.executable, "-c", _TRACE, str(LIBRARY), str(studies)]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [(a, b) for a, b in json.loads(done.stdout.splitlines()[-1])]


def test_a_prompt_crosses_few_rooms(calls: list[tuple[str, str]]) -> None:
    rooms = {room for call in calls for room in call}
    assert {"server", "inference", "methods", "imaging"} <= rooms
    assert len(rooms) <= MOST_ROOMS, sorted(rooms)


def test_no_room_calls_back_into_one_above_it(calls: list[tuple[str, str]]) -> None:
    assert [(a, b) for a, b in calls if RANK[b] < RANK[a]] == []
