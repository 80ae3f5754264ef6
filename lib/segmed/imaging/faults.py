"""What is wrong with a file, as a sentence for the user, also for what the libraries raise."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


class ImageFault(ValueError):
    """A file that is whole and cannot be used; its text says why, and what to do."""


@contextlib.contextmanager
def explained(path: Path, readable: str, why: Callable[[], str] = str) -> Iterator[None]:
    """Damaged files make the libraries raise anything: zlib.error, HeaderDataError, OverflowError, MemoryError, …

    Args:
        path: of the file.
        readable: what can be read, for the message.
        why: looks for a better reason; "" for none.

    Raises:
        ImageFault: as raised inside.
        ValueError: in place of every other exception.
    """
    try:
        yield
    except ImageFault:
        raise
    except Exception as error:
        logger.info("cannot read %s: %s", path, error)
        raise ValueError(
            why()
            or f"The image {path.name} cannot be read: it is damaged or not an image. Readable are {readable} and "
            "folders of one DICOM series. Export it again from its source."
        ) from error
