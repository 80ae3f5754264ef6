"""`segmed.client` against a real server, and against servers that are none."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
import segmed.client
from running import Server
from scipy import ndimage
from segmed.client import (
    API_VERSION,
    ApiVersionError,
    LabelChange,
    NoServerError,
    NotAllowedError,
    SegMedClient,
    SegMedError,
    StaleWorkError,
    Work,
    strokes_through,
    to_voxels,
)
from segmed.client.geometry import box_around, lasso_through
from segmed.client.version import HEADER
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.server.pages.api_examples import EXAMPLES

K = 14


def liver_box(body: Phantom) -> list[float]:
    return box_around(np.argwhere((body.labels == 1) & (np.arange(24) == K)))


def pretended(answer: Callable[[httpx.Request], httpx.Response]) -> SegMedClient:
    return SegMedClient("http://nowhere", http=httpx.Client(transport=httpx.MockTransport(answer)))


def test_a_box_a_correction_and_the_way_back(client: SegMedClient, work: Work, body: Phantom) -> None:
    seen: list[int] = []
    work.on_change = lambda changes: seen.extend(change.k for change in changes)
    told = work.prompt("classical", "liver", box=liver_box(body), on_progress=lambda progress: None)
    liver = (body.labels == 1)[:, :, K]
    assert Overlap.of(work.labels[:, :, K] == told.labels["liver"], liver).dice() > 0.8
    assert seen == [K] and told.prompt.box == liver_box(body) and told.unsaved
    once = work.labels.copy()
    work.accept()
    edited = once.copy()
    edited[3:6, 4:7, 2:4] = 2
    work.paint(edited, "spleen")
    np.testing.assert_array_equal(client.open("ct").labels, edited)
    assert work.undo().can_redo
    np.testing.assert_array_equal(work.labels, once)
    work.redo()
    work.clear()
    assert not work.labels.any()
    work.undo()
    np.testing.assert_array_equal(work.labels, edited)


def test_saved_work_is_what_the_studies_hold(client: SegMedClient, body: Phantom) -> None:
    work = client.open("other")
    work.clear()
    work.prompt("classical", "liver", box=liver_box(body))
    saved = work.save()
    assert not work.told.unsaved and saved.voxels == {"liver": int((work.labels == 1).sum())}
    for content in (client.monai.label_file("other"), work.download()):
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        np.testing.assert_array_equal(np.asarray(image.dataobj), work.labels)
    labelled = {entry.id: entry.labelled for entry in client.images()}
    assert (labelled["ct"], labelled["other"]) == (False, True)
    work.undo()
    assert work.told.unsaved


def test_a_label_map_on_another_grid_is_moved(work: Work, body: Phantom) -> None:
    flipped = body.affine @ np.array([[-1, 0, 0, 95], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    work.replace((body.labels == 1)[::-1].astype(np.uint8), flipped, {1: "liver"})
    np.testing.assert_array_equal(work.labels == work.values()["liver"], body.labels == 1)


def test_scribbles_in_another_plane_reach_the_slices_that_they_cross(work: Work, body: Phantom) -> None:
    liver = body.labels == 1
    depth = ndimage.distance_transform_edt(liver)
    i, j, k = np.unravel_index(depth.argmax(), depth.shape)
    line = np.array([[i, j, k - 1.0], [i, j, k + 1.0]])
    strokes = strokes_through(line, True, 2.0)
    assert [stroke.k for stroke in strokes] == [k - 1, k, k + 1]
    told = work.prompt("classical", "liver", strokes=strokes)
    assert set(told.slices) == {k - 1, k, k + 1} and (work.labels[i, j, k - 1 : k + 2] == 1).all()


def test_lines_in_another_plane_name_it_where_the_server_has_planes() -> None:
    sagittal = np.array([[7.0, 1, 2], [7, 5, 2], [7, 5, 9]])
    bodies: list[dict[str, Any]] = []
    planes = {"axial": 2, "coronal": 1, "sagittal": 0}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            bodies.append(json.loads(request.content))
        image = {"id": "ct", "name": "ct", "shape": [9, 9, 9], "affine": np.eye(4).tolist(), "planes": planes}
        work = {"changes": [], "labels": {}, "revision": 0, "boot": "a"}
        return httpx.Response(200, json=work if "/images/ct/" in request.url.path else image)

    work = pretended(answer).open("ct")
    stroke = strokes_through(sagittal, False, planes=True)[0]
    work.prompt("m", "liver", strokes=[stroke], lasso=lasso_through(sagittal))
    assert bodies[0]["plane"] == "sagittal"
    assert bodies[0]["lasso"] == {"k": 7, "points": [[1, 2], [5, 2], [5, 9]]}
    assert bodies[0]["scribbles"][0] == {**bodies[0]["lasso"], "foreground": False, "width": 3.0}
    work.prompt("m", "liver", lasso=lasso_through(sagittal[:, [1, 2, 0]]))
    assert "plane" not in bodies[1] and bodies[1]["lasso"] == bodies[0]["lasso"]
    work.prompt("m", "liver", box=[1, 8, 4, 4, 2, 6])
    work.prompt("m", "liver", box=[1, 8, 4, 4, 2, 2])
    assert bodies[2]["plane"] == "coronal" and "plane" not in bodies[3]
    with pytest.raises(ValueError, match="lie in one plane"):
        work.prompt("m", "liver", strokes=[stroke], lasso=lasso_through(sagittal[:, [1, 2, 0]]))
    planes.clear()
    with pytest.raises(ValueError, match="in the stored slices only"):
        pretended(answer).open("ct").prompt("m", "liver", strokes=[stroke])
    assert len(bodies) == 4


def _lines(*told: dict[str, Any]) -> httpx.Response:
    content = "".join(json.dumps(line) + "\n" for line in told).encode()
    return httpx.Response(200, content=content, headers={"Content-Type": "application/x-ndjson"})


def test_progress_shows_partial_masks_and_the_answer_corrects_them() -> None:
    part = vars(LabelChange.of(3, 1, 2, np.ones((2, 4), np.uint8))) | {"axis": 0}
    whole = vars(LabelChange.of(0, 3, 2, np.full((1, 1), 5, np.uint8)))
    news = {"event": "progress", "done": 2, "most": 8, "seconds": 1.5, "left": 4.5, "changes": [part]}
    final = {"event": "answer", "changes": [whole], "labels": {"x": 5}, "revision": 1, "boot": "a"}
    answers = [_lines(news, {**news, "done": 3, "changes": []}, final)]
    answers += [_lines(news, {"event": "error", "status": 400, "detail": "Too many."}), _lines(news)]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            assert "application/x-ndjson" in request.headers["accept"]
            return answers.pop(0)
        image = {"id": "ct", "name": "ct", "shape": [6, 6, 6], "affine": np.eye(4).tolist()}
        work = {"changes": [whole], "labels": {"x": 5}, "revision": 0, "boot": "a"}
        return httpx.Response(200, json=work if request.url.path.endswith("work") else image)

    work = pretended(answer).open("ct")
    seen: list[tuple[int, float | None, int]] = []
    told = work.prompt("m", "x", on_progress=lambda p: seen.append((p.done, p.left, int(work.labels.sum()))))
    assert seen == [(2, 4.5, 13), (3, 4.5, 13)]
    assert told.revision == 1 and work.labels[3, 1:5, 2:4].all() and work.labels[3, 2, 0] == 5
    for message in ("Too many", "ended before it had answered"):
        with pytest.raises(SegMedError, match=message):
            work.prompt("m", "x", on_progress=lambda p: None)
        assert work.labels.sum() == 5, "what was shown is not valid after an error"


def test_positions_in_the_patient_are_voxels_of_the_image(client: SegMedClient, body: Phantom) -> None:
    info = client.image("ct")
    ras = nib.affines.apply_affine(body.affine, [[4, 5, 6], [7, 8, 9]])
    np.testing.assert_allclose(to_voxels(ras, info.affine), [[4, 5, 6], [7, 8, 9]], atol=1e-3)


def test_work_that_changed_elsewhere_is_loaded_again(client: SegMedClient, work: Work, body: Phantom) -> None:
    other = client.open("ct")
    other.prompt("classical", "liver", box=liver_box(body))
    with pytest.raises(StaleWorkError, match="repeat the last action"):
        work.clear()
    np.testing.assert_array_equal(work.labels, other.labels)
    work.clear()


def test_masks_sessions_and_files(
    client: SegMedClient, served: Server, body: Phantom, tmp_path: Path
) -> None:
    monai = client.monai
    roi = {"roi": liver_box(body), "result_extension": ".nii.gz"}
    session = monai.open_session(served.studies / "ct.nii.gz")
    masks = [
        monai.infer("classical", "ct", roi),
        monai.infer("classical", params=roi, session=session),
        monai.infer("classical", params=roi, file=served.studies / "ct.nii.gz"),
    ]
    arrays = [np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(mask.content)).dataobj) for mask in masks]
    assert arrays[0][:, :, K].any() and all(np.array_equal(arrays[0], array) for array in arrays[1:])
    assert masks[0].name.endswith(".nii.gz") and masks[0].params["model"] == "classical"
    monai.close_session(session)
    with pytest.raises(SegMedError, match="Load the image again") as refused:
        monai.infer("classical", params=roi, session=session)
    assert refused.value.status == 404
    assert monai.image_file("ct") == (served.studies / "ct.nii.gz").read_bytes()
    assert "classical" in monai.info()["models"]


def test_the_server_states_its_version(client: SegMedClient, served: Server) -> None:
    state = client.state()
    assert state.api == API_VERSION
    assert {model.name for model in state.models} >= {"classical", "segmed_3d"}
    assert httpx.get(f"{served.url}/api/images").headers[HEADER] == API_VERSION


@pytest.mark.parametrize("told", [{"version": "9.0"}, {"version": "9.0", "api": "9.1"}])
def test_another_major_version_is_refused(told: dict[str, str]) -> None:
    with pytest.raises(ApiVersionError, match=r"speaks version (none|9\.1) of the workspace API"):
        pretended(lambda request: httpx.Response(200, json=told)).state()
    with pytest.raises(ApiVersionError, match="Install the client that comes with"):
        pretended(lambda request: httpx.Response(200, json=[], headers={HEADER: "2.0"})).images()


def test_a_later_minor_version_and_unknown_fields_are_fine() -> None:
    told = {"version": "9.0", "api": "1.99", "models": [{"name": "new", "speed": 3}], "colour": "red"}
    state = pretended(lambda request: httpx.Response(200, json=told)).state()
    assert state.models[0].name == "new"


def test_errors_are_sentences(client: SegMedClient, work: Work) -> None:
    with pytest.raises(SegMedError, match="draw a box or click"):
        work.prompt("classical", "liver")
    with pytest.raises(SegMedError) as unknown:
        client.open("nobody")
    assert unknown.value.status == 404
    with pytest.raises(NoServerError, match=r"No server answers at http://127\.0\.0\.1:1 .*segmed serve"):
        SegMedClient("http://127.0.0.1:1").state()
    with pytest.raises(NoServerError, match=r"is no address|No server answers"):
        SegMedClient("no address").state()
    with pytest.raises(NotAllowedError, match="Log in first"):
        pretended(lambda request: httpx.Response(401, json={"detail": "Log in first"})).state()
    with pytest.raises(SegMedError, match="GET /api/state was answered by status 502"):
        pretended(lambda request: httpx.Response(502, text="<html>")).state()

    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with pytest.raises(NoServerError, match="did not answer in time"):
        pretended(slow).state()


def test_a_label_map_of_another_shape_is_not_sent(work: Work) -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 2, 2\].*Paint on the grid"):
        work.paint(np.zeros((2, 2, 2), np.uint8))


def test_the_examples_of_the_interface_are_true(served: Server, client: SegMedClient) -> None:
    """Each body in the description is taken, and each example of an answer has the fields of the real one."""
    told = httpx.get(f"{served.url}/openapi.json").json()
    for path, (body, _, example) in EXAMPLES.items():
        operation = next(iter(told["paths"][path].values()))
        answer = operation["responses"]["200"]["content"]["application/json"]
        assert answer.get("example") == example and answer["schema"]
        if path.endswith(("/segment", "/labelmap")):  # no automatic model is served; a form
            continue
        url = f"{served.url}{path.replace('{image}', 'ct')}"
        if body is None:
            real = httpx.get(url, params={"client": client.name})
        else:
            body = {key: value for key, value in body.items() if key not in ("revision", "boot")}
            real = httpx.post(url, json={**body, "client": client.name}, timeout=60)
        assert real.status_code == 200, (path, real.text)
        if isinstance(example, dict):
            assert real.json().keys() >= example.keys(), path


def test_the_client_needs_nothing_else_of_segmed() -> None:
    """It is copied into other programs, with their Python."""
    allowed = {"__future__", "base64", "collections", "contextlib", "dataclasses", "json", "pathlib", "re"}
    allowed |= {"types", "typing", "urllib", "zlib", "httpx", "numpy"}
    for path in Path(segmed.client.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1 or str(node.module).split(".")[0] in allowed, path
