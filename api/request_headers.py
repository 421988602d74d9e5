"""What a request's headers say: which answers it takes, what its body is, what it prefers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
from starlette.types import Scope

from api.whole_messages import Header

WAIT_SECONDS_DEFAULT: Final = 2
WAIT_SECONDS_MAX: Final = 10

_REMEMBERED_MAX: Final = 256
_REMEMBERED_LENGTH_MAX: Final = 200

Meaning = TypeVar("Meaning")


class Preferences(msgspec.Struct, frozen=True):
    """What `Prefer` asks for (RFC 7240); `wait_seconds` is None where not said, `code` and `example` are the mock's."""

    durable: bool = False
    wait_seconds: int | None = None
    code: int | None = None
    example: str | None = None


NO_PREFERENCES: Final = Preferences()


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Lower-case names to values, repeated ones joined by a comma."""
    pairs: list[Header] = scope["headers"]
    headers = dict(pairs)
    if len(headers) != len(pairs):
        values: dict[bytes, list[bytes]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        headers = {name: b", ".join(several) for name, several in values.items()}
    return headers


def _remembered(read: Callable[[bytes], Meaning]) -> Callable[[bytes], Meaning]:
    """Clients repeat the same few headers, so what one means is looked up. Long ones are read each time: else whoever
    sends them decides how much memory is taken.
    """
    known = lru_cache(maxsize=_REMEMBERED_MAX)(read)

    def look_up(header: bytes) -> Meaning:
        return known(header) if len(header) <= _REMEMBERED_LENGTH_MAX else read(header)

    return look_up


@_remembered
def accepts_json(accept: bytes) -> bool:
    """Whether `Accept` (RFC 9110, 12.5.1) lets in application/json; the most specific of its ranges decides."""
    specificity = {"*/*": 1, "application/*": 2, "application/json": 3}
    best, acceptable = 0, not accept.strip()
    for part in accept.decode("latin-1").lower().split(","):
        media_range, *parameters = (piece.strip() for piece in part.split(";"))
        specific = specificity.get(media_range, 0)
        if specific > best:
            best = specific
            weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
            acceptable = not weights or bool(weights[0].strip("0."))
    return acceptable


@_remembered
def declares_json(content_type: bytes) -> bool:
    """Whether `Content-Type` says application/json, in UTF-8 where it names a charset. JSON has no other parameters,
    and RFC 8259 lets them pass."""
    media_type, *parameters = (piece.strip() for piece in content_type.decode("latin-1").lower().split(";"))
    return media_type == "application/json" and all(
        not parameter.startswith("charset=") or parameter.replace('"', "") in ("charset=utf-8", "charset=utf8")
        for parameter in parameters
    )


@_remembered
def read_preferences(header: bytes) -> Preferences:
    """`Prefer` (RFC 7240): the first of two preferences of one name counts, and what is not understood is ignored.

    `wait` is taken both as a preference of its own and as a parameter of `durable`."""
    found: dict[str, str] = {}
    for part in header.decode("latin-1").replace(";", ",").split(","):
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))

    def number(name: str) -> int | None:
        text = found.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None

    wait = number("wait")
    return Preferences(
        durable="durable" in found,
        wait_seconds=None if wait is None else min(wait, WAIT_SECONDS_MAX),
        code=number("code"),
        example=found.get("example") or None,
    )
