"""Faults of files as messages for the user, also in place of exceptions of the libraries."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


class ImageFault(ValueError):
    """A file that is intact but cannot be used; the message says why, and what to do."""


@contextlib.contextmanager
def explained(path: Path, readable: str, why: Callable[[], str] = str) -> Iterator[None]:
    """Replace any exception that libraries raise for damaged files, such as zlib.error or MemoryError.

    Args:
        path: Path of the file.
        readable: Kinds of files that can be read, for the message.
        why: Function that looks for a more specific reason; it returns "" if there is none.

    Raises:
        ImageFault: The block raised it.
        ValueError: The block raised any other exception.
    """
    try:
        yield
    except ImageFault:
        raise
    except Exception as error:
        logger.info("cannot read %s: %s", path, error)
        raise ValueError(
            why()
            or f"The image {path.name} cannot be read: it is damaged or not an image. Readable are "
            f"{readable} and folders of one DICOM series. Export it again from its source."
        ) from error
