"""The registry of trained models: immutable versions by name, and a pointer to the served one.

    <registry>/<name>/0001-3f9a2c1b/{config.json, weights.safetensors, metrics.json, …}
    <registry>/<name>/current          the served version's name, or `none`
    <registry>/<name>/history.jsonl    each move of the pointer, one JSON object per line

A version is built in `.staging`, flushed to the disk and renamed, so that it exists completely or not at all.
One process at a time writes, under the lock of the model; readers need no lock.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import segmed
from segmed.evaluation.case_scores import CaseScore
from segmed.imaging.durable import flush
from segmed.imaging.file_locks import lock
from segmed.registry.gate import GateConfig, Verdict, compare, narrower
from segmed.registry.model_version import (
    RECORD,
    WEIGHTS,
    ModelVersion,
    VersionRecord,
    file_checksums,
    read_record,
)
from segmed.registry.pointer import VERSION_NAME, Pointer, PointerMove, PointerState

logger = logging.getLogger(__name__)

UNTRAINED = "the untrained method"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Registry:
    """A folder of models, safe for threads and processes on one machine.

    Args:
        folder: The folder, which is created when the first version is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._resolved: dict[str, tuple[PointerState, ModelVersion | None]] = {}

    def names(self) -> list[str]:
        """Names of the models that have versions."""
        if not self.folder.is_dir():
            return []
        return sorted(
            p.name for p in self.folder.iterdir() if _NAME.fullmatch(p.name) and self._version_names(p.name)
        )

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first, with damaged ones; of the weights only header and length are checked.

        Raises:
            ValueError: If `name` cannot be the name of a model.
        """
        served = self.served(name)
        found = [self._read(name, version, thorough=False) for version in self._version_names(name)]
        return [replace(v, served=served is not None and v.version == served.version) for v in found]

    def get(self, name: str, version: str) -> ModelVersion:
        """Get one version, checked byte by byte; its `damage` describes any error.

        Raises:
            ValueError: If `name` or `version` cannot be a name.
            FileNotFoundError: If there is no such version.
        """
        known = self._version_names(name)
        if not VERSION_NAME.fullmatch(version):
            raise ValueError(f"{version!r} is not the name of a version. Give a name such as 0003-9f86d081.")
        if version not in known:
            has = f"It has {', '.join(known)}." if known else "It has none; train one."
            raise FileNotFoundError(f"{name} has no version {version}. {has}")
        served = self.served(name)
        found = self._read(name, version, thorough=True)
        return replace(found, served=served is not None and served.version == version)

    def served(self, name: str) -> ModelVersion | None:
        """The version that answers prompts, or None for the untrained method.

        If the pointer has not moved since the last call, only the pointer is read, so that this may be called
        on each prompt. If the version is missing or damaged, the last intact one served before it replaces it
        until the next move.

        Raises:
            ValueError: If `name` cannot be the name of a model.
        """
        pointer = Pointer(self._home(name)).read()
        if name not in self._resolved or self._resolved[name][0] != pointer:
            self._resolved[name] = pointer, self._resolve(name, pointer.version)
        return self._resolved[name][1]

    def history(self, name: str) -> list[PointerMove]:
        """The moves of the pointer, oldest first; damaged lines are skipped."""
        return Pointer(self._home(name)).history()

    def add(self, name: str, write: Callable[[Path], None], record: VersionRecord) -> ModelVersion:
        """Store a version without serving it.

        Args:
            name: Name of the model.
            write: Function that writes `config.json`, `weights.safetensors` and any other files of the
                version to a folder, as `save_trained` does; it runs under the lock of the model.
            record: The record of the training; time, code version and checksums are filled in.

        Raises:
            ValueError: If `name` cannot be the name of a model, or the written files are not a version.
            OSError: If nothing could be stored, for instance because the disk is full.
        """
        self._home(name).mkdir(parents=True, exist_ok=True)
        with self._lock(name):
            return self._add(name, write, record)

    def promote(self, name: str, version: str, reason: str = "") -> ModelVersion:
        """Serve a version from the next prompt on.

        Raises:
            ValueError: If the version is damaged.
            FileNotFoundError: If there is no such version.
            OSError: If the pointer cannot be written; the served version has not changed.
        """
        with self._lock(name):
            found = self.get(name, version)
            if found.damage:
                raise ValueError(
                    f"{name} {version} cannot be served: {found.damage}. "
                    "Train it again, or choose another version."
                )
            Pointer(self._home(name)).move("promote", version, reason)
        return replace(found, served=True)

    def rollback(self, name: str, reason: str = "") -> ModelVersion | None:
        """Serve the previously served version again, skipping damaged ones.

        Returns:
            The version, or None if it is the untrained method.

        Raises:
            ValueError: If no version is served.
            FileNotFoundError: If there is no such model.
            OSError: If the pointer cannot be written; the served version has not changed.
        """
        with self._lock(name):
            stack = Pointer(self._home(name)).stack()
            if not stack:
                raise ValueError(f"No version of {name} is served, so there is nothing to roll back.")
            before = self._newest_good(name, stack[:-1])
            Pointer(self._home(name)).move("rollback", before.version if before else None, reason)
        return before

    def decide(
        self,
        name: str,
        write: Callable[[Path], None],
        record: VersionRecord,
        against: str | None,
        served_scores: Sequence[CaseScore],
        config: GateConfig | None = None,
        otherwise: str = UNTRAINED,
        lost: Sequence[str] = (),
    ) -> ModelVersion:
        """Store a candidate, and serve it if the gate accepts it.

        Args:
            name: Name of the model.
            write: Function that writes the files of the version, as for `add`.
            record: The record with the candidate's scores; the verdict is filled in.
            against: The version that `served_scores` belong to; None for the untrained method. If another one
                is served by now, the candidate is stored but not served.
            served_scores: Scores of the served version on the same cases.
            config: Limits of the gate.
            otherwise: Name of the model that `served_scores` belong to if no version is served.
            lost: Structures that the served version knows and the candidate does not; with any, it is stored
                but not served.

        Raises:
            ValueError: If `name` cannot be the name of a model, or the written files are not a version.
            OSError: If a file cannot be written; the served version has not changed.
        """
        self._home(name).mkdir(parents=True, exist_ok=True)
        with self._lock(name):
            served = self.served(name)
            now = served.version if served else None
            if now == against:
                rival = f"the served version {now}" if now else otherwise
                verdict = (
                    narrower(lost, rival) if lost else compare(record.scores, served_scores, config, rival)
                )
            else:
                verdict = Verdict(
                    False,
                    f"Not served: it was compared with {against or otherwise}, but "
                    f"{now or UNTRAINED} is served by now. Compare it again.",
                )
            kept = self._add(name, write, replace(record, verdict=verdict))
            if verdict.accepted:
                Pointer(self._home(name)).move("promote", kept.version, verdict.reason)
        return replace(kept, served=verdict.accepted)

    def _home(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name[:80]!r} cannot be the name of a model. Use up to 64 letters, digits, _, . and -, "
                "beginning with a letter, a digit or _."
            )
        return self.folder / name

    def _version_names(self, name: str) -> list[str]:
        home = self._home(name)
        found = [p.name for p in home.iterdir() if VERSION_NAME.fullmatch(p.name)] if home.is_dir() else []
        return sorted(found, key=lambda version: int(version.split("-")[0]))

    def _read(self, name: str, version: str, thorough: bool) -> ModelVersion:
        folder = self._home(name) / version
        try:
            record = read_record(folder, thorough)
            if not record.files[WEIGHTS].startswith(version.split("-")[1]):
                raise ValueError(f"{RECORD} is that of another version")
        except ValueError as error:
            return ModelVersion(name, version, folder, None, damage=str(error))
        return ModelVersion(name, version, folder, record)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        home = self._home(name)
        if not home.is_dir():
            known = ", ".join(self.names()) or "none yet; train one"
            raise FileNotFoundError(f"There is no model {name!r} in the registry. There are: {known}.")
        with (home / ".lock").open("a") as file:
            lock(file)  # released when the file is closed or the process ends
            yield

    def _add(self, name: str, write: Callable[[Path], None], record: VersionRecord) -> ModelVersion:
        home = self._home(name)
        staging = home / ".staging"
        # Left over from a crash, because the lock excludes other writers.
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            write(staging)
            files = file_checksums(staging)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            record = replace(record, created=now, code=segmed.__version__, files=files)
            (staging / RECORD).write_bytes(record.to_json())
            read_record(staging, thorough=False)
            for path in [*staging.rglob("*"), staging]:
                flush(path)
            last = max((int(version.split("-")[0]) for version in self._version_names(name)), default=0)
            version = f"{last + 1:04d}-{files[WEIGHTS][:8]}"
            staging.replace(home / version)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        flush(home)
        return self._read(name, version, thorough=False)

    def _resolve(self, name: str, version: str | None) -> ModelVersion | None:
        if version is None:
            return None
        found = self._newest_good(name, Pointer(self._home(name)).stack())
        if found is None or found.version != version:
            substitute = found.version if found else UNTRAINED
            logger.warning(
                "%s cannot serve %r, which is missing or damaged; %s is served instead.",
                name,
                version[:40],
                substitute,
            )
        return found

    def _newest_good(self, name: str, stack: Sequence[str]) -> ModelVersion | None:
        for version in reversed(stack):
            found = self._read(name, version, thorough=True)
            if not found.damage:
                return replace(found, served=True)
            logger.warning("%s %s is skipped: %s.", name, version, found.damage)
        return None
