"""Checksums of files, and files that cannot be weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

_POINTER = b"version https://git-lfs"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def impostor(head: bytes) -> str:
    """What a file that is not weights is, by its first bytes: `a web page` or `a Git LFS pointer`; ""
    otherwise."""
    start = head.lstrip()[:200].lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page"
    if start.startswith(_POINTER):
        return "a Git LFS pointer"
    return ""


def check_file(path: Path) -> None:
    """Refuse a file whose first bytes show that something else was saved in place of weights.

    Raises:
        ValueError: It is empty, a web page, or a pointer to the real file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    what = impostor(head) if head else "empty"
    if what:
        raise ValueError(
            f"The weights file {path.name} is {what} and not weights. Download it again, by `segmed weights "
            "get` or with the download button of its page."
        )
