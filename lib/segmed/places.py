"""Where SegMed's files are: in a checkout, or installed from a wheel, with the app folder inside of the
package."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]
INSTALLED = (_PACKAGE / "app" / "main.py").is_file()

# : The MONAI Label app, with the page, OHIF's tool bar and the weights that come along; only read when
# installed.
APP = _PACKAGE / "app" if INSTALLED else _CHECKOUT / "apps" / "segmed"


def _data() -> Path:
    """Folder for what this user's SegMed keeps: the system's, or as XDG_DATA_HOME tells."""
    if told := os.environ.get("XDG_DATA_HOME"):
        return Path(told) / "segmed"
    if sys.platform in ("win32", "darwin"):
        from platformdirs import user_data_path  # not needed elsewhere

        return user_data_path("segmed", appauthor=False)
    return Path.home() / ".local" / "share" / "segmed"


#: The app folder that MONAI Label runs in and writes logs to; site-packages may belong to another user.
WORK = _data() / "app" if INSTALLED else APP
#: Trained models, unless --registry or --conf registry names another folder.
REGISTRY = WORK / "model" / "trained"
#: What can be computed again, such as networks that were compiled for this CPU.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segmed"
#: The demo study.
DEMO = (_data() if INSTALLED else _CHECKOUT) / "studies" / "demo"


def make_work() -> Path:
    """`WORK`, with the file in it by which MONAI Label finds the app.

    Raises:
        OSError: the folder cannot be written to.
    """
    if WORK != APP:
        WORK.mkdir(parents=True, exist_ok=True)
        beside = WORK / f".main-{os.getpid()}.py"
        shutil.copyfile(APP / "main.py", beside)
        beside.replace(WORK / "main.py")
    return WORK
