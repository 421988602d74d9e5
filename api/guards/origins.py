"""Which web pages may ask (CORS): the browser keeps every other page from reading an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ANY: Final = "*"
EXPOSED: Final = ("Location", "ETag", "Retry-After", "Idempotent-Replayed", "Preference-Applied")
TAKEN: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Prefer",
    "X-Request-Id",
)
PREFLIGHT_SECONDS: Final = 7200
"""How long a browser may remember what it was allowed; Chromium takes no more than this."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?")
_VARY: Final = (b"vary", b"Origin")
_EXPOSE: Final = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())


class CrossOrigin:
    """Origins that may read answers: `https://shop.example`, spaces or commas between them, or `*` for all.

    Raises ValueError for what is no origin. No cookie is ever read, so credentials are never allowed.
    """

    def __init__(self, origins: str) -> None:
        listed = origins.replace(",", " ").split()
        for origin in listed:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin such as https://shop.example")
        self._any = ANY in listed
        self._origins = frozenset(origin.encode("ascii") for origin in listed)
        self.allows_some = bool(listed)
        """Where it is false no answer says a word of origins, so nothing is asked of this."""

    def answer_headers(self, origin: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
        """What every answer to a request from ``origin`` says."""
        if self._any:
            return ((b"access-control-allow-origin", b"*"), _EXPOSE)
        if origin in self._origins and origin is not None:
            return (_VARY, (b"access-control-allow-origin", origin), _EXPOSE)
        return (_VARY,)

    def preflight_headers(self, headers: Mapping[bytes, bytes], allow: str) -> tuple[tuple[bytes, bytes], ...] | None:
        """The answer to a browser that asks before it asks; None where this OPTIONS is no such question."""
        origin = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers:
            return None
        allowed = self.answer_headers(origin)
        if len(allowed) == 1:
            return allowed
        return (
            *(header for header in allowed if header is not _EXPOSE),
            (b"access-control-allow-methods", allow.encode("ascii")),
            (b"access-control-allow-headers", ", ".join(TAKEN).encode()),
            (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
        )
