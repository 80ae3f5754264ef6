"""Prompts in coronal and sagittal planes, interpolation between slices, and surfaces."""

from __future__ import annotations

import base64
import zlib

import nibabel as nib
import numpy as np
import pytest
import requests
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.surface import surface_mesh
from watching_client import Client

AXES = {"sagittal": 0, "coronal": 1}


@pytest.fixture(scope="module")
def liver(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == 1)


def _slice_of(mask: np.ndarray, axis: int) -> int:
    """The slice across an axis that shows most of a mask."""
    return int(mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax())


def _box(mask: np.ndarray, axis: int, n: int) -> list[int]:
    """The box [i0, i1, j0, j1, k0, k1] of a mask on a slice."""
    only = np.zeros_like(mask)
    np.moveaxis(only, axis, 0)[n] = np.moveaxis(mask, axis, 0)[n]
    at = np.argwhere(only)
    return [int(v) for pair in zip(at.min(0), at.max(0), strict=True) for v in pair]


@pytest.mark.parametrize("plane", AXES)
def test_a_box_in_another_plane_is_segmented_there(client: Client, liver: np.ndarray, plane: str) -> None:
    axis = AXES[plane]
    assert client.meta["planes"] == {"sagittal": 0, "coronal": 1, "axial": 2}
    n = _slice_of(liver, axis)
    told = client.prompt(plane=plane, box=_box(liver, axis, n))
    found = client.labels == 1
    touched = np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis})))
    assert touched.tolist() == [n]
    wanted = np.zeros_like(liver)
    np.moveaxis(wanted, axis, 0)[n] = np.moveaxis(liver, axis, 0)[n]
    assert Overlap.of(found, wanted).dice() > 0.75
    assert told["prompt"]["box"] == _box(liver, axis, n)
    assert (client.labels == client.there()).all()


def test_contours_in_several_planes_add_up(client: Client, liver: np.ndarray) -> None:
    k, j = _slice_of(liver, 2), _slice_of(liver, 1)
    client.prompt(box=_box(liver, 2, k))
    axial = client.labels.copy()
    client.prompt(plane="coronal", box=_box(liver, 1, j))
    both = client.labels.copy()
    rest = np.arange(liver.shape[1]) != j
    assert (both[:, rest] == axial[:, rest]).all()
    assert both[:, j].sum() > axial[:, j].sum()
    client.do("undo")
    assert (client.labels == axial).all()


def test_a_correction_in_another_plane_is_followed(client: Client, liver: np.ndarray) -> None:
    """A click beside the object in a coronal slice changes a 3-D mask around it, and nothing far away."""
    k = _slice_of(liver, 2)
    client.prompt("segmed_3d", box=_box(liver, 2, k))
    before = client.labels.copy()
    j = _slice_of(before == 1, 1)
    i, kk = np.argwhere(before[:, j] == 1)[0]
    client.prompt("segmed_3d", plane="coronal", background=[[int(i), j, int(kk)]])
    after = client.labels
    changed = np.argwhere(after != before)
    assert after[i, j, kk] == 0
    assert len(changed) > 1
    assert (before == 1).sum() / 2 < (after == 1).sum()
    assert (client.labels == client.there()).all()


def test_scribbles_and_lassos_in_another_plane(client: Client, liver: np.ndarray) -> None:
    j = _slice_of(liver, 1)
    i0, i1, _, _, k0, k1 = _box(liver, 1, j)
    corners = [[i0, k0], [i1, k0], [i1, k1], [i0, k1]]
    client.prompt(plane="coronal", lasso={"k": j, "points": corners})
    found = client.labels == 1
    assert np.flatnonzero(found.any(axis=(0, 2))).tolist() == [j]
    assert Overlap.of(found[:, j], liver[:, j]).dice() > 0.7
    i, k = (int(v) for v in np.argwhere(~liver[:, j] & ~found[:, j])[0])
    stroke = {"k": j, "foreground": True, "points": [[i, k], [i + 3, k]], "width": 2}
    client.prompt(plane="coronal", scribbles=[stroke])
    assert (client.labels[i : i + 4, j, k] == 1).all()


def test_axial_boxes_do_not_fit_coronal_planes(client: Client, liver: np.ndarray) -> None:
    flat = _box(liver, 2, _slice_of(liver, 2))
    answer = client.post("prompt", model="segmed", label="liver", plane="coronal", box=flat)
    assert answer.status_code == 400
    assert "The box is empty" in answer.json()["detail"]


def test_partial_masks_of_other_planes(client: Client, liver: np.ndarray) -> None:
    box = [
        int(v)
        for pair in zip(*(f(np.argwhere(liver), 0) for f in (np.min, np.max)), strict=True)
        for v in pair
    ]
    lines = list(client.watch("prompt", model="segmed_3d", plane="coronal", box=box, refinement="crf"))
    shown = [change for line in lines[:-1] for change in line["changes"]]
    assert {change["axis"] for change in shown} == {1}
    assert (client.labels == client.there()).all()
    assert Overlap.of(client.labels == 1, liver).dice() > 0.6


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_slices_between_drawn_ones_are_filled(client: Client, liver: np.ndarray, plane: str) -> None:
    axis = {"axial": 2, **AXES}[plane]
    n = _slice_of(liver, axis)
    drawn = (n - 2, n + 2)
    for at in drawn:
        client.prompt("classical", plane=plane, box=_box(liver, axis, at))
        client.do("accept")
    told = client.do("interpolate", label="liver", plane=plane)
    found = np.moveaxis(client.labels == 1, axis, 0)
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == list(range(n - 2, n + 3))
    middle = Overlap.of(found[n], np.moveaxis(liver, axis, 0)[n]).dice()
    assert middle > 0.75
    assert told["can_undo"]
    again = client.post("interpolate", label="liver", plane=plane)
    assert again.status_code == 400
    assert "no slice between" in again.json()["detail"]
    client.do("interpolate", label="liver", plane=plane, between=list(drawn))
    assert (client.labels == client.there()).all()
    i, j, k = (int(v) for v in np.insert(np.argwhere(found[n])[9], axis, n))
    data = base64.b64encode(zlib.compress(b"\2")).decode()
    client.do("paint", label="spleen", changes=[{"k": k, "i": [i, i + 1], "j": [j, j + 1], "data": data}])
    over = {"label": "liver", "plane": plane, "between": list(drawn), "overwrite": True}
    client.do("interpolate", **over, locked=["spleen"])
    assert client.labels[i, j, k] == 2
    client.do("interpolate", **over)
    assert client.labels[i, j, k] == 1
    refused = client.post("interpolate", **over, locked=["liver"])
    assert refused.status_code == 400 and "liver is locked" in refused.json()["detail"]
    wrong = client.post("interpolate", label="liver", plane=plane, between=[0, n])
    assert "Slice 0 does not show liver" in wrong.json()["detail"]


def test_the_surface_of_a_label(client: Client, liver: np.ndarray, phantom: Phantom) -> None:
    empty = requests.get(
        f"{client.url}/surface.gii", params={"client": client.name, "name": "liver"}, timeout=60
    )
    assert empty.status_code == 400
    assert "nothing to show in 3-D" in empty.json()["detail"]
    client.prompt("classical_3d", box=_box(liver, 2, _slice_of(liver, 2)))
    answer = requests.get(
        f"{client.url}/surface.gii", params={"client": client.name, "name": "liver"}, timeout=60
    )
    mesh = nib.gifti.GiftiImage.from_bytes(answer.content)
    vertices, faces = (array.data for array in mesh.darrays)
    wanted = surface_mesh(client.labels == 1, np.array(client.meta["affine"]))
    assert np.allclose(vertices, wanted[0], atol=1e-3)
    assert (faces == wanted[1]).all()
