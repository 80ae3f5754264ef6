"""Phantoms in a PACS as studies, and label maps for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_phantom import phantom_series
from orthanc import Pacs
from segmed.data.phantom import Phantom
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.pacs import PacsStudies
from study_folder import NAMES, SHAPE

INFO = {"label_info": [{"name": name, "idx": 9 - n} for n, name in enumerate(NAMES)], "model": "medsam"}
Place = tuple[Path, Phantom, str]


def label_map(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    i, j, k = (n // 4 for n in shape)
    labels[i : 2 * i, j : 3 * j, k : 2 * k + 1] = 1
    labels[2 * i + 1 :, j : 2 * j, k : 3 * k + 1] = 2
    return labels


def put_series(pacs: Pacs, folder: Path, **how: Any) -> Place:
    """A phantom in the PACS; its folder and the UID of its series."""
    phantom = phantom_series(folder, **{"shape": SHAPE, **how})
    pacs.upload(folder)
    return folder, phantom, str(pydicom.dcmread(folder / "000.dcm").SeriesInstanceUID)


def studies_of(pacs: Pacs, cache: Path, **conf: str) -> PacsStudies:
    settings = DicomwebSettings.from_conf(
        {"dicomweb_cache": str(cache), "dicomweb_list_seconds": "1", **conf}
    )
    return PacsStudies(pacs.url, settings)
