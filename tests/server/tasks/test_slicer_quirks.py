"""What 3D Slicer's MONAI Label module does oddly, sends byte for byte, and shows when things go wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import requests
import SimpleITK as sitk
import torch
from running import Server
from segmed.data.phantom import Phantom
from segmed.registry.versions import Registry
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine
from slicer_client import Shown, Slicer
from slicer_fixtures import NAMES, K, dice_in_the_patient, inside, roi_around, slab, truth
from slicer_scene import Roi


def test_sessions_are_opened_once_and_the_name_is_not_looked_up(
    own_volume: Slicer, bodies: dict[str, Phantom]
) -> None:
    liver = slab(truth(bodies["lps"], "liver"))
    own_volume.roi = roi_around(own_volume, liver)
    own_volume.update("classical")
    session = own_volume.sample["session_id"]
    own_volume.update("classical")
    assert own_volume.sample["session_id"] == session
    assert dice_in_the_patient(own_volume.answer, liver, bodies["lps"].affine) > 0.85
    own_volume._client().remove_session(session)
    with pytest.raises(Shown, match=r"unexpected error.\nMessage: Status: 404.*Load the image again"):
        own_volume.update("classical")


def test_what_the_module_adds_or_leaves_out_does_not_matter(
    own_volume: Slicer, bodies: dict[str, Phantom]
) -> None:
    liver = truth(bodies["lps"], "liver")
    own_volume.click(own_volume.ras(inside(liver)), "classical")
    clicked = own_volume.segments["liver"].mask.copy()
    assert clicked[:, :, K].any()
    # with a box, Update takes the offset in mm for the slice and leaves the clicks out
    own_volume.roi, own_volume.red = roi_around(own_volume, slab(liver)), 33.0
    own_volume.update("classical")
    assert (own_volume.sent["slice"], own_volume.sent["foreground"]) == (33, [])
    boxed = sitk.GetArrayFromImage(own_volume.answer).T > 0
    assert np.flatnonzero(boxed.any((0, 1))).tolist() == [K]
    # a click with Auto ticked sends both
    own_volume.click(own_volume.ras(inside(liver)), "classical")
    assert own_volume.sent["foreground"] and own_volume.sent["roi"]
    # a box that hangs over, as 3D Slicer's do, with its thickness
    own_volume.segments["liver"].foreground.clear()
    low, high = np.array(own_volume.roi.centre), np.array(own_volume.roi.size)
    own_volume.roi = Roi((low[0], low[1], low[2]), (high[0], high[1], 4 * 8.0))
    own_volume.update("classical")
    assert own_volume.sent["roi"][4:] == [K - 2, K + 2]
    assert (sitk.GetArrayFromImage(own_volume.answer).T > 0)[:, :, K].sum() == boxed[:, :, K].sum()


def test_a_box_on_a_tilted_volume_is_sent_wrong_and_still_answered(
    slicer_server: Server, bodies: dict[str, Phantom], tmp_path: Path
) -> None:
    """Only two of the eight corners are converted, so that the box that arrives does not hold the object."""
    slicer = Slicer(slicer_server.url, tmp_path / "slicer")
    slicer.connect()
    slicer.load(slicer_server.studies / "oblique.nii.gz", "tilted")
    liver = slab(truth(bodies["oblique"], "liver"))
    corners = np.array([slicer.ras(v) for v in np.argwhere(liver)])
    slicer.roi = Roi.between(corners.min(0), corners.max(0))
    slicer.update("classical_3d")
    pairs = np.sort(np.reshape(slicer.sent["roi"], (3, 2)))
    inside_the_box = np.all((np.argwhere(liver) >= pairs[:, 0]) & (np.argwhere(liver) <= pairs[:, 1]), axis=1)
    assert inside_the_box.mean() < 0.95
    assert slicer.told["model"] == "classical"


def test_slice_0_sends_the_clicks_of_all_slices(own_volume: Slicer) -> None:
    own_volume.click(own_volume.ras([30, 36, K]))
    own_volume.click(own_volume.ras([30, 36, 0]), "classical")
    assert own_volume.sent["slice"] == 0
    assert own_volume.sent["foreground"] == [[30, 36, K], [30, 36, 0]]
    assert np.flatnonzero(own_volume.segments["liver"].mask.any((0, 1))).tolist() == [0, K]


def test_keys_of_deepedit_are_understood(own_volume: Slicer) -> None:
    """A viewer that takes a model for one of type deepedit sends one key for each label of the app."""
    params: dict[str, Any] = {name: [] for name in NAMES} | {"label": "liver", "roi": [50, 20, 60, 20, K, K]}
    own_volume._infer("classical", params | {"liver": [[30, 36, K]], "logging": "DEBUG", "model": "lora"})
    assert own_volume.told["model"] == "classical"
    assert own_volume.told["label_names"] == {"liver": 1}


@pytest.mark.parametrize("upstream", [False, True])
def test_a_volume_of_ones_own_is_uploaded_when_it_is_saved(
    slicer_server: Server, own_volume: Slicer, bodies: dict[str, Phantom], tmp_path: Path, upstream: bool
) -> None:
    own_volume.upstream = upstream
    own_volume.roi = roi_around(own_volume, slab(truth(bodies["lps"], "liver")))
    own_volume.update("classical")
    with pytest.raises(Shown, match=r"Failed to upload volume to Server.\nMessage: Status: 400.*Rename it"):
        own_volume.submit("lora")  # the slash in its name
    own_volume.load(tmp_path / "own.nii.gz", "Müller, CT 2")
    own_volume.roi = roi_around(own_volume, slab(truth(bodies["lps"], "liver")))
    if upstream:  # the development branch uploads before it segments automatically
        own_volume.segment("lora")
        assert not own_volume.sample["session"]
    own_volume.update("classical")
    try:
        assert own_volume.submit("lora") == {"image": "Müller, CT 2", "label": "Müller, CT 2"}
        entry = slicer_server.client.datastore()["objects"]["Müller, CT 2"]["labels"]["final"]["info"]
        assert entry.get("model") == ("lora" if upstream else None)
        kept = next(slicer_server.studies.glob("Müller, CT 2*"))
        assert (bodies["lps"].image == sitk.GetArrayFromImage(sitk.ReadImage(str(kept))).T).all()
    finally:
        requests.delete(f"{slicer_server.url}/datastore/image", params={"id": "Müller, CT 2"}, timeout=10)


def test_what_the_user_is_shown(own_volume: Slicer, slicer_server: Server, tmp_path: Path) -> None:
    own_volume.click(own_volume.ras([500, 36, K]))
    with pytest.raises(
        Shown, match=r"3d disabled - unexpected error.\nMessage: Status: 400.*\(500, 36, 14\).*outside"
    ):
        own_volume.update("classical")
    own_volume.segments["liver"].foreground.clear()
    own_volume.click(own_volume.ras([30, 36, K]), positive=False)
    with pytest.raises(Shown, match="points/roi not added"):
        own_volume.update("classical")
    with pytest.raises(Shown, match=r"3d enabled.*\nMessage: Status: 400.*foreground"):
        own_volume.update("classical_3d")
    own_volume.info["models"]["classical"]["config"]["device"] = ["NVIDIA A100"]
    own_volume.click(own_volume.ras([30, 36, K]))
    with pytest.raises(Shown, match="There is no device 'NVIDIA A100'"):
        own_volume.update("classical")
    with pytest.raises(Shown, match=r"Failed to run inference.*\nMessage: Status: 40[45]"):
        own_volume.segment("")  # Auto-Run Pre-Trained Model, and no automatic model is offered
    alone = Slicer("http://127.0.0.1:9", tmp_path / "alone")
    with pytest.raises(Shown, match="Failed to fetch models from remote server"):
        alone.connect()
    assert slicer_server.left_behind() == []


def test_the_name_of_a_graphics_card_is_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: "NVIDIA H200")
    engine = Engine(ServerSettings.from_conf({"models": "classical"}), Registry(tmp_path))
    assert engine.devices() == ["NVIDIA H200"]
    assert engine.device("NVIDIA H200") == "cuda"


class _Recorder(BaseHTTPRequestHandler):
    """Writes down what it is asked, and refuses all."""

    asked: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append((self.requestline, dict(self.headers), body))
        self.send_error(404)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def recorder() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_client_sends_the_bytes_of_the_module(recorder: str, tmp_path: Path) -> None:
    slicer = Slicer(recorder, tmp_path)
    slicer.info = {
        "labels": ["liver"],
        "models": {"sam": {"dimension": 2, "config": {"device": ["NVIDIA H200", "cpu"]}}},
    }
    sitk.WriteImage(sitk.Image(40, 40, 8, sitk.sitkInt16), tmp_path / "own.nii.gz")
    slicer.load(tmp_path / "own.nii.gz", "a")
    slicer.sample["session"] = False
    slicer.segments["liver"].foreground = [[3, 4, 5]]
    slicer.choose("liver")
    slicer._switched = True
    with pytest.raises(Shown):
        slicer.click(slicer.ras([30, -2, 5]), "sam")
    with pytest.raises(Shown):
        slicer.submit()
    (asked, headers, body), (saved, _, label) = (
        r for r in _Recorder.asked if not r[0].startswith("GET /auth/ ")
    )
    assert [r[0] for r in _Recorder.asked][::2] == ["GET /auth/ HTTP/1.1"] * 2
    assert asked == "POST /infer/sam?image=a HTTP/1.1"
    assert headers["content-type"] == "multipart/form-data; boundary=----------lImIt_of_THE_fIle_eW_$"
    assert "User-Agent" not in headers
    assert body.decode() == (
        "------------lImIt_of_THE_fIle_eW_$\r\n"
        'Content-Disposition: form-data; name="params"\r\n'
        "\r\n"
        '{"label": "liver", "foreground": [[3, 4, 5], [30, -2, 5]], "background": [], "device": "NVIDIA '
        'H200", '
        '"slice": 5, "reset_state": true, "result_extension": ".nrrd", "result_dtype": "uint8", '
        '"client_id": "user-xyz"}\r\n'
        "------------lImIt_of_THE_fIle_eW_$--\r\n"
        "\r\n"
    )
    assert saved == "PUT /datastore/label?image=a HTTP/1.1"
    assert b'{"label_info": [{"name": "liver", "idx": 1}], "client_id": "user-xyz"}\r\n' in label
    assert f'name="label"; filename="{tmp_path}'.encode() in label  # the whole path on the user's machine
