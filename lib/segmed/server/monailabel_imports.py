"""MONAI Label without what it asks for and SegMed has no use for.

MONAI Label's modules for other products import packages at their top, so that its server does not start where
they are missing. This file has them imported all the same: while such a module is executed, and only then, a
stand-in takes the place of the package. Where the package is installed, it is used.

A program that uses a stand-in ends in an ImportError that says what to install.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, NoReturn

#: The version that SegMed is tested with, as in requirements-monailabel.txt.
PINNED = "monailabel==0.8.5"
#: What to tell the user if it is not there.
NOT_INSTALLED = (
    "MONAI Label, which SegMed's server is an app of, is not installed. pip does not install it along with "
    "SegMed, as it would then insist on packages that contradict SegMed's, such as NumPy 1. Install it by "
    f"itself: {sys.executable} -m pip install --no-deps {PINNED}"
)


class Spared(NamedTuple):
    """A package that a module of MONAI Label imports, and that SegMed is installed without."""

    package: str
    distribution: str
    reason: str


#: By the module that imports it. tests/server/test_monailabel_imports.py fails when one no longer does.
STAND_INS: Mapping[str, Spared] = MappingProxyType(
    {
        "monailabel.datastore.dsa": Spared(
            "girder_client", "girder-client", "client of the Digital Slide Archive, for pathology"
        ),
        "monailabel.datastore.utils.convert": Spared(
            "pydicom_seg",
            "pydicom-seg",
            "needs NumPy 1 and pydicom 2; SegMed reads and writes DICOM SEG by highdicom",
        ),
        "monailabel.interfaces.app": Spared(
            "timeloop", "timeloop", "has no wheel; SegMed has its own thread that removes expired sessions"
        ),
        "monailabel.transform.writer": Spared("itk", "itk", "1.5 GB; SegMed writes images by SimpleITK"),
    }
)


class StandIn(ModuleType):
    """Takes the place of a package whose contents nothing calls."""

    def __init__(self, spared: Spared) -> None:
        super().__init__(spared.package, f"Stands in for {spared.package}: {spared.reason}.")
        self._spared = spared

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise ImportError(
                f"{self._spared.package}.{name} was called, but SegMed is installed without that package "
                f"({self._spared.reason}). To use it: pip install {self._spared.distribution}",
                name=self._spared.package,
            )

        return refuse


class _Loader(importlib.abc.Loader):
    """Executes a module while a stand-in is in place."""

    def __init__(self, loader: importlib.abc.Loader, spared: Spared) -> None:
        self._loader, self._spared = loader, spared

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # MONAI looks for optional packages when it is imported, and would take the stand-in for one
        import segmed.monai_parts  # noqa: F401

        with _in_place(self._spared):
            self._loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # such as get_source, for tracebacks


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that need a stand-in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "monailabel" and PathFinder.find_spec(fullname, path) is None:
            raise ModuleNotFoundError(NOT_INSTALLED, name=fullname)
        spared = STAND_INS.get(fullname)
        if spared is None or _installed(spared.package):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, spared)
        return spec


def _installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


@contextmanager
def _in_place(spared: Spared) -> Iterator[None]:
    modules: dict[str, Any] = sys.modules  # type: ignore[assignment]
    modules[spared.package] = StandIn(spared)
    try:
        yield
    finally:
        del modules[spared.package]


def install() -> None:
    """Have this process import MONAI Label with stand-ins; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
