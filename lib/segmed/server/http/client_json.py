"""JSON of clients: only what can be kept on disk and read again is taken."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from segmed.server.http.errors import BadRequest

MOST_BYTES = 4 * 2**20  # of a text
_DEEPEST = 32  # lists and objects inside each other
_LARGEST = 2**63  # whole numbers below this are the same to every reader
_MOST_DIGITS = 25


def read_json(text: str | bytes, what: str = "The request", largest: int = MOST_BYTES) -> Any:
    """The value of a JSON text.

    Args:
        text: as it was sent; bytes are UTF-8.
        what: it is, as the subject of a sentence.
        largest: bytes that it may have.

    Raises:
        BadRequest: no JSON, too large or too deep, numbers that are not finite or beyond 63 bits, or
            characters that are no text (surrogates that stand alone).
    """
    if len(text) > largest:
        raise BadRequest(f"{what} is JSON of more than {largest >> 20} MiB. Send large arrays as files.", 413)

    def refuse(number: str) -> NoReturn:
        raise BadRequest(f"{what} holds the number {number}. Send finite numbers.")

    def whole(digits: str) -> int:
        if len(digits) > _MOST_DIGITS or abs(int(digits)) >= _LARGEST:
            raise BadRequest(f"{what} holds a number of {len(digits)} digits. Send numbers below 2^63.")
        return int(digits)

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=whole)
    except BadRequest:
        raise
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:  # also bytes that are not UTF-8
        raise BadRequest(
            f"{what} is not usable: it is not JSON ({error}). Send an object such as {{}}."
        ) from error
    _check(value, what)
    return value


def read_object(text: str | bytes, what: str) -> dict[str, Any]:
    """As `read_json`, of an object."""
    value = read_json(text or "{}", what)
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object such as {{}}.")
    return value


def _check(value: Any, what: str, depth: int = 0) -> None:
    """Raises BadRequest for what is too deep, not finite or no text."""
    if depth > _DEEPEST:
        raise _too_deep(what)
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, what, depth + 1)
            _check(inner, what, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, what, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadRequest(f"{what} holds a number too large for a computer. Send finite numbers.")
    elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise BadRequest(f"{what} holds half of a character (a lone surrogate). Send text as UTF-8.")


def _too_deep(what: str) -> BadRequest:
    return BadRequest(f"{what} has more than {_DEEPEST} lists or objects inside each other. Send flat JSON.")
