"""The version of the workspace API, which server and clients share."""

from __future__ import annotations

from .errors import ApiVersionError

API_VERSION = "1.0"
"""Major and minor number. The minor number grows when fields or endpoints are added, which clients may
ignore; the major number grows when a client of the former version would misunderstand the server."""

HEADER = "SegMed-API"
"""Header of all answers of the workspace API."""


def check_version(theirs: str, where: str) -> None:
    """Compare a server's version of the workspace API with that of this client.

    Args:
        theirs: Version that the server states.
        where: Address of the server, for the message.

    Raises:
        ApiVersionError: Their major versions differ.
    """
    if theirs.partition(".")[0] != API_VERSION.partition(".")[0]:
        raise ApiVersionError(
            f"The server at {where} speaks version {theirs or 'none'} of the workspace API, and this "
            "client version "
            f"{API_VERSION}. Install the client that comes with the server's version of SegMed."
        )
