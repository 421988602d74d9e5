"""The body of a request: received in bounded size and time, then JSON of the operation's type, without repeated names.

It is mostly there with the headers: then nothing is waited for, and no timer is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Final

import msgspec
from starlette.types import Receive

from api.problems import BODY_TOO_LARGE, MALFORMED_BODY, REQUEST_TIMEOUT, Problem
from api.request_faults import invalid_body, malformed_body, unsupported_media_type
from api.request_headers import declares_json
from api.whole_messages import WholeReceive

BODY_BYTES_MAX: Final = 64 * 1024
BODY_SECONDS_MAX: Final = 10.0
BODY_DEPTH_MAX: Final = 32

_JSON: Final = b"application/json"
_BRACKETS: Final = re.compile(rb'[][{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class ClientGone(Exception):
    """The client left before its request was complete."""


class BodyReader:
    """Reads the bodies of one operation's requests; one that `is_optional` may be left out."""

    __slots__ = ("_bytes_max", "_decode", "_encode", "_is_optional", "_members_least", "_seconds_max", "_type")

    def __init__(
        self, request_type: type[msgspec.Struct], is_optional: bool, bytes_max: int, seconds_max: float
    ) -> None:
        self._type = request_type
        self._is_optional = is_optional
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max
        self._decode = msgspec.json.Decoder(request_type).decode
        self._encode = msgspec.json.Encoder().encode
        self._members_least = sum(field.required for field in msgspec.structs.fields(request_type))

    async def read(self, headers: dict[bytes, bytes], receive: Receive) -> msgspec.Struct | None:
        """The request in a body; None where it is left out and may be.

        Raises `ClientGone`, or the problem of a body that is too large, too late, not declared as JSON, not JSON, or
        not what the operation takes.
        """
        # Refused before it is sent. Where less is announced than comes, it is what comes that counts.
        declared = headers.get(b"content-length")
        if declared is not None and len(declared) > 4 and declared.isdigit() and int(declared) > self._bytes_max:
            raise self._too_large()
        body = receive.whole() if type(receive) is WholeReceive else None
        if body is None:
            body = await self._receive_all(receive)
        elif len(body) > self._bytes_max:
            raise self._too_large()
        if not body:
            if self._is_optional:
                return None
            raise Problem(MALFORMED_BODY, "The body is empty; it must be JSON.")
        content_type = headers.get(b"content-type", b"")
        is_json = content_type == _JSON or declares_json(content_type)
        if not is_json or b"content-encoding" in headers:
            raise unsupported_media_type(headers, declares_json=is_json)
        return self._decode_body(body)

    async def _receive_all(self, receive: Receive) -> bytes:
        """The whole body, counted as it comes, whatever its announced length."""
        parts: list[bytes] = []
        size = 0
        more = True
        try:
            async with asyncio.timeout(self._seconds_max):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._bytes_max:
                        raise self._too_large()
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Problem(REQUEST_TIMEOUT, f"The body was not complete after {self._seconds_max:g} seconds.") from None
        return b"".join(parts)

    def _decode_body(self, body: bytes) -> msgspec.Struct:
        try:
            decoded: msgspec.Struct = self._decode(body)
        except msgspec.ValidationError as error:
            # The decoder stops at the first wrong type; what is not JSON further on is still not JSON.
            _require_json(body)
            raise invalid_body(self._type, body, error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed_body(error, body) from None
        # The decoder takes the last of two members of one name, another reader the first. As many colons as there must
        # be members, or as the decoded value has, leave no room for a second one.
        colons = body.count(b":")
        if colons != self._members_least and (colons != self._encode(decoded).count(b":") or b"\\" in body):
            _require_unique_names(body)
        return decoded

    def _too_large(self) -> Problem:
        limit = self._bytes_max
        return Problem(BODY_TOO_LARGE, f"The body has more than {limit} bytes.", limit=limit)


def _require_json(body: bytes) -> None:
    _require_shallow(body)
    try:
        # JSON bounds no number, so one that no type here can hold is only out of range.
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.json.decode(body)
        _require_unique_names(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise malformed_body(error, body) from None


def _require_shallow(body: bytes) -> None:
    """Refuses a body that is nested more deeply than any that is taken, before anything follows it down."""
    depth = 0
    for bracket in _BRACKETS.finditer(body):
        found = bracket[0]
        if found in (b"[", b"{"):
            depth += 1
            if depth > BODY_DEPTH_MAX:
                raise Problem(MALFORMED_BODY, f"The body is not JSON: nested more than {BODY_DEPTH_MAX} deep.")
        elif found in (b"]", b"}"):
            depth -= 1


def _require_unique_names(body: bytes) -> None:
    def unique(pairs: list[tuple[str, object]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise Problem(MALFORMED_BODY, "The body has a member twice in one object.")

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    # Numbers stay texts: Python makes no integer of some thousands of digits.
    json.loads(body, object_pairs_hook=unique, parse_int=str, parse_float=str, parse_constant=refuse)
