"""Times: RFC 3339 in UTC with milliseconds on the wire (`2026-01-02T03:04:05.678Z`), milliseconds since 1970 inside."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

TIME_PATTERN: Final = (
    r"^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?Z\Z"
)
"""What `parse_time` takes, as far as a pattern can tell: from 1970 on, up to three decimals of a second, always UTC."""

LAST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999; RFC 3339 has no later year."""

_SHORTEST: Final = len("2026-01-02T03:04:05Z")
_LONGEST: Final = len("2026-01-02T03:04:05.678Z")
_DIGITS: Final = "0123456789"


@lru_cache(maxsize=4096)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=1024)
def format_time(ms: int) -> str:
    """Milliseconds since 1970 (0 to the end of the year 9999) as text; ValueError outside."""
    if not 0 <= ms <= LAST_MS:
        raise ValueError(f"{ms} ms is not a time between the years 1970 and 9999")
    second, rest = divmod(ms, 1000)
    return f"{_format_second(second)}.{rest:03d}Z"


def format_optional_time(ms: int | None) -> str | None:
    """`format_time`, where an absent time stays absent."""
    return None if ms is None else format_time(ms)


def format_moment(at: datetime) -> str:
    """`format_time` of an aware datetime, rounded to a millisecond."""
    return format_time(round(at.timestamp() * 1000))


def format_optional_moment(at: datetime | None) -> str | None:
    """`format_moment`, where an absent time stays absent."""
    return None if at is None else format_moment(at)


def parse_time(text: str) -> int:
    """Text as milliseconds since 1970. Takes UTC (`Z`) with up to three decimals of a second; ValueError for all else,
    for a day that does not exist and for a time before 1970."""
    if not _SHORTEST <= len(text) <= _LONGEST or text[10] != "T" or text[-1] != "Z":
        raise ValueError(f"{text[:40]!r} is not a time such as 2026-01-02T03:04:05.678Z")
    fraction = text[_SHORTEST - 1 : -1]
    if fraction and (fraction[0] != "." or len(fraction) == 1 or fraction[1:].strip(_DIGITS)):
        raise ValueError(f"{text!r} has decimals of a second that are not one to three digits")
    try:
        moment = datetime.strptime(text[: _SHORTEST - 1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{text!r} is not a time that exists") from None
    # strptime is lenient about single digits and other scripts' digits; only the canonical writing is taken.
    if moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(_SHORTEST - 1, "0") != text[: _SHORTEST - 1] or moment.year < 1970:
        raise ValueError(f"{text!r} is not a time between the years 1970 and 9999")
    return int(moment.timestamp()) * 1000 + int(fraction[1:].ljust(3, "0") or 0)
