"""What the list of images tells of each one, and names of files that users take home."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from monailabel.interfaces.datastore import Datastore

from segmed.server.datastores.studies import FINAL

_LONGEST_PART = 40  # letters of each part of a file name


def list_entry(
    store: Datastore, image: str, labelled: Collection[str], unsaved: Collection[str]
) -> dict[str, Any]:
    """An image as one row of the list.

    Args:
        store: Datastore with the image.
        image: Identifier of the image.
        labelled: Images with a final label.
        unsaved: Images on which the user has unsaved work.

    Returns:
        JSON values. Facts that are not known, or not to be shown, are "" or 0.
    """
    info = store.get_image_info(image)
    label = store.get_label_info(image, FINAL) if image in labelled else {}
    return {
        "id": image,
        "name": str(info.get("description") or image),
        "modality": str(info.get("modality") or info.get("Modality") or ""),
        "date": _day(info),
        "patient": str(info.get("PatientName") or ""),
        "patient_id": str(info.get("PatientID") or ""),
        "slices": int(info.get("slices") or 0),
        "labelled": image in labelled,
        "labelled_by": str(label.get("client_id") or "")[:100],
        "unsaved": image in unsaved,
    }


def download_name(info: Mapping[str, Any], image: str, kind: str, extension: str) -> str:
    """A file name by which a person recognises patient and study, without signs that file systems refuse.

    Args:
        info: What is known of the image; without patient and series, its identifier is the name.
        image: Identifier of the image.
        kind: What the file holds, such as `nifti` or `seg`.
        extension: Extension of the file with its dot.
    """
    patient = str(info.get("PatientID") or info.get("PatientName") or "")
    parts = [patient, _day(info), str(info.get("description") or "")]
    if not info.get("SeriesInstanceUID"):
        parts = [image]
    words = [word for part in (*parts, kind) if (word := _plain(part))]
    return "-".join(words) + extension


def attachment(name: str) -> str:
    """The header Content-Disposition of a file name in any alphabet (RFC 6266)."""
    plain = "".join(c if c.isascii() else "_" for c in name)
    more = "" if plain == name else f"; filename*=UTF-8''{quote(name)}"
    return f'attachment; filename="{plain}"{more}'


def _day(info: Mapping[str, Any]) -> str:
    """The date of the study as YYYY-MM-DD, as far as it is one."""
    day = str(info.get("StudyDate") or info.get("date") or "")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 and day.isdecimal() else day


def _plain(text: str) -> str:
    words = "".join(
        c if c.isalnum() or c in "-." else " " for c in unicodedata.normalize("NFC", text)
    ).split()
    return "_".join(words)[:_LONGEST_PART].strip("-_.")
