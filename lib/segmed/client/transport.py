"""Requests to a server: address, token, time limits, and errors as sentences."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import httpx

from .errors import NoServerError, NotAllowedError, SegMedError, StaleWorkError
from .version import HEADER, check_version

_CONNECTS_WITHIN = 10.0  # s
_PARTS = "application/x-ndjson"


class Transport:
    """A connection to one server, which is kept open between requests.

    Args:
        url: Address of the server, with the path at which a reverse proxy serves it.
        token: Access token of `segmed users token`, or of `log_in`; "" where nobody has to log in.
        timeout: Longest time without a sign of the server, in seconds; a volume may take minutes.
        http: Connection to use instead, such as one with certificates of its own.
    """

    def __init__(
        self, url: str, token: str = "", timeout: float = 600.0, http: httpx.Client | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = http or httpx.Client(timeout=httpx.Timeout(timeout, connect=_CONNECTS_WITHIN))
        self.token = token

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request.

        Args:
            method: HTTP method.
            path: Path below the address of the server, and its query.
            request: Arguments of `httpx.Client.request`, such as `json`, `params`, `data` and `files`.

        Returns:
            The answer, whose status is below 400.

        Raises:
            NoServerError: Nobody answers, or not in time.
            NotAllowedError: A login or another role is needed.
            StaleWorkError: The work has changed elsewhere.
            SegMedError: The server refuses the request, or fails.
            ApiVersionError: The server speaks another major version of the workspace API.
        """
        with self._sentences():
            answer = self._http.request(method, self.url + path, headers=self._headers(), **request)
        self.check(answer)
        return answer

    def json(self, method: str, path: str, **request: Any) -> Any:
        """The JSON value of the answer to a request; see `ask`."""
        return self.ask(method, path, **request).json()

    def lines(self, path: str, body: Any, on_line: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Post a request whose answer may come in parts; see `ask` for errors.

        Args:
            path: Path below the address of the server.
            body: JSON value of the request.
            on_line: Called with each part before the answer.

        Returns:
            The answer.
        """
        headers = {**self._headers(), "Accept": f"{_PARTS}, application/json"}
        with (
            self._sentences(),
            self._http.stream("POST", self.url + path, headers=headers, json=body) as answer,
        ):
            if _PARTS not in answer.headers.get("content-type", ""):
                answer.read()
                self.check(answer)
                return dict(answer.json())
            self.check(answer)
            for line in answer.iter_lines():
                told = json.loads(line)
                if told["event"] == "answer":
                    return dict(told)
                if told["event"] == "error":
                    raise SegMedError(told["detail"], told["status"])
                on_line(told)
        raise NoServerError(
            f"The server at {self.url} ended before it had answered. What it had found until then may be "
            "there: open the image again."
        )

    def check(self, answer: httpx.Response) -> None:
        """Raise the error that an answer stands for, whose body has been read; see `ask`."""
        if HEADER in answer.headers:
            check_version(answer.headers[HEADER], self.url)
        if answer.status_code >= 400:
            kinds = {401: NotAllowedError, 403: NotAllowedError, 409: StaleWorkError}
            kind = kinds.get(answer.status_code, SegMedError)
            raise kind(_sentence(answer), answer.status_code)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise NoServerError(
                f"The server at {self.url} did not answer in time. It may be busy with a long volume: try "
                "again, or "
                "allow more time (timeout)."
            ) from error
        except httpx.TransportError as error:
            raise NoServerError(
                f"No server answers at {self.url} ({error}). Start it by segmed serve, or correct the "
                "address."
            ) from error
        except httpx.InvalidURL as error:
            raise NoServerError(
                f"{self.url!r} is no address. Give one such as http://127.0.0.1:8000."
            ) from error


def _sentence(answer: httpx.Response) -> str:
    """The server's own words, or the status where another program answers."""
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        if isinstance(detail := answer.json().get("detail"), str):
            return detail
    return f"{answer.request.method} {answer.request.url.path} was answered by status {answer.status_code}."
