"""Loads the datastore of MONAI Label: the images that users have labelled through the server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.data.checksums import file_checksum
from segmed.data.pairs import is_picture, natural, open_volumes, patient_of, read_json
from segmed.data.slices import LabelledVolume, Skipped, SliceDataset
from segmed.dicom.files import DicomFiles
from segmed.imaging.labels.names import stored_names

LAYOUT = "the studies folder of a server: images, datastore_v2.json, and labels/final/<id>.nii.gz."

LIST = "datastore_v2.json"


def load_datastore(
    folder: str | os.PathLike[str],
    tag: str = "final",
    labels: Mapping[str, int] | Sequence[str] | str = (),
    patient: str = "",
    verify: bool = False,
    images: Mapping[str, Path] | None = None,
    patients: Mapping[str, str] | None = None,
) -> SliceDataset:
    """All slices of the images that have a label map; images without one are not part of the dataset.

    The meaning of a value may differ from image to image, so labels are matched by name. The server notes
    them when it takes a label map (`segments`); where it has not, values are 1, 2, … in the order of the
    label info, or as stated in a table beside the label map.

    Args:
        folder: Folder of the studies.
        tag: Tag of the label maps to load.
        labels: Label names in the order of their values, or values by name; other structures become
            background. If empty, all structures that label infos name are taken, in order of appearance.
            Label maps without info, such as copied ones, are assumed to hold these values, and skipped if
            none are given.
        patient: Regular expression whose first group is the patient in an image id; "" makes each image a
            patient.
        verify: Whether to compare the files with the checksums that the datastore states, if any; this reads
            all of them.
        images: Folders of the wanted DICOM series by image id; None finds them in the folder.
        patients: Patient of each image by image id, where the datastore's list does not name the patient; for
            DICOM series in the folder, the headers do.

    Raises:
        FileNotFoundError: There is no datastore, or none of its images is labelled.
        ValueError: The list cannot be read, or no pair can be used.
    """
    root = Path(folder)
    if not (root / LIST).is_file():
        raise FileNotFoundError(f"{root} has no {LIST}. Give {LAYOUT}")
    facts = read_json(root / LIST)
    try:
        names = [name for name, entry in facts["objects"].items() if tag in entry["labels"]]
        if images is None:
            images, owners = _series(
                root, [name for name in names if not facts["objects"][name]["image"]["ext"]]
            )
            patients = {**owners, **(patients or {})}
        else:
            names = [name for name in names if name in images]
        pairs = [_Pair.of(root, facts, tag, name, images.get(name)) for name in names]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{root / LIST} is not the list of a datastore ({type(error).__name__}: {error}). Start the "
            "server once on this folder, which rewrites it."
        ) from error
    if not pairs:
        raise FileNotFoundError(
            f"No image in {root} has a label map {tag!r}. Submit labels in the viewer first."
        )
    pairs.sort(key=lambda pair: natural(pair.name))
    wanted = _numbered(labels)
    appearing: dict[str, str] = {}
    for name in (name for pair in pairs for name in pair.names.values()):
        appearing.setdefault(name.casefold(), name)
    named = wanted or _numbered(list(appearing.values()))
    volumes, skipped = [], []
    for pair in pairs:
        who = patient_of(pair.name, patient) if patient else (patients or {}).get(pair.name, pair.name)
        reason = (
            "" if pair.names or wanted else f"{pair.label.name} has no label info. Give the option labels."
        )
        if verify and not reason:
            reason = next(filter(None, map(_change, (pair.image, pair.label), pair.stated)), "")
        if reason:
            skipped.append(Skipped(who, pair.label, reason))
        else:
            volumes.append(
                LabelledVolume(
                    who, pair.image, pair.label, values=_values(pair.names, named), image_id=pair.name
                )
            )
    flat = all(is_picture(volume.image) for volume in volumes)
    classes = {value: name for name, value in named.items()}
    return open_volumes(volumes, classes, "px" if flat else "mm", skipped=skipped)


@dataclass(frozen=True)
class _Pair:
    """An entry of the list: files, names by stored value, and checksums, "" where none are stated."""

    name: str
    image: Path
    label: Path
    names: Mapping[int, str]
    stated: tuple[str, str]

    @classmethod
    def of(cls, root: Path, facts: Mapping[str, Any], tag: str, name: str, series: Path | None) -> _Pair:
        image, label = facts["objects"][name]["image"], facts["objects"][name]["labels"][tag]
        infos = [entry.get("info") or {} for entry in (image, label)]
        file = root / facts.get("labels_dir", "labels") / tag / f"{name}{label['ext']}"
        return cls(
            name,
            series or root / facts.get("images_dir", "") / f"{name}{image['ext']}",
            file,
            _names(infos[1], file),
            (str(infos[0].get("checksum", "")), str(infos[1].get("checksum", ""))),
        )


def _series(root: Path, names: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Temporary folders of the DICOM series that lie scattered below the folder, and their patients."""
    if not names:
        return {}, {}
    files = DicomFiles(root)
    owners = {name: files.series()[name].facts.owner for name in names if name in files.series()}
    return {name: files.folder_of(name) for name in owners}, owners


def _numbered(labels: Mapping[str, int] | Sequence[str] | str) -> dict[str, int]:
    if isinstance(labels, str):
        labels = [part.strip() for part in labels.split(",") if part.strip()]
    given = (
        dict(labels) if isinstance(labels, Mapping) else {name: n for n, name in enumerate(labels, start=1)}
    )
    wrong = {name: value for name, value in given.items() if not 1 <= value <= 255}
    if wrong or len(set(given.values())) < len(labels):
        raise ValueError(f"labels {dict(given)} must be different names with different values from 1 to 255.")
    return given


def _names(info: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Names by stored value."""
    if segments := info.get("segments"):
        return {int(item["value"]): str(item["name"]).strip() for item in segments}
    if order := info.get("label_info"):
        return {n: str(item["name"]).strip() for n, item in enumerate(order, 1)}
    try:
        return dict(stored_names(file))
    except (ValueError, OSError):  # what cannot be read is skipped for that later
        return {}


def _values(names: Mapping[int, str], labels: Mapping[str, int]) -> dict[int, int]:
    """Labels of the dataset by stored value."""
    if not names:
        return {value: value for value in labels.values()}
    known = {name.casefold(): value for name, value in labels.items()}
    return {n: known.get(name.casefold(), 0) for n, name in names.items()}


def _change(path: Path, stated: str) -> str:
    """Why a file does not match its stated checksum, such as `SHA256:…`; "" if it does, or has none."""
    kind, _, digest = stated.partition(":")
    if not digest or not path.is_file() or file_checksum(path, kind) == digest.lower():
        return ""
    return f"{path.name} is not the file in the datastore's list: its checksum differs. Submit it again."
