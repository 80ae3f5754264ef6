"""Puts the app folder into the wheel, as `segmed/app`; everything else is in pyproject.toml.

Beside the package goes a path file, by which MONAI Label's own start command, too, finds the stand-ins for
packages that it is installed without.

A checkout keeps it in `apps/segmed`, where MONAI Label's users look for it, and `segmed.places` knows both.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_APP = Path("apps") / "segmed"
_START = Path("lib") / "segmed-monailabel.pth"
# what is made at run time, such as trained models and logs, stays out
_PARTS = ("main.py", "README.md", "ohif/*", "web/dist/*", "model/segmed-*/*")


class BuildWithApp(build_py):
    """Builds the package with the app folder in it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # then the package is used where it lies
            return
        if not (_APP / "web" / "dist" / "index.html").is_file():
            self.warn("the web page is not built and will be missing at /: run ./scripts/build_web.sh first")
        for source, target in self._more_files():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._more_files())]

    def _more_files(self) -> list[tuple[Path, Path]]:
        files = sorted(p for p in chain.from_iterable(_APP.glob(part) for part in _PARTS) if p.is_file())
        app = [(p, Path(self.build_lib) / "segmed" / "app" / p.relative_to(_APP)) for p in files]
        return [*app, (_START, Path(self.build_lib) / _START.name)]


setup(cmdclass={"build_py": BuildWithApp})
