"""What can go wrong while weights are fetched."""

from __future__ import annotations

import errno
from pathlib import Path


class FetchError(OSError):
    """Weights could not be fetched; the text says why and what to do."""


class MissingFileError(FetchError):
    """The repository is there, the file is not in it."""


class DamagedError(FetchError):
    """What was fetched is not what was published, or not what was fetched the first time."""


def offline(what: str) -> FetchError:
    """HF_HUB_OFFLINE forbids the network, and the weights are not here."""
    return FetchError(
        f"{what} is not on this machine, and HF_HUB_OFFLINE forbids downloads. Unset it, or copy the weights "
        "from another machine."
    )


def unreachable(host: str, error: Exception) -> FetchError:
    """No connection."""
    return FetchError(
        f"{host} cannot be reached ({type(error).__name__}: {str(error) or 'no answer'}). Check the network; "
        "behind a proxy set HTTPS_PROXY. On a machine without a network, copy the weights from another one."
    )


def no_space(folder: Path, what: str) -> FetchError:
    """The disk is full."""
    return FetchError(
        f"There is not enough space in {folder}. {what}. Free some, or choose another disk with "
        "SEGMED_WEIGHTS (or HF_HOME, for weights from Hugging Face)."
    )


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
