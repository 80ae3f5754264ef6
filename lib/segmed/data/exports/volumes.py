"""Exports of volumes: nnU-Net v2, Medical Segmentation Decathlon (MSD), and BIDS derivatives.

Sources: nnU-Net's documentation/dataset_format.md; Antonelli et al., The Medical Segmentation Decathlon
(2022); BIDS specification 1.10, derivatives of imaging data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import segmed
from segmed.data.exports.cases import TEST, VALIDATION, Export, write_pair
from segmed.imaging.labels.segments import StoredSegment, colour_of
from segmed.imaging.labels.sidecar import sidecar_text

_DATASET = re.compile(r"Dataset\d{3}_[A-Za-z0-9]+")
_MODALITIES = {"CT": "CT", "MR": "MRI"}
_SUFFIXES = {"CT": "CT", "MR": "MR"}  # which weighting an MR has is not known


def export_nnunet(export: Export) -> None:
    """Write a dataset of nnU-Net v2: `imagesTr`, `labelsTr`, `imagesTs`, `labelsTs`, `dataset.json`.

    nnU-Net wants the values 0, 1, 2, … without gaps, so that labels are numbered anew in the order of their
    values. The validation part is in `splits_final.json`, which nnU-Net reads from its preprocessed folder.

    Args:
        export: The cases, and a new folder with a name such as `Dataset501_Liver`. nnU-Net treats the
            modality `CT` in its own way.

    Raises:
        ValueError: The name of the folder is of another form, or a case cannot be read.
        FileExistsError: The folder is not empty.
    """
    if not _DATASET.fullmatch(export.folder.name):
        raise ValueError(
            f"nnU-Net finds datasets by names such as Dataset501_Liver, not {export.folder.name!r}. Rename "
            "--out."
        )
    folder, classes = export.begin(), export.classes
    numbers = _numbers(classes)
    channel = export.modality or "nonCT"
    for case, image, labels in export.read():
        channel = export.modality or image.modality or channel
        place = "Ts" if case.part == TEST else "Tr"
        write_pair(
            image,
            _renumbered(labels, numbers),
            folder / f"images{place}" / f"{case.name}_0000.nii.gz",
            folder / f"labels{place}" / f"{case.name}.nii.gz",
        )
    training = [case for case in export.cases if case.part != TEST]
    _write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": channel},
            "labels": {"background": 0, **{classes[value]: n for value, n in numbers.items()}},
            "numTraining": len(training),
            "file_ending": ".nii.gz",
            "name": folder.name,
            "description": f"Exported by SegMed {segmed.__version__}",
        },
    )
    held = [case.name for case in training if case.part == VALIDATION]
    if held:
        rest = [case.name for case in training if case.part != VALIDATION]
        _write_json(folder / "splits_final.json", [{"train": rest, "val": held}])


def export_msd(export: Export) -> None:
    """Write a task of the MSD: `imagesTr`, `labelsTr`, `imagesTs` and `dataset.json`.

    Test cases have no labels in this layout. Arguments and errors as in `export_nnunet`, with any name of the
    folder.
    """
    folder, classes = export.begin(), export.classes
    numbers, kind, training, testing = _numbers(classes), export.modality or "unknown", [], []
    for case, image, labels in export.read():
        kind = export.modality or image.modality or kind
        place = "Ts" if case.part == TEST else "Tr"
        image_file = folder / f"images{place}" / f"{case.name}.nii.gz"
        label_file = folder / f"labels{place}" / f"{case.name}.nii.gz"
        write_pair(image, _renumbered(labels, numbers), image_file, label_file)
        if case.part == TEST:
            testing.append(f"./imagesTs/{case.name}.nii.gz")
        else:
            entry = {
                "image": f"./imagesTr/{case.name}.nii.gz",
                "label": f"./labelsTr/{case.name}.nii.gz",
            }
            training.append(entry)
    _write_json(
        folder / "dataset.json",
        {
            "name": folder.name,
            "description": f"Exported by SegMed {segmed.__version__}",
            "tensorImageSize": "3D",
            "modality": {"0": _MODALITIES.get(kind, kind)},
            "labels": {"0": "background", **{str(n): classes[value] for value, n in numbers.items()}},
            "numTraining": len(training),
            "numTest": len(testing),
            "training": training,
            "test": testing,
        },
    )


def export_bids(export: Export) -> None:
    """Write BIDS derivatives: `sub-P/anat/sub-P_run-N_desc-SegMed_dseg.nii.gz` with its table of names.

    The images lie beside the label maps as `desc-source`, because the raw dataset is not known. The split is
    in `participants.tsv`. Arguments and errors as in `export_msd`.
    """
    folder, classes = export.begin(), export.classes
    table = sidecar_text(
        StoredSegment(name, value, 0, value).coloured(colour_of(value))
        for value, name in sorted(classes.items())
    )
    people: dict[str, tuple[str, str]] = {}
    runs: dict[str, int] = {}
    for case, image, labels in export.read():
        subject = re.sub(r"[^A-Za-z0-9]", "", case.patient) or "case"
        who = case.volume.patient
        if people.setdefault(subject, (who, case.part))[0] != who:
            raise ValueError(
                f"The patients {who!r} and {people[subject][0]!r} have the same BIDS name "
                f"{subject!r}, which holds letters and digits only. Rename one of them."
            )
        runs[subject] = runs.get(subject, 0) + 1
        kind = _SUFFIXES.get(export.modality or image.modality, "image")
        stem = folder / f"sub-{subject}" / "anat" / f"sub-{subject}_run-{runs[subject]}"
        mask = stem.with_name(f"{stem.name}_desc-SegMed_dseg.nii.gz")
        source = stem.with_name(f"{stem.name}_desc-source_{kind}.nii.gz")
        write_pair(image, labels, source, mask)
        name = mask.name.removesuffix(".nii.gz")
        mask.with_name(f"{name}.tsv").write_text(table, encoding="utf-8")
        facts = {"Manual": True, "Sources": [f"bids::{source.relative_to(folder).as_posix()}"]}
        _write_json(mask.with_name(f"{name}.json"), facts)
    lines = ["participant_id\tsplit", *(f"sub-{s}\t{part}" for s, (_, part) in sorted(people.items()))]
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(
        folder / "dataset_description.json",
        {
            "Name": folder.name,
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "SegMed", "Version": segmed.__version__}],
        },
    )


def _numbers(classes: Mapping[int, str]) -> dict[int, int]:
    return {value: n for n, value in enumerate(sorted(classes), 1)}


def _renumbered(labels: np.ndarray, numbers: Mapping[int, int]) -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for value, number in numbers.items():
        table[value] = number
    return np.asarray(table[labels])


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
