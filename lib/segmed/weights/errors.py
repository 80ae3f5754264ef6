"""What can go wrong while weights are fetched."""

from __future__ import annotations

import errno
from pathlib import Path


class FetchError(OSError):
    """Weights could not be fetched; the message says why, and what to do."""


class MissingFileError(FetchError):
    """The repository exists, but does not contain the file."""


class DamagedError(FetchError):
    """The file is not the published one, or not the one that was fetched the first time."""


def offline(what: str) -> FetchError:
    """The error for weights that are not on this machine while HF_HUB_OFFLINE forbids downloads."""
    return FetchError(
        f"{what} is not on this machine, and HF_HUB_OFFLINE forbids downloads. Unset it, or copy the weights "
        "from another machine."
    )


def unreachable(host: str, error: Exception) -> FetchError:
    """The error for a server that does not answer."""
    return FetchError(
        f"{host} cannot be reached ({type(error).__name__}: {str(error) or 'no answer'}). Check the network; "
        "behind a proxy set HTTPS_PROXY. On a machine without a network, copy the weights from another one."
    )


def no_space(folder: Path, what: str) -> FetchError:
    """The error for a full disk."""
    return FetchError(
        f"There is not enough space in {folder}. {what}. Free some, or choose another disk with "
        "SEGMED_WEIGHTS (or HF_HOME, for weights from Hugging Face)."
    )


def is_full(error: OSError) -> bool:
    """Whether an error means that a disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
