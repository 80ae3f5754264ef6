"""What `--conf` and the environment say of a PACS and of DICOM folders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

_MIB = 2**20
_DEFAULT = ("CT", "MR", "US", "CR", "DX", "XA", "MG")
# what no image can be made of
NO_IMAGES = frozenset(
    [
        "AU",
        "DOC",
        "ECG",
        "FID",
        "KO",
        "PLAN",
        "PR",
        "REG",
        "RTDOSE",
        "RTPLAN",
        "RTRECORD",
        "RTSTRUCT",
        "SEG",
        "SR",
    ]
)


@dataclass(frozen=True)
class DicomwebSettings:
    """Settings of studies that are DICOM, see `KEYS` for their names in `--conf`.

    Attributes:
        modalities: that are listed.
        filter: further search keys of DICOMweb and their values.
        list_seconds: s that a list of the PACS is believed.
        cache: folder of fetched series and of labels.
        cache_bytes: of fetched series on disk.
        ca: certificates that are trusted, a PEM file; None for those of the system.
        certificate: client certificate with its key, a PEM file.
        show_patient: whether clients are told names and IDs of patients.
        user: name and password, which come from the environment only; None for none.
    """

    modalities: tuple[str, ...] = _DEFAULT
    filter: Mapping[str, str] = field(default_factory=dict)
    list_seconds: float = 15.0
    cache: Path = Path("~/.local/share/segmed/pacs")
    cache_bytes: int = 8192 * _MIB
    ca: Path | None = None
    certificate: Path | None = None
    user: tuple[str, str] | None = field(default=None, repr=False)
    show_patient: bool = True

    KEYS: ClassVar[Mapping[str, str]] = {
        "modalities": f"DICOM modalities that are listed, with commas, {','.join(_DEFAULT)}",
        "dicomweb_filter": 'further search keys as JSON, such as {"StudyDate": "20260101-"}',
        "dicomweb_list_seconds": "that a list of the PACS is believed, 15",
        "dicomweb_cache": "folder for fetched series and labels, if not ~/.local/share/segmed/pacs",
        "dicomweb_cache_mb": "disk for fetched series, in MiB, 8192; those used last stay",
        "dicomweb_ca": "PEM file of certificates that the PACS may show, if the system does not know its own",
        "dicomweb_certificate": "PEM file of a client certificate and its key",
        "show_patient": "no hides names and IDs of patients in lists, file names and answers; yes",
    }

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> DicomwebSettings:
        """Read and check `--conf` values; name and password come from MONAI_LABEL_DICOMWEB_USERNAME and
        …_PASSWORD.

        Raises:
            ValueError: a value that is not understood.
            FileNotFoundError: a certificate is not there.
        """
        given = conf.get("modalities", ",".join(cls.modalities)).upper().split(",")
        modalities = tuple(dict.fromkeys(word.strip() for word in given if word.strip()))
        if wrong := [m for m in modalities if m in NO_IMAGES or not m.isalnum() or len(m) > 16]:
            raise ValueError(f"--conf modalities: {wrong[0]!r} is no modality of images. Give such as CT,MR.")
        if not modalities:
            raise ValueError("--conf modalities is empty. Give such as CT,MR.")
        seconds = conf.get("dicomweb_list_seconds", "15")
        if not seconds.isdecimal() or not 0 < int(seconds) <= 3600:
            raise ValueError(
                f"--conf dicomweb_list_seconds {seconds!r} must be a whole number from 1 to 3600."
            )
        space = conf.get("dicomweb_cache_mb", "8192")
        if not space.isdecimal() or int(space) < 1:
            raise ValueError(f"--conf dicomweb_cache_mb {space!r} must be a whole number above 0.")
        name, password = (
            os.environ.get(f"MONAI_LABEL_DICOMWEB_{part}", "") for part in ("USERNAME", "PASSWORD")
        )
        if bool(name) != bool(password):
            raise ValueError(
                "Set both MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD, or neither."
            )
        return cls(
            modalities,
            _filter(conf.get("dicomweb_filter", "")),
            float(seconds),
            Path(conf.get("dicomweb_cache") or cls.cache).expanduser(),
            int(space) * _MIB,
            _pem("dicomweb_ca", conf),
            _pem("dicomweb_certificate", conf),
            (name, password) if name else None,
            _yes("show_patient", conf.get("show_patient", "yes")),
        )


def _yes(key: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(f"--conf {key} {value!r} must be yes or no.")
    return value == "yes"


def check_url(url: str) -> str:
    """The address of a PACS without a slash at its end.

    Raises:
        ValueError: it is none, or holds a password, which others on the machine could read.
    """
    parts = urlsplit(url.strip())
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
        raise ValueError(
            "--studies must be the plain DICOMweb address of the PACS, such as "
            "http://127.0.0.1:8042/dicom-web. Set name and password by MONAI_LABEL_DICOMWEB_USERNAME and "
            "MONAI_LABEL_DICOMWEB_PASSWORD."
        )
    return url.strip().rstrip("/")


def _filter(text: str) -> dict[str, str]:
    form = 'must be JSON such as {"StudyDate": "20260101-"}.'
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f"--conf dicomweb_filter {form}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str | int) for value in found.values()):
        raise ValueError(f"--conf dicomweb_filter {form}")
    if "Modality" in found:
        raise ValueError(
            "--conf dicomweb_filter: modalities have an option of their own, --conf modalities CT,MR."
        )
    return {str(key): str(value) for key, value in found.items()}


def _pem(key: str, conf: Mapping[str, str]) -> Path | None:
    if not conf.get(key):
        return None
    path = Path(conf[key]).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--conf {key} {conf[key]!r} is not there. Give a PEM file.")
    return path
