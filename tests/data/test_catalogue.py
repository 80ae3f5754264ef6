"""Every dataset on a miniature tree in its public layout: order, names, channels, patients, and errors."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import segmed.data.slices as slices_module
import segmed.imaging.grid as grid_module
from PIL import Image
from public_layouts import AFFINE, SHAPE, built, datastore, flare, folder, labels, nifti, picture
from segmed.data.checksums import checksums, fingerprint
from segmed.data.datasets.brats import REGIONS
from segmed.data.datasets.catalogue import DATASETS, load_dataset
from segmed.data.datasets.cvc import LAST_FRAMES

PATIENTS = {
    "lgg": ["TCGA_A"] * 2,
    "brats": ["BraTS-GLI-00001", "BraTS-GLI-00003", "BraTS-GLI-00003"],
    "flare22": ["FLARE22_Tr_0002", "FLARE22_Tr_0010"],
    "btcv": ["0002", "0010"],
    "amos": ["amos_0002", "amos_0507"],
    "kvasir-seg": ["b2", "b10"],
    "kvasir-sessile": ["b2", "b10"],
    "cvc-clinicdb": ["sequence 01", "sequence 01", "sequence 02", "sequence 29"],
    "gid5": ["built-up/1", "built-up/2", "farmland/1", "farmland/2"],
    "sirst": ["Misc_1", "Misc_2", "Misc_10"],
    "msd": ["BRATS_001"],
    "folder": ["p1_a", "p1_b", "p2_a"],
    "datastore": ["ct 2", "ct 10"],
}
PICTURES = {"lgg", "kvasir-seg", "kvasir-sessile", "cvc-clinicdb", "gid5", "sirst"}


@pytest.mark.parametrize("name", list(DATASETS))
def test_each_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("voxels are read")

    with monkeypatch.context() as patch:
        patch.setattr(slices_module, "read_volume", forbidden)
        patch.setattr(grid_module, "read_volume", forbidden)
        data = built(name, tmp_path)
    entry = DATASETS[name]
    assert [volume.patient for volume in data.volumes] == PATIENTS[name]
    assert data.skipped == ()
    assert not entry.labels or data.classes == entry.labels
    assert list(data.classes) == list(range(1, len(data.classes) + 1))
    seen = {int(v) for n in range(len(data)) for v in np.unique(data[n].labels)}
    assert seen - {0} == set(data.classes)
    if name in PICTURES:
        assert (data.unit, data[0].spacing, len(data)) == ("px", (1.0, 1.0), len(data.volumes))
    else:
        assert (data.unit, data[0].spacing, len(data)) == ("mm", (0.75, 0.5), 3 * len(data.volumes))
    assert entry.lateralised == () or entry.lateralised == data.lateralised


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder.*Get .* from .* and put there"):
        load_dataset(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        load_dataset(name, tmp_path / "empty")
    (tmp_path / "full").mkdir()
    data = built(name, tmp_path / "full")
    gone = data.volumes[0].image if name == "folder" else data.volumes[0].label
    gone.unlink()
    if name == "datastore":
        assert gone.name in load_dataset(name, tmp_path / "full").skipped[0].reason
        return
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(name, tmp_path / "full")
    said, _, _ = str(error.value).partition("Expected is")
    assert re.search(rf"(^|[ /]){re.escape(gone.name.split('.')[0])}\.", said)


def test_lateralised_labels() -> None:
    both = {"right kidney", "left kidney", "right adrenal gland", "left adrenal gland"}
    assert {name for name, entry in DATASETS.items() if entry.lateralised} == {"flare22", "btcv", "amos"}
    assert all(set(DATASETS[name].lateralised) == both for name in ("flare22", "btcv", "amos"))


def test_unknown_names_and_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no dataset 'lits'. Known are lgg, brats"):
        load_dataset("lits", tmp_path)
    with pytest.raises(ValueError, match="amos has no option 'split'"):
        load_dataset("amos", tmp_path, split=1)
    with pytest.raises(ValueError, match="modality 'US' is neither CT nor MR"):
        built("amos", tmp_path, modality="US")


def test_amos_by_modality(tmp_path: Path) -> None:
    assert built("amos", tmp_path, modality="mr").patients == ["amos_0507"]
    ct = load_dataset("amos", tmp_path, modality="CT")
    assert ct.patients == ["amos_0002"]
    grey = np.asarray(nib.load(ct.volumes[0].image).dataobj)
    outside = np.clip((grey + 160) / 400, 0, 1)[:, :, 0].T * 255
    assert np.abs(ct[0].image - outside).max() <= 1


def test_brats_channels_and_regions(tmp_path: Path) -> None:
    stack = built("brats", tmp_path)
    for channel, part in enumerate(("t1c", "t2w", "t2f")):
        grey = load_dataset("brats", tmp_path, modality=part.upper())
        assert np.array_equal(stack[4].image[..., channel], grey[4].image)
        folder = stack.volumes[1].image.parent
        stored = np.asarray(nib.load(folder / f"{folder.name}-{part}.nii.gz").dataobj)[:, :, 1].T
        assert np.corrcoef(grey[4].image.ravel(), stored.ravel())[0, 1] > 0.999
    for region, values in REGIONS.items():
        one = load_dataset("brats", tmp_path, region=region)
        assert one.classes == {1: region}
        assert np.array_equal(one[0].labels == 1, np.isin(stack[0].labels, values))
    with pytest.raises(ValueError, match="modality 't3' is not one of t1n"):
        load_dataset("brats", tmp_path, modality="t3")


def test_msd_channels(tmp_path: Path) -> None:
    colour = built("msd", tmp_path)
    stored = np.asarray(nib.load(colour.volumes[0].image).dataobj)
    assert colour[0].image.shape == (7, 9, 3)
    for channel in range(3):
        assert (
            np.corrcoef(colour[0].image[..., channel].ravel(), stored[:, :, 0, channel].T.ravel())[0, 1]
            > 0.999
        )
    grey = load_dataset("msd", tmp_path, modality="T2w")
    assert np.corrcoef(grey[1].image.ravel(), stored[:, :, 1, 3].T.ravel())[0, 1] > 0.999
    turned = load_dataset("msd", tmp_path, modality=["t1gd", "T1w", "FLAIR"])
    assert np.array_equal(turned[0].image, colour[0].image[..., ::-1])
    with pytest.raises(ValueError, match="Give one or three of FLAIR, T1w, t1gd, T2w"):
        load_dataset("msd", tmp_path, modality="CT")


def test_jpeg_masks_are_cut_at_half(tmp_path: Path) -> None:
    data = built("kvasir-seg", tmp_path)
    stored = np.asarray(Image.open(data.volumes[0].label))
    assert len(np.unique(stored)) > 2
    assert data[0].labels.sum() == (stored > 127).sum() == 36


def test_cvc_sequences(tmp_path: Path) -> None:
    assert (len(LAST_FRAMES), LAST_FRAMES[-1]) == (29, 612)
    assert list(LAST_FRAMES) == sorted(set(LAST_FRAMES))
    data = built("cvc-clinicdb", tmp_path)
    assert [data[n].image[0, 0, 0] for n in range(4)] == [3, 25, 26, 612 - 512]
    table = tmp_path / "other.csv"
    table.write_text("frame_id,sequence_id\n3,31\n25,30\n26,30\n612,2\n")
    other = load_dataset("cvc-clinicdb", tmp_path, metadata=str(table))
    assert [v.patient for v in other.volumes] == ["sequence 31", "sequence 30", "sequence 30", "sequence 02"]
    table.rename(tmp_path / "metadata.csv").write_text("frame,sequence\n1,2\n")
    with pytest.raises(ValueError, match="does not state the sequences"):
        load_dataset("cvc-clinicdb", tmp_path)
    (tmp_path / "metadata.csv").write_text("frame_id,sequence_id\n3,1\n")
    with pytest.raises(ValueError, match=r"25\.tif is not known"):
        load_dataset("cvc-clinicdb", tmp_path)


def test_gid_counts_what_is_undefined_as_background(tmp_path: Path) -> None:
    data = built("gid5", tmp_path)
    assert data[0].labels[0].tolist() == [1, 2, 3, 4, 5, 0, 1, 2]


def test_sirst_has_its_own_split(tmp_path: Path) -> None:
    data = built("sirst", tmp_path)
    assert data.published is not None
    assert (data.published.train, data.published.test) == (("Misc_10", "Misc_1"), ("Misc_2",))
    assert data.of(data.published.test).published is data.published
    assert [data[n].image.shape for n in range(3)] == [(8, 9), (7, 5, 3), (6, 6, 3)]
    (tmp_path / "idx_427" / "val.txt").write_text("Misc_77\n")
    with pytest.raises(FileNotFoundError, match=r"val\.txt lists Misc_77"):
        load_dataset("sirst", tmp_path)


def test_folder_of_ones_own(tmp_path: Path) -> None:
    data = built("folder", tmp_path, patient="^([^_]+)_")
    assert [v.patient for v in data.volumes] == ["p1", "p1", "p2"]
    assert data.classes == {1: "left lung", 2: "tumour"}
    assert data.lateralised == ("left lung",)
    (tmp_path / "labels" / "p1_a.nii.gz").unlink()
    assert [item.file.name for item in load_dataset("folder", tmp_path).skipped] == ["p1_a.nii.gz"]
    (tmp_path / "labels.json").unlink()
    with pytest.raises(ValueError, match="holds the label 2, but the dataset names only 1"):
        load_dataset("folder", tmp_path)[0]
    with pytest.raises(ValueError, match="does not match the name 'p1_a'"):
        load_dataset("folder", tmp_path, patient="^(x)")
    (tmp_path / "labels.json").write_text('{"lung": "one"}')
    with pytest.raises(ValueError, match="does not name labels"):
        load_dataset("folder", tmp_path)


def test_folder_of_pictures_with_masks(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", np.full((5, 4), 9, np.uint8))
    picture(tmp_path / "labels" / "a.bmp", np.full((5, 4), 255, np.uint8))
    data = load_dataset("folder", tmp_path)
    assert (data.unit, data.classes, data[0].labels.min()) == ("px", {1: "object"}, 1)


def test_datastore_goes_by_names(tmp_path: Path) -> None:
    data = built("datastore", tmp_path)
    assert data.classes == {1: "liver", 2: "spleen"}
    stored = labels(2)
    assert np.array_equal(data.read(0)[1], stored)
    assert np.array_equal(data.read(1)[1], np.choose(stored, [0, 2, 1]))
    one = load_dataset("datastore", tmp_path, labels="tumour,spleen")
    assert one.classes == {1: "tumour", 2: "spleen"}
    assert np.array_equal(one.read(1)[1], np.where(stored == 1, 2, 0))
    by_value = load_dataset("datastore", tmp_path, labels={"spleen": 7})
    assert by_value.classes == {7: "spleen"}
    assert set(np.unique(by_value.read(0)[1])) == {0, 7}
    with pytest.raises(ValueError, match=r"has no label info\. Give the option labels"):
        load_dataset("datastore", tmp_path, tag="original")
    copied = load_dataset("datastore", tmp_path, tag="original", labels=["a", "b"])
    assert np.array_equal(copied.read(1)[1], stored)
    with pytest.raises(FileNotFoundError, match="Submit labels in the viewer first"):
        load_dataset("datastore", tmp_path, tag="version_1")
    with pytest.raises(ValueError, match="different names with different values"):
        load_dataset("datastore", tmp_path, labels={"a": 1, "b": 1})


def test_datastore_checksums(tmp_path: Path) -> None:
    datastore(tmp_path)
    path = tmp_path / "datastore_v2.json"
    facts = json.loads(path.read_text())
    for name in ("ct 2", "ct 10"):
        digest = hashlib.sha256((tmp_path / "labels" / "final" / f"{name}.nii.gz").read_bytes()).hexdigest()
        facts["objects"][name]["labels"]["final"]["info"]["checksum"] = f"SHA256:{digest}"
    path.write_text(json.dumps(facts))
    assert len(load_dataset("datastore", tmp_path, verify=True).volumes) == 2
    nifti(tmp_path / "labels" / "final" / "ct 10.nii.gz", labels(1))
    data = load_dataset("datastore", tmp_path, verify=True)
    assert data.patients == ["ct 2"]
    assert "its checksum differs" in data.skipped[0].reason
    path.write_text('{"objects": {"a": 1}}')
    with pytest.raises(ValueError, match="is not the list of a datastore"):
        load_dataset("datastore", tmp_path)


def test_a_label_map_on_another_grid_is_moved(tmp_path: Path) -> None:
    flare(tmp_path)
    turned = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1.0]])
    nifti(
        tmp_path / "labelsTr" / "FLARE22_Tr_0002.nii.gz",
        np.ascontiguousarray(labels(13)[::-1, :, 1:]),
        turned,
    )
    data = load_dataset("flare22", tmp_path)
    assert data.skipped == ()
    expected = labels(13)
    expected[:, :, 0] = 0
    assert np.array_equal(data.read(0)[1], expected)


def test_what_cannot_be_used_is_skipped_and_named(tmp_path: Path) -> None:
    folder(tmp_path)
    good = tmp_path / "images" / "p1_a.nii.gz"
    cut = nib.Nifti1Image(labels(2), AFFINE)
    for name in ("cut", "shape", "half"):
        (tmp_path / "images" / f"{name}.nii.gz").write_bytes(good.read_bytes())
    nib.save(cut, tmp_path / "labels" / "cut.nii")
    whole = (tmp_path / "labels" / "cut.nii").read_bytes()
    (tmp_path / "labels" / "cut.nii").write_bytes(whole[:-20])  # the header is sound
    nifti(tmp_path / "labels" / "shape.nii.gz", np.zeros((9, 7, 4), np.uint8))
    nifti(tmp_path / "labels" / "half.nii.gz", np.full(SHAPE, 0.5, np.float32))
    data = load_dataset("folder", tmp_path)
    assert [item.patient for item in data.skipped] == ["shape"]
    assert {"cut", "half"} < set(data.patients)
    for part in (data.readable(), data.with_object()):
        assert part.patients == ["p1_a", "p1_b", "p2_a"]
        assert [item.patient for item in part.skipped] == ["shape", "cut", "half"]
        assert "cut.nii cannot be read" in part.skipped[1].reason
        assert "holds the label 0.5" in part.skipped[2].reason
    assert len(data.readable()) == 9
    assert len(data.with_object()) == 6  # the third slices show none of the two labels
    with pytest.raises(ValueError, match=r"None of the 1 images can be used. The first: .*cut\.nii"):
        data.of(["cut"]).readable()


def test_checksums(tmp_path: Path) -> None:
    data = built("brats", tmp_path / "a")
    sums = checksums(data)
    assert len(sums) == 3 * 4
    name = "BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii.gz"
    assert sums[name] == hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest()
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint(checksums(load_dataset("brats", tmp_path / "b"))) == fingerprint(sums)
    part = load_dataset("brats", tmp_path / "b").of(["BraTS-GLI-00001"])
    assert set(checksums(part).items()) < set(sums.items())
    nifti(tmp_path / "b" / name, labels(2))
    assert fingerprint(checksums(load_dataset("brats", tmp_path / "b"))) != fingerprint(sums)
