"""The client of SegMed in the Python of 3D Slicer: a copy beside this file, or that of a checkout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "segmed_client"
_HTTPX = "httpx>=0.27,<0.29"


def load_client(slicer_util: Any) -> ModuleType:
    """The module `segmed.client` under the name `segmed_client`.

    3D Slicer's Python has no httpx, which the client needs: it is installed when the user agrees.

    Args:
        slicer_util: `slicer.util`.

    Raises:
        ModuleNotFoundError: The user does not want httpx, or the client is not there.
    """
    if importlib.util.find_spec("httpx") is None:
        question = f"SegMed needs the Python package {_HTTPX}. Install it into 3D Slicer's Python now?"
        if not slicer_util.confirmOkCancelDisplay(question):
            raise ModuleNotFoundError("SegMed cannot work without httpx. Connect again to install it.")
        slicer_util.pip_install(_HTTPX)
    if _NAME not in sys.modules:
        _import_from(_folder())
    return sys.modules[_NAME]


def _folder() -> Path:
    here = Path(__file__).resolve()
    folders = [here.parent / _NAME, *(parent / "lib" / "segmed" / "client" for parent in here.parents)]
    found = next((folder for folder in folders if (folder / "__init__.py").is_file()), None)
    if found is None:
        raise ModuleNotFoundError(
            "The client of SegMed is not beside this module. Install the built extension, or use the "
            "module from a checkout of SegMed."
        )
    return found


def _import_from(folder: Path) -> None:
    path = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(_NAME, path, submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_NAME]
        raise
