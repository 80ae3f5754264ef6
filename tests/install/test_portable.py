"""What other systems lack is not needed: Windows has no fcntl or os.getuid, macOS no CLOCK_BOOTTIME."""

from __future__ import annotations

import subprocess
import sys

# modules and names that only some systems have; libraries that use them themselves are imported before
_SCRIPT = """
import sys, os, time, signal, multiprocessing, subprocess, tempfile, asyncio
import psutil, filelock, torch, uvicorn
hidden = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "posix_ipc", "syslog")
for name in hidden:
    sys.modules[name] = None
for home, names in {
    os: ("getuid", "geteuid", "getgid", "nice", "preadv", "pwrite", "sched_getaffinity", "fork"),
    time: ("CLOCK_BOOTTIME",),
    signal: ("SIGPROF", "SIGKILL", "setitimer", "ITIMER_PROF", "SIGUSR1"),
}.items():
    for name in names:
        if hasattr(home, name):
            delattr(home, name)
"""
_IMPORTS = """
import importlib, pkgutil, traceback, segmed
from pathlib import Path
home = str(Path(segmed.__file__).parent) + os.sep
failed = []
for module in pkgutil.walk_packages(segmed.__path__, "segmed."):
    try:
        importlib.import_module(module.name)
    except (ImportError, AttributeError) as error:
        # other packages are built for this system, and may ask for what it has
        if traceback.extract_tb(error.__traceback__)[-1].filename.startswith(home) and (
            getattr(error, "name", None) in (*hidden, None) or isinstance(error, AttributeError)
        ):
            failed.append(f"{module.name}: {error}")
print(failed)
"""
_STATE = """
from pathlib import Path
from segmed.active.store.clock import passed, read_clock
from segmed.active.store.process_id import ProcessId, is_alive
import segmed.active.store.process_id as process_id
from segmed.imaging import file_locks
process_id._PROCESSES = Path("/nowhere")
file_locks.fcntl = None
me = ProcessId.current()
assert is_alive(me) and not is_alive(ProcessId(me.pid, me.started + 1, me.boot))
assert passed(read_clock(), read_clock()) >= 0
with Path("x.lock").open("a+") as one, Path("x.lock").open("a+") as two:
    file_locks.share(one)
    assert file_locks.try_lock(two) and not file_locks.try_lock(one)
from segmed.server.serve import _private_folder
assert Path(_private_folder()).is_dir()
print("good")
"""


def _run(script: str, where: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT + script], capture_output=True, encoding="utf-8", cwd=where
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_module_is_imported_without_what_other_systems_lack(tmp_path: object) -> None:
    assert _run(_IMPORTS, str(tmp_path)) == "[]"


def test_locks_clocks_and_processes_work_without_it(tmp_path: object) -> None:
    assert _run(_STATE, str(tmp_path)) == "good"
