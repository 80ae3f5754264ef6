"""3D Slicer's MONAI Label module against the real server: cases from Next Sample to Submit Label, and
training."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import phantom_series
from running import Server, Start
from segmed.data.datastore import load_datastore
from segmed.data.phantom import Phantom
from slicer_client import Shown, Slicer
from slicer_fixtures import IMAGES, NAMES, K, dice_in_the_patient, inside, roi_around, same_grid, slab, truth


@pytest.fixture(scope="module")
def viewers(slicer_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Slicer]:
    """Three users who pressed *Next Sample*, by the image that each of them got."""
    found = {}
    for user in ("dr-1", "dr-2", "dr-3"):
        slicer = Slicer(slicer_server.url, tmp_path_factory.mktemp(user), user)
        slicer.connect()
        slicer.next_sample(next(iter(slicer.info["strategies"])))
        found[slicer.sample["id"]] = slicer
    assert set(found) == set(IMAGES)  # nobody got the image of another
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_a_case_from_next_sample_to_submission(
    viewers: dict[str, Slicer], slicer_server: Server, bodies: dict[str, Phantom], phantom: Phantom, name: str
) -> None:
    slicer, body = viewers[name], bodies[name]
    world = (
        body if name == "oblique" else phantom
    )  # turned grids are checked on the grid before they were turned
    assert same_grid(slicer.image, sitk.ReadImage(str(slicer_server.studies / f"{name}.nii.gz")))
    assert list(slicer.segments) == NAMES
    assert slicer.label == "liver"
    slicer.connect()
    before = slicer.info["datastore"]["completed"]

    # a box on one slice
    liver = truth(body, "liver")
    slicer.roi, slicer.red = roi_around(slicer, slab(liver)), slicer.ras([40, 40, K])[2]
    slicer.update("segmed")
    i0, i1, j0, j1, k0, k1 = slicer.sent["roi"]
    assert (i0 < i1, j0 < j1) == ((True, True) if name == "ras" else (False, False))
    assert (k0, k1) == (K, K)
    assert slicer.sent["slice"] != K  # in mm
    assert "reset_state" not in slicer.sent
    assert slicer.told["label_names"] == {"liver": 1}
    assert same_grid(slicer.answer, slicer.image)
    assert np.flatnonzero(slicer.segments["liver"].mask.any((0, 1))).tolist() == [K]
    assert dice_in_the_patient(slicer.answer, slab(truth(world, "liver")), world.affine) > 0.85

    # clicks, for another segment
    spleen = truth(body, "spleen")
    slicer.roi = None
    slicer.choose("spleen")
    slicer.click(slicer.ras(inside(spleen)), "segmed")
    assert slicer.sent["reset_state"] is True
    assert slicer.sent["slice"] == K
    assert slicer.sent["foreground"] == [[int(v) for v in inside(spleen)]]
    slicer.click(slicer.ras(inside(truth(body, "aorta"))), "segmed", positive=False)
    assert "reset_state" not in slicer.sent
    assert len(slicer.sent["background"]) == 1
    assert dice_in_the_patient(slicer.answer, slab(truth(world, "spleen")), world.affine) > 0.8
    assert slicer.segments["liver"].mask.any()

    # the volume, from a box of several slices
    kidney = truth(body, "kidney right")
    slicer.choose("kidney right")
    slicer.roi = roi_around(slicer, kidney)
    slicer.update("segmed_3d")
    assert "slice" not in slicer.sent
    assert dice_in_the_patient(slicer.answer, truth(world, "kidney right"), world.affine) > 0.7
    slicer.choose("liver")
    slicer.roi = roi_around(slicer, liver)
    slicer.update("classical_3d")
    assert dice_in_the_patient(slicer.answer, truth(world, "liver"), world.affine) > 0.7

    # what is saved has the values 1, 2, 3, but idx counts the segments that are not saved too
    masks = {n: slicer.segments[n].mask.copy() for n in NAMES}
    empty = slicer.segments["liver"].mask
    slicer.segments = {"liver": slicer.segments["liver"], "background": slicer.segment_of("background")}
    for n in ("spleen", "background_scribbles", "foreground_scribbles", "kidney right"):
        slicer.segment_of(n).mask = masks.get(n, np.ones_like(empty)).copy()
    told = slicer.submit("lora")
    assert told == {"image": name, "label": name}
    assert slicer.info["datastore"]["completed"] == before + 1
    info = slicer_server.client.datastore()["objects"][name]["labels"]["final"]["info"]
    assert info["label_info"] == [{"name": n, "idx": x} for n, x in zip(NAMES, (1, 3, 6), strict=True)]
    assert info["client_id"] == slicer.user
    volume = next(v for v in load_datastore(slicer_server.studies, labels=NAMES).volumes if v.patient == name)
    assert volume.values == {1: 1, 2: 2, 3: 3}  # so training finds each structure under its own name

    again = Slicer(slicer_server.url, slicer.folder, "reviewer")
    again.connect()
    again.load(slicer_server.studies / f"{name}.nii.gz", name)
    again.reopen("final", [entry["name"] for entry in info["label_info"]])
    overlap = sum(m.astype(int) for m in masks.values()) > 1
    for n in NAMES:
        assert (again.segments[n].mask == masks[n])[~overlap].all()
        assert again.segments[n].mask.any()
    assert slicer_server.left_behind() == []


def _submit_all(viewers: dict[str, Slicer], bodies: dict[str, Phantom]) -> None:
    for name, slicer in viewers.items():
        slicer.segments = {}
        for n in NAMES:
            slicer.segment_of(n).mask = truth(bodies[name], n)
        slicer.submit()


def test_when_all_are_labelled_nothing_is_next(
    viewers: dict[str, Slicer], bodies: dict[str, Phantom], slicer_server: Server, tmp_path: Path
) -> None:
    _submit_all(viewers, bodies)
    slicer = Slicer(slicer_server.url, tmp_path, "dr-4")
    slicer.connect()
    assert slicer.info["datastore"]["completed"] == slicer.info["datastore"]["total"] == len(IMAGES)
    with pytest.raises(Shown, match="Unlabeled samples or images not found"):
        slicer.next_sample("sequential")


def test_an_original_label_comes_with_the_sample(
    viewers: dict[str, Slicer], slicer_server: Server, bodies: dict[str, Phantom], tmp_path: Path
) -> None:
    """Its names are the keys of `label_names`, in the order of the values."""
    names = {"spleen": 1, "liver": 2}
    labels = sum(v * truth(bodies["ras"], n).astype(np.uint8) for n, v in names.items())
    nib.save(nib.Nifti1Image(labels, bodies["ras"].affine), tmp_path / "before.nii.gz")
    told = {"params": {"label_names": names}}
    slicer_server.client.save_label("ras", str(tmp_path / "before.nii.gz"), "original", told)
    slicer = viewers["ras"]
    for n in NAMES:
        slicer.segment_of(n).mask[:] = False
    slicer._load_original()
    for n in names:
        assert (slicer.segments[n].mask == truth(bodies["ras"], n)).all()


def test_automatic_models_name_their_values(own_volume: Slicer) -> None:
    own_volume.info["models"]["lora"]["config"]["window"].insert(0, "ct-lung")
    own_volume.segment("lora")
    assert own_volume.sent["window"] == "ct-lung"
    assert set(own_volume.sent) - {"result_extension", "result_dtype", "client_id"} == set(
        own_volume.info["models"]["lora"]["config"]
    )
    assert own_volume.told["label_names"] == {name: n for n, name in enumerate(NAMES, 1)}
    values = sitk.GetArrayFromImage(own_volume.answer).T
    for n, name in enumerate(NAMES, 1):
        assert (own_volume.segments[name].mask == (values == n)).all()
    assert set(np.unique(values)) <= {0, 1, 2, 3}


@pytest.mark.parametrize("model", ["segmed_scribbles", "segmed_scribbles_3d"])
def test_scribbles_find_the_object_and_correct_it(
    own_volume: Slicer, bodies: dict[str, Phantom], model: str
) -> None:
    body = bodies["lps"]
    liver, spleen = truth(body, "liver"), truth(body, "spleen")
    own_volume.segment_of("spleen").mask = spleen.copy()
    with pytest.raises(
        Shown, match=r"Failed to post process label.*\nMessage: Status: 400.*foreground brush"
    ):
        own_volume.scribble(model)
    i, j, _ = (int(v) for v in inside(liver))
    own_volume.segment_of("background_scribbles")
    own_volume.segment_of("foreground_scribbles").mask[i - 4 : i + 5, j, K] = True
    own_volume.scribble(model)
    assert own_volume.sent["roi"] == []
    assert [entry["id"] for entry in own_volume.sent["label_info"]] == [1, 2, 3, 4, 5]
    assert own_volume.sent["selected_label_name"] == "liver"
    assert same_grid(own_volume.answer, own_volume.image)
    wanted = liver if model.endswith("_3d") else slab(liver)
    assert dice_in_the_patient(own_volume.answer, wanted, body.affine) > 0.3
    assert (own_volume.segments["spleen"].mask == spleen).all()
    # a stroke beside it takes away what is there
    found = own_volume.segments["liver"].mask.copy()
    i, j = (int(v) for v in np.argwhere(found[:, :, K])[0])
    own_volume.segment_of("background_scribbles").mask[i : i + 2, j, K] = True
    own_volume.scribble(model)
    assert not own_volume.segments["liver"].mask[i : i + 2, j, K].any()
    assert own_volume.segments["liver"].mask[:, :, K].sum() > found[:, :, K].sum() / 2


def test_dicom_series_come_as_volumes_and_their_labels_go_back_as_dicom(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    studies = tmp_path_factory.mktemp("dicom")
    series = {f"phantom-{p}": phantom_series(studies / p, p) for p in ("sagittal", "oblique")}
    server = start(studies, "--conf", "models", "segmed", "--conf", "labels", "liver")
    slicer = Slicer(server.url, tmp_path_factory.mktemp("viewer"))
    slicer.connect()
    for done in (1, 2):
        slicer.next_sample("sequential")
        assert slicer.sample["modality"] == "CT"
        body = series.pop(slicer.sample["PatientID"])
        assert np.allclose(np.abs(slicer.affine[:3, :3]), np.abs(body.affine[:3, :3]), atol=1e-3)
        step = (
            -1 if slicer.affine[:3, 2] @ body.affine[:3, 2] < 0 else 1
        )  # slices are sorted along their normal
        liver = truth(body, "liver")[:, :, ::step]
        flat = liver & (np.arange(liver.shape[2]) == liver.sum((0, 1)).argmax())
        slicer.roi = roi_around(slicer, flat)
        slicer.update("segmed")
        assert dice_in_the_patient(slicer.answer, flat[:, :, ::step], body.affine) > 0.85
        slicer.submit()
        assert slicer.info["datastore"]["completed"] == done
        info = server.client.datastore()["objects"][slicer.sample["id"]]["labels"]["final"]["info"]
        assert info["seg_sop"]
        mask = slicer.segments["liver"].mask.copy()
        slicer.reopen("final", ["liver"])
        assert (slicer.segments["liver"].mask == mask).all()
    assert all(
        path.suffix == ".dcm" for path in server.left_behind()
    )  # the series themselves are kept for a while


def test_training_moves_the_bars_and_stops(
    viewers: dict[str, Slicer], bodies: dict[str, Phantom], slicer_server: Server, tmp_path: Path
) -> None:
    _submit_all(viewers, bodies)
    slicer = Slicer(slicer_server.url, tmp_path)
    slicer.connect()
    quick = {"epochs": 40, "epoch_steps": 1, "patience": 40, "learning_rate": 1e-3}
    assert slicer.train("lora", **quick)["status"] in ("SUBMITTED", "RUNNING")
    with pytest.raises(Shown, match=r"Message: Status: 429.*is being trained"):
        slicer.train("segmed")
    seen = [0.0]
    deadline = time.monotonic() + 240
    while seen[-1] <= 1:  # of 100; it has moved when the first pass is done
        assert time.monotonic() < deadline
        seen.append(slicer.training_progress() or seen[-1])
        time.sleep(0.2)
    assert seen == sorted(seen)
    assert 0 <= slicer.accuracy() <= 100
    assert slicer.stop_training()  # the module writes the last of the details
    slicer.connect()
