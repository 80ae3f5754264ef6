"""Trained models by name and version, and which version is served: a pointer that moves and versions that never change.

    <registry>/<name>/0001-3f9a2c1b/{config.json, weights.safetensors, metrics.json, …}
    <registry>/<name>/current          the served version's name, or `none`
    <registry>/<name>/history.jsonl    each move of the pointer, one JSON object per line

A version is built in `.staging`, flushed to the disk and renamed, so that it is there as a whole or not at all. One
process at a time writes, under the lock of the model; readers need none.
"""

from __future__ import annotations

import fcntl
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
from segmed.training.gate import GateConfig, Verdict, compare
from segmed.training.model_version import RECORD, WEIGHTS, ModelVersion, VersionRecord, file_checksums, read_record
from segmed.training.pointer import VERSION_NAME, Pointer, PointerMove, PointerState

logger = logging.getLogger(__name__)

UNTRAINED = "the untrained method"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Registry:
    """A folder of models. Safe for threads and processes on one machine.

    Args:
        folder: made when the first version is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._seen: dict[str, tuple[PointerState, ModelVersion | None]] = {}

    def names(self) -> list[str]:
        """Models that have versions."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if _NAME.fullmatch(p.name) and self._version_names(p.name))

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first, damaged ones among them; of the weights only header and length are checked.

        Raises:
            ValueError: not a name.
        """
        served = self.served(name)
        found = [self._read(name, version, thorough=False) for version in self._version_names(name)]
        return [replace(v, served=served is not None and v.version == served.version) for v in found]

    def get(self, name: str, version: str) -> ModelVersion:
        """One version, checked byte by byte; `damage` says what is wrong with it.

        Raises:
            ValueError: not a name or version.
            FileNotFoundError: there is no such version.
        """
        known = self._version_names(name)
        if not VERSION_NAME.fullmatch(version):
            raise ValueError(f"{version!r} is not the name of a version. They look like 0003-9f86d081.")
        if version not in known:
            has = f"It has {', '.join(known)}." if known else "It has none; train one."
            raise FileNotFoundError(f"{name} has no version {version}. {has}")
        served = self.served(name)
        found = self._read(name, version, thorough=True)
        return replace(found, served=served is not None and served.version == version)

    def served(self, name: str) -> ModelVersion | None:
        """What answers prompts; None for the untrained method.

        Reads only the pointer if that has not moved since the last call, so that it can be asked on each prompt. If
        the version is missing or damaged, the one served before it that is not takes its place until the next move.

        Raises:
            ValueError: not a name.
        """
        pointer = Pointer(self._home(name)).read()
        if name not in self._seen or self._seen[name][0] != pointer:
            self._seen[name] = pointer, self._resolve(name, pointer.version)
        return self._seen[name][1]

    def history(self, name: str) -> list[PointerMove]:
        """Moves of the pointer, oldest first; damaged lines are left out."""
        return Pointer(self._home(name)).history()

    def add(self, name: str, write: Callable[[Path], None], record: VersionRecord) -> ModelVersion:
        """Keep a version without serving it.

        Args:
            name: of the model.
            write: puts `config.json`, `weights.safetensors` and whatever else belongs to the version into a folder, as
                `save_trained` does; it runs under the lock of the model.
            record: what is known of the training; time, code version and checksums are filled in.

        Raises:
            ValueError: not a name, or what was written is not a version.
            OSError: nothing was kept, for instance because the disk is full.
        """
        self._home(name).mkdir(parents=True, exist_ok=True)
        with self._lock(name):
            return self._add(name, write, record)

    def promote(self, name: str, version: str, reason: str = "") -> ModelVersion:
        """Serve a version from the next prompt on.

        Raises:
            ValueError: it is damaged.
            FileNotFoundError: there is no such version.
            OSError: nothing has changed.
        """
        with self._lock(name):
            found = self.get(name, version)
            if found.damage:
                raise ValueError(
                    f"{name} {version} cannot be served: {found.damage}. Train it anew, or choose another."
                )
            Pointer(self._home(name)).move("promote", version, reason)
        return replace(found, served=True)

    def rollback(self, name: str, reason: str = "") -> ModelVersion | None:
        """Serve again what was served before, damaged versions passed over.

        Returns:
            The version, or None if it is the untrained method.

        Raises:
            ValueError: no version is served.
            FileNotFoundError: there is no such model.
            OSError: nothing has changed.
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
    ) -> ModelVersion:
        """Keep a candidate, and serve it if the gate lets it pass.

        Args:
            name: of the model.
            write: as for `add`.
            record: holds the candidate's scores; the verdict is filled in.
            against: version that `served_scores` belong to; None for the untrained method. If another one is served by
                now, the candidate is kept but not served.
            served_scores: on the same cases.
            config: limits of the gate.
            otherwise: what `served_scores` are of where no version is served.

        Raises:
            ValueError: as for `add`.
            OSError: what was served still is.
        """
        self._home(name).mkdir(parents=True, exist_ok=True)
        with self._lock(name):
            served = self.served(name)
            now = served.version if served else None
            if now == against:
                rival = f"the served version {now}" if now else otherwise
                verdict = compare(record.scores, served_scores, config, rival)
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
                f"{name[:80]!r} cannot be the name of a model. Use up to 64 letters, digits, _, . and -, beginning "
                "with a letter, a digit or _."
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
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, or its process dies
            yield

    def _add(self, name: str, write: Callable[[Path], None], record: VersionRecord) -> ModelVersion:
        home = self._home(name)
        staging = home / ".staging"
        shutil.rmtree(staging, ignore_errors=True)  # nobody else can be writing, so it is left over from a crash
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
            takes = found.version if found else UNTRAINED
            logger.warning("%s cannot serve %r, missing or damaged; %s takes its place.", name, version[:40], takes)
        return found

    def _newest_good(self, name: str, stack: Sequence[str]) -> ModelVersion | None:
        for version in reversed(stack):
            found = self._read(name, version, thorough=True)
            if not found.damage:
                return replace(found, served=True)
            logger.warning("%s %s is passed over: %s.", name, version, found.damage)
        return None
