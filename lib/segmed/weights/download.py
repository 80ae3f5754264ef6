"""Download of a file over HTTP: resumed after an interruption, and moved into place only when complete."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import httpx
from huggingface_hub import constants

from segmed.imaging.durable import appear_whole
from segmed.imaging.file_locks import try_lock
from segmed.weights.contents import impostor, sha256_of
from segmed.weights.errors import DamagedError, FetchError, is_full, no_space, offline, unreachable
from segmed.weights.lock import LockedFile

Tell = Callable[[int, int], None]  # bytes so far, and in total (0 if unknown)

_TIMEOUT = httpx.Timeout(30.0)  # s, for a connection and for each block
_ADVICE = {
    401: "It wants a login.",
    403: "It refuses this machine.",
    404: "The file is not there any more.",
    407: "The proxy wants a login: set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT.",
}


def download(url: str, path: Path, sha256: str = "", tell: Tell | None = None) -> LockedFile:
    """Fetch a file, or the rest of it if an interrupted download left `NAME.partial` beside it.

    Args:
        url: Address, http or https; proxies are taken from the environment.
        path: Where the file is written; an existing file is replaced only on success.
        sha256: SHA-256 that the file must have; "" accepts any file.
        tell: Function that is told the progress.

    Returns:
        Checksum, size and ETag of the file.

    Raises:
        FetchError: The machine is offline, there is no connection, the download was interrupted or refused,
            the disk is full, or another process is fetching the file.
        DamagedError: The file is a web page, or not the one that was expected.
        OSError: The folder cannot be written.
    """
    if constants.HF_HUB_OFFLINE:
        raise offline(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, mark = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.etag")
    with _alone(partial) as file:
        try:
            etag = _complete(url, file, mark, tell or (lambda done, total: None))
        except OSError as error:
            if not is_full(error):
                raise
            done = partial.stat().st_size / 1e6
            _discard(partial, mark)  # a full disk hinders everybody, so nothing is kept for a second try
            raise no_space(path.parent, f"The download stopped at {done:.0f} MB and was deleted") from error
        found = sha256_of(partial)
        if sha256 and found != sha256:
            _discard(partial, mark)
            raise DamagedError(
                f"{path.name} from {httpx.URL(url).host} is not the published file: its SHA-256 is {found}, "
                f"expected was {sha256}. It was deleted. Try again; if it happens again, somebody has "
                "changed the file."
            )
        size = partial.stat().st_size
        with appear_whole(path) as whole:
            partial.replace(whole)
        mark.unlink(missing_ok=True)
    return LockedFile(found, size, etag)


def _complete(url: str, file: BinaryIO, mark: Path, tell: Tell) -> str:
    """Fetch what is missing of a file; its ETag."""
    host = httpx.URL(url).host
    known = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    if not known:
        _restart(file)  # nothing tells whether the rest still belongs to the same file
    headers = {"Accept-Encoding": "identity"}
    if file.tell():
        headers |= {"Range": f"bytes={file.tell()}-", "If-Range": known}
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code == 416:
                _check_whole(answer, file.tell())
                return known
            begin, end = _extent(answer, file.tell())
            if begin != file.tell():
                _restart(file)
            etag = _note(answer, mark)
            if end and shutil.disk_usage(mark.parent).free < end - file.tell():
                raise no_space(mark.parent, f"{(end - file.tell()) / 1e6:.0f} MB are needed")
            tell(file.tell(), end)
            for block in answer.iter_raw():
                if not file.tell():
                    _refuse_impostor(block, answer)
                file.write(block)
                tell(file.tell(), end)
            file.flush()
            if not file.tell() or (end and file.tell() != end):
                raise httpx.RemoteProtocolError("the file is shorter than announced")
            return etag
    except httpx.RemoteProtocolError as error:
        file.flush()
        raise FetchError(
            f"{host} broke off after {file.tell() / 1e6:.1f} MB ({error}). Give the same command again; it "
            "goes on from there if the server allows."
        ) from error
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
        raise unreachable(host, error) from error
    except httpx.HTTPError as error:
        file.flush()
        raise FetchError(
            f"The connection to {host} was lost after {file.tell() / 1e6:.1f} MB ({type(error).__name__}). "
            "Give the same command again."
        ) from error


def _extent(answer: httpx.Response, have: int) -> tuple[int, int]:
    """From which byte to which one the server sends; the latter is 0 if it does not say."""
    host, status = answer.request.url.host, answer.status_code
    if status not in (200, 206):
        raise FetchError(
            f"{host} answers {status} {answer.reason_phrase}. {_ADVICE.get(status, 'Try again later.')} The "
            f"address is {answer.request.url}"
        )
    if "text/html" in answer.headers.get("content-type", ""):
        raise _web_page(answer)
    if status == 200:
        return 0, int(answer.headers.get("content-length", "0"))
    match = re.match(r"bytes (\d+)-(\d+)/", answer.headers.get("content-range", ""))
    if not match or int(match[1]) != have:
        raise FetchError(f"{host} sends another part of the file than was asked for. Try again later.")
    return have, int(match[2]) + 1


def _check_whole(answer: httpx.Response, have: int) -> None:
    """The server has nothing left to send, which is right if the partial file is as long as its own."""
    match = re.match(r"bytes \*/(\d+)", answer.headers.get("content-range", ""))
    if not match or int(match[1]) != have:
        raise FetchError(
            f"What an earlier download left does not fit the file of {answer.request.url.host}. Delete the "
            ".partial file and give the command again."
        )


def _note(answer: httpx.Response, mark: Path) -> str:
    """Keep the ETag, by which a later download knows that it continues the same file."""
    etag = str(answer.headers.get("etag", ""))
    if etag and not etag.startswith("W/"):  # weak ones do not promise the same bytes
        mark.write_text(etag, encoding="utf-8")
    else:
        mark.unlink(missing_ok=True)
    return etag


def _refuse_impostor(block: bytes, answer: httpx.Response) -> None:
    what = impostor(block[:512])
    if what == "a web page":
        raise _web_page(answer)
    if what:
        raise DamagedError(f"{answer.request.url.host} sent {what} instead of the weights. Tell its owner.")


def _web_page(answer: httpx.Response) -> DamagedError:
    return DamagedError(
        f"{answer.url.host} sent a web page instead of the weights: a login, a consent page, or the notice "
        f"of a proxy. Open {answer.request.url} in a browser to see which."
    )


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[BinaryIO]:
    """The partial file, for this process alone."""
    with partial.open("ab") as file:
        # the second: it has just finished, and the partial file is no longer this one
        if not try_lock(file) or not partial.exists() or not _same(partial, file):
            raise FetchError(f"Another process is downloading {partial.stem}. Wait for it.")
        try:
            yield file
        finally:
            if partial.exists() and not partial.stat().st_size:
                partial.unlink()


def _same(path: Path, file: BinaryIO) -> bool:
    return path.stat().st_ino == os.fstat(file.fileno()).st_ino


def _restart(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _discard(partial: Path, mark: Path) -> None:
    partial.unlink(missing_ok=True)
    mark.unlink(missing_ok=True)
