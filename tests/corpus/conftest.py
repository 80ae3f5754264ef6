"""What the tests of the corpus share: its files, and a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from running import start

from corpus.row import Row
from corpus.table import write

__all__ = ["corpus_file", "start"]


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Row], Path]:
    """Writes the file of a row when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("corpus"), dict[str, Path]()

    def path(row: Row) -> Path:
        if row.name not in made:
            made[row.name] = write(row, folder)
        return made[row.name]

    return path
