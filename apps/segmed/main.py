"""Entry point for MONAI Label: it looks here for the one subclass of MONAILabelApp."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("segmed") is None:
    sys.path.append(str(Path(__file__).resolve().parents[2] / "lib"))

from segmed.server.app import SegMedApp

__all__ = ["SegMedApp"]
