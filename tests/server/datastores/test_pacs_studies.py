"""A PACS as studies, against a real Orthanc: listing, fetching, saving, reading back, and what goes wrong."""

from __future__ import annotations

import io
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicom_phantom import PLANES, phantom_series
from orthanc import Pacs, needs_orthanc
from running import Server, Start, free_port
from segmed.data.phantom import Phantom
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.reading import read_volume
from segmed.server.config.dicomweb_settings import DicomwebSettings, check_url
from segmed.server.datastores import dicomweb
from segmed.server.datastores.pacs import PacsStudies
from segmed.server.http.errors import BadRequest
from segmed.server.tasks.train import MethodTrainTask

SHAPE = (24, 20, 6)
NAMES = ["liver", "Milz größer"]
INFO = {"label_info": [{"name": name, "idx": 9 - n} for n, name in enumerate(NAMES)], "model": "medsam"}
Place = tuple[Path, Phantom, str]


def _labels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    i, j, k = (n // 4 for n in shape)
    labels[i : 2 * i, j : 3 * j, k : 2 * k + 1] = 1
    labels[2 * i + 1 :, j : 2 * j, k : 3 * k + 1] = 2
    return labels


def _nifti(path: Path, labels: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(labels, affine), path)
    return str(path)


def _put(pacs: Pacs, folder: Path, **how: Any) -> Place:
    """A phantom in the PACS; its folder and the UID of its series."""
    phantom = phantom_series(folder, **{"shape": SHAPE, **how})
    pacs.upload(folder)
    return folder, phantom, str(pydicom.dcmread(folder / "000.dcm").SeriesInstanceUID)


def _store(pacs: Pacs, cache: Path, **conf: str) -> PacsStudies:
    settings = DicomwebSettings.from_conf(
        {"dicomweb_cache": str(cache), "dicomweb_list_seconds": "1", **conf}
    )
    return PacsStudies(pacs.url, settings)


@pytest.fixture
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """A PACS of a test's own."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    one = Pacs(tmp_path_factory.mktemp("mine"))
    one.start()
    yield one
    one.stop()


def test_series_are_listed_by_modality_and_filter(mine: Pacs, tmp_path: Path) -> None:
    ct = _put(mine, tmp_path / "ct")[2]
    mr = _put(mine, tmp_path / "mr", modality="MR")[2]
    store = _store(mine, tmp_path / "cache")
    assert set(store.list_images()) == {ct, mr}
    assert store.state() == {"kind": "pacs", "state": "ok", "message": ""}
    info = store.get_image_info(ct)
    assert (info["modality"], info["description"], info["slices"]) == ("CT", "phantom", SHAPE[2])
    assert _store(mine, tmp_path / "cache", modalities="mr").list_images() == [mr]
    past = _store(mine, tmp_path / "cache", dicomweb_filter='{"StudyDate": "-20200101"}')
    assert past.list_images() == []
    assert read_volume(past.get_image_uri(ct)).shape == SHAPE  # a viewer may open what the filter leaves out
    with pytest.raises(BadRequest, match="no series") as missing:
        store.get_image_uri("1.2.3")
    assert missing.value.status == 404
    third = _put(mine, tmp_path / "third")[2]
    time.sleep(1.1)  # as long as a list is believed
    assert third in store.list_images()


@pytest.mark.parametrize("plane", PLANES)
def test_a_label_goes_into_the_pacs_and_comes_back(pacs: Pacs, tmp_path: Path, plane: str) -> None:
    folder, phantom, uid = _put(pacs, tmp_path / "s", plane=plane, shape=(24, 20, 16))
    store = _store(pacs, tmp_path / "cache")
    path = store.get_image_uri(uid)
    volume, sent = read_volume(path), read_volume(folder)
    assert np.array_equal(volume.array, sent.array) and np.array_equal(volume.affine, sent.affine)
    assert sorted(volume.shape) == sorted(phantom.image.shape)
    labels, info = _labels(volume.shape), dict(INFO)
    store.save_label(uid, _nifti(tmp_path / "l.nii.gz", labels, volume.affine), "final", info)
    study = str(pydicom.dcmread(folder / "000.dcm").StudyInstanceUID)
    (content,) = pacs.series("SEG", study)
    (tmp_path / "seg.dcm").write_bytes(content)
    found, names = read_segmentation(tmp_path / "seg.dcm", open_series(folder))
    assert np.array_equal(found, labels) and list(names.values()) == NAMES
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (info["seg_sop"], info["seg_series"]) == (seg.SOPInstanceUID, seg.SeriesInstanceUID)
    assert uid in store.get_labeled_images()

    stranger = _store(pacs, tmp_path / "elsewhere")  # another server, which has nothing but the PACS
    assert not stranger.has_label(uid, "final")
    assert stranger.get_label_by_image_id(uid, "final") == uid and uid in stranger.get_labeled_images()
    assert not (stranger.root / "series").exists()  # nothing is fetched before it is wanted
    assert np.array_equal(read_volume(stranger.get_label_uri(uid, "final")).array, labels)
    told = stranger.get_label_info(uid, "final")
    assert [item["name"] for item in told["label_info"]] == NAMES and told[
        "seg_series"
    ] == seg.SeriesInstanceUID


def test_the_newest_seg_counts_and_a_removed_label_stays_away(pacs: Pacs, tmp_path: Path) -> None:
    _, phantom, uid = _put(pacs, tmp_path / "s")
    first, second = _labels(), np.where(_labels() == 1, 1, 0).astype(np.uint8)
    theirs = _store(pacs, tmp_path / "theirs")
    for n, labels in enumerate((first, second)):
        theirs.save_label(uid, _nifti(tmp_path / f"{n}.nii.gz", labels, phantom.affine), "final", dict(INFO))
    store = _store(pacs, tmp_path / "cache")
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array, second)
    store.remove_label(uid, "final")
    assert store.get_label_uri(uid, "final") == "" and uid not in store.get_labeled_images()


def test_a_pacs_that_froze_has_each_version_once(
    mine: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may carry out later what it did not answer, and the second try must not become another version."""
    monkeypatch.setattr(dicomweb, "_STORE", 1.0)
    _, phantom, uid = _put(mine, tmp_path / "s")
    store = _store(mine, tmp_path / "cache")
    label = _nifti(tmp_path / "label.nii.gz", _labels(), phantom.affine)
    store.get_image_uri(uid)
    mine.freeze()
    try:
        with pytest.raises(BadRequest, match="does not answer in time"):
            store.save_label(uid, label, "final", dict(INFO))
    finally:
        mine.thaw()
    time.sleep(1.1)  # as long as a list is believed
    for number in (1, 2):
        info = dict(INFO)
        store.save_label(uid, label, "final", info)
        assert info["seg_edition"] == number
        stored = [pydicom.dcmread(io.BytesIO(seg)) for seg in mine.series("SEG")]
        assert sorted(str(seg.SeriesDescription) for seg in stored) == [
            f"Segmentation version {n} by SegMed medsam" for n in range(1, number + 1)
        ]


def test_segs_of_others_are_found_behind_the_list(pacs: Pacs, tmp_path: Path) -> None:
    folder, _, uid = _put(pacs, tmp_path / "s")
    (tmp_path / "seg").mkdir()
    write_segmentation(_labels(), NAMES, open_series(folder), tmp_path / "seg" / "seg.dcm")
    pacs.upload(tmp_path / "seg")
    store = _store(pacs, tmp_path / "cache")
    deadline = time.monotonic() + 30
    while uid not in store.get_labeled_images():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (store.root / "series").exists()
    asked: list[Any] = []
    again = _store(pacs, tmp_path / "cache")
    again.pacs.reference = lambda *uids: asked.append(uids)  # type: ignore[method-assign, assignment, return-value]
    assert uid in again.get_labeled_images() and not asked  # what a SEG is about is remembered


def test_an_empty_mask_is_kept_here_alone(pacs: Pacs, tmp_path: Path) -> None:
    folder, phantom, uid = _put(pacs, tmp_path / "s")
    store, info = _store(pacs, tmp_path / "cache"), dict(INFO)
    store.save_label(uid, _nifti(tmp_path / "l.nii.gz", _labels() * 0, phantom.affine), "final", info)
    assert "empty" in info["seg_note"] and store.has_label(uid, "final")
    assert pacs.series("SEG", str(pydicom.dcmread(folder / "000.dcm").StudyInstanceUID)) == []


def test_training_pairs_of_a_pacs(pacs: Pacs, tmp_path: Path) -> None:
    _, phantom, uid = _put(pacs, tmp_path / "s")
    theirs = _store(pacs, tmp_path / "theirs")
    theirs.save_label(uid, _nifti(tmp_path / "l.nii.gz", _labels(), phantom.affine), "final", dict(INFO))
    store = _store(pacs, tmp_path / "cache")
    engine = SimpleNamespace(settings=SimpleNamespace(structures={NAMES[1]: 4}, patient=None))
    data = MethodTrainTask._data(SimpleNamespace(engine=engine), store)  # type: ignore[arg-type]
    n = next(n for n, volume in enumerate(data.volumes) if volume.name == uid)
    assert np.array_equal(data.read(n)[1], np.where(_labels() == 2, 4, 0))
    store._cache.max_bytes = 1
    store._cache.just_used = 0
    other = _put(pacs, tmp_path / "other")[2]
    store.refresh()
    store.get_image_uri(other)
    assert data.volumes[n].image.is_dir()  # what is trained on is in use


def test_a_series_that_grows_is_fetched_anew(mine: Pacs, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    phantom = phantom_series(folder, shape=SHAPE)
    late = (folder / "005.dcm").read_bytes()
    (folder / "005.dcm").unlink()
    mine.upload(folder)
    store = _store(mine, tmp_path / "cache")
    (uid,) = store.list_images()
    assert read_volume(store.get_image_uri(uid)).shape == (*SHAPE[:2], 5)
    (folder / "005.dcm").write_bytes(late)
    mine.upload(folder)
    store.refresh()
    store.list_images()
    assert np.array_equal(read_volume(store.get_image_uri(uid)).array, phantom.image)


def test_a_pacs_that_goes_and_comes_back(mine: Pacs, tmp_path: Path) -> None:
    _, phantom, uid = _put(mine, tmp_path / "s")
    other = _put(mine, tmp_path / "other")[2]
    mine.stop()
    store = _store(mine, tmp_path / "cache")
    assert store.state()["state"] == "down" and "cannot be reached" in store.state()["message"]
    assert store.status() == {
        "total": 0,
        "completed": 0,
        "label_tags": {},
        "message": store.state()["message"],
    }
    with pytest.raises(BadRequest, match="cannot be reached") as down:
        store.list_images()
    assert down.value.status == 424
    mine.start()
    time.sleep(2.1)  # after which it is asked again
    assert store.state()["state"] == "ok" and uid in store.list_images()
    before = read_volume(store.get_image_uri(uid)).array
    mine.stop()
    assert np.array_equal(read_volume(store.get_image_uri(uid)).array, before)  # work goes on
    with pytest.raises(BadRequest) as down:
        store.get_image_uri(other)
    assert down.value.status == 424 and store.state()["state"] == "down"
    label = _nifti(tmp_path / "l.nii.gz", _labels(), phantom.affine)
    with pytest.raises(BadRequest) as down:
        store.save_label(uid, label, "final", dict(INFO))
    assert down.value.status == 424
    assert not store.has_label(uid, "final")  # nothing half saved
    mine.start()
    time.sleep(2.1)
    store.save_label(uid, label, "final", dict(INFO))
    assert store.get_labeled_images() == [uid] and len(mine.series("SEG")) == 1


@needs_orthanc
def test_name_and_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pacs").mkdir()
    guarded = Pacs(tmp_path / "pacs", user="ann:right")
    guarded.start()
    try:
        _put(guarded, tmp_path / "s")
        with pytest.raises(BadRequest, match="MONAI_LABEL_DICOMWEB_USERNAME"):
            _store(guarded, tmp_path / "cache").list_images()
        monkeypatch.setenv("MONAI_LABEL_DICOMWEB_USERNAME", "ann")
        for password in ("wrong", "right"):
            monkeypatch.setenv("MONAI_LABEL_DICOMWEB_PASSWORD", password)
            store = _store(guarded, tmp_path / "cache")
            if password == "right":
                assert len(store.list_images()) == 1
            else:
                with (
                    caplog.at_level(logging.DEBUG),
                    pytest.raises(BadRequest, match="refuses the name") as refused,
                ):
                    store.list_images()
                assert "wrong" not in str(refused.value) and "wrong" not in caplog.text
    finally:
        guarded.stop()


@pytest.mark.parametrize("url", ["http://ann:secret@host/dicom-web", "http://host/dicom-web?x=1", "http://"])
def test_only_plain_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError, match="plain DICOMweb address"):
        check_url(url)
    assert check_url("http://host:8042/dicom-web/") == "http://host:8042/dicom-web"


class _Odd(BaseHTTPRequestHandler):
    """Not a PACS, or one that breaks off."""

    answers: ClassVar[dict[str, tuple[int, str, bytes]]] = {}

    def do_GET(self) -> None:
        status, kind, body = next(v for k, v in self.answers.items() if k in self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + (500 if "multipart" in kind else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _odd_store(odd: ThreadingHTTPServer, cache: Path) -> PacsStudies:
    settings = DicomwebSettings.from_conf({"dicomweb_cache": str(cache), "modalities": "CT"})
    return PacsStudies(f"http://127.0.0.1:{odd.server_address[1]}/dicom-web", settings)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, "text/html", b"<html>hello</html>"), "no DICOMweb service"),
        ((200, "application/json", b'{"a": 1}'), ""),
        ((404, "text/html", b"nothing"), "no DICOMweb service at the address"),
        ((500, "text/html", b"oh"), "HTTP 500"),
        ((403, "text/html", b"no"), "refuses the name"),
    ],
)
def test_what_is_no_pacs_is_told(
    odd: ThreadingHTTPServer, tmp_path: Path, answer: tuple[int, str, bytes], reason: str
) -> None:
    _Odd.answers = {"": answer}
    store = _odd_store(odd, tmp_path)
    if reason:
        with pytest.raises(BadRequest, match=reason) as told:
            store.list_images()
        assert told.value.status == 424
    else:
        assert store.list_images() == []


def test_uids_that_are_paths_are_left_out_and_a_broken_download_leaves_nothing(
    odd: ThreadingHTTPServer, tmp_path: Path
) -> None:
    def item(series: str) -> dict[str, Any]:
        values = {"0020000E": series, "0020000D": "1.2", "00080060": "CT"}
        return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}

    listed = json.dumps([item("1.2.3"), item("../../../tmp/x"), item("1..2"), {}]).encode()
    half = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + b"\0" * 128 + b"DICM"
    _Odd.answers = {
        "Modality=SEG": (200, "application/json", b"[]"),
        "studies/": (200, "multipart/related; boundary=b", half),
        "": (200, "application/json", listed),
    }
    store = _odd_store(odd, tmp_path / "cache")
    assert store.list_images() == ["1.2.3"]
    with pytest.raises(BadRequest) as told:
        store.get_image_uri("1.2.3")
    assert told.value.status == 424
    assert [p.name for p in (store.root / "series").iterdir()] == ["1.2.3.lock"]


def test_certificates_are_checked_and_can_be_given(
    odd: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext "
        "subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*words.split(), "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    odd.socket = context.wrap_socket(odd.socket, server_side=True)
    _Odd.answers = {"": (200, "application/json", b"[]")}
    url = f"https://127.0.0.1:{odd.server_address[1]}/dicom-web"
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    with pytest.raises(BadRequest, match="--conf dicomweb_ca"):
        PacsStudies(url, DicomwebSettings(cache=tmp_path)).list_images()
    monkeypatch.setenv(
        "REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"
    )  # what is given in conf wins
    settings = DicomwebSettings.from_conf({"dicomweb_cache": str(tmp_path), "dicomweb_ca": str(pem)})
    assert PacsStudies(url, settings).list_images() == []


def test_a_pacs_that_says_nothing_does_not_hold_everybody_up(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        store = PacsStudies(f"http://127.0.0.1:{closed.getsockname()[1]}/x", DicomwebSettings(cache=tmp_path))
        asked = 0

        def connect(*_: Any, **__: Any) -> Any:
            nonlocal asked
            asked += 1
            raise requests.ConnectTimeout

        store.pacs._client._session.get = connect  # type: ignore[method-assign]
        for _ in range(5):
            with pytest.raises(BadRequest, match="in time"):
                store.list_images()
        assert asked == 1


# ---- through a server


@pytest.fixture(scope="module")
def hospital(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Pacs, Place, Path]]:
    """A server that was started while its PACS was down."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    home = tmp_path_factory.mktemp("hospital")
    one = Pacs(home, port=free_port())
    words = {"models": "classical,lora", "dicomweb_cache": str(home / "cache"), "dicomweb_list_seconds": "1"}
    server = start(one.url, *(w for key, value in words.items() for w in ("--conf", key, value)))
    assert "cannot be reached" in server.log.read_text(encoding="utf-8")
    one.start()
    yield server, one, _put(one, home / "series"), home
    one.stop()


def test_a_server_on_a_pacs(hospital: tuple[Server, Pacs, Place, Path], tmp_path: Path) -> None:
    server, pacs, (folder, phantom, uid), home = hospital
    deadline = time.monotonic() + 30
    while requests.get(f"{server.url}/datastore/").json()["total"] != 1:  # without a restart
        assert time.monotonic() < deadline
        time.sleep(0.2)
    sample = requests.post(f"{server.url}/activelearning/sequential", json={}).json()
    assert (
        sample["id"] == uid
        and sample["StudyInstanceUID"] == pydicom.dcmread(folder / "000.dcm").StudyInstanceUID
    )
    answer = requests.post(
        f"{server.url}/infer/classical",
        params={"image": uid, "output": "image"},
        data={"params": json.dumps({"roi": [18, 4, 15, 3, 2, 2], "result_extension": ".nii"})},
    )
    assert answer.status_code == 200, answer.text
    assert np.asarray(nib.Nifti1Image.from_bytes(answer.content).dataobj).shape == SHAPE
    label = Path(_nifti(tmp_path / "l.nii.gz", _labels(), phantom.affine)).read_bytes()

    def save() -> requests.Response:
        return requests.put(
            f"{server.url}/datastore/label",
            params={"image": uid},
            data={"params": json.dumps({"label_info": INFO["label_info"]})},
            files={"label": ("label.nii.gz", label)},
        )

    assert save().status_code == 200
    (content,) = pacs.series("SEG")
    (tmp_path / "seg.dcm").write_bytes(content)
    found, names = read_segmentation(tmp_path / "seg.dcm", open_series(folder))
    assert np.array_equal(found, _labels()) and list(names.values()) == NAMES
    back = requests.get(f"{server.url}/datastore/label", params={"label": uid, "tag": "final"})
    (tmp_path / "back.nii.gz").write_bytes(back.content)
    assert np.array_equal(read_volume(tmp_path / "back.nii.gz").array, _labels())
    assert requests.get(f"{server.url}/datastore/").json()["completed"] == 1
    pacs.stop()
    refused = save()
    assert refused.status_code == 424 and "PACS" in refused.json()["detail"]
    assert requests.get(f"{server.url}/info/").status_code == 200
    pacs.start()
    time.sleep(2.1)
    assert save().status_code == 200 and len(pacs.series("SEG")) == 2
    log = server.log.read_text(encoding="utf-8")
    assert not [word for word in ("Phantom", "phantom^", NAMES[1]) if word in log]
    assert not server.left_behind()
    assert (next((home / "cache").iterdir()).stat().st_mode & 0o777) == 0o700
