"""OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from typing import Any


def openvino() -> Any:
    """The module `openvino`, which sends nothing.

    Its package `openvino_telemetry` reports each conversion of a model to Google Analytics, in processes for
    which Python waits at its end. SegMed sends no data to third parties: the package is hidden, and OpenVINO
    then takes the stub that it has for installations without it.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as library

    return library
