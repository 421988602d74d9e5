"""Opaque cursors of lists that are ordered by an id."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from api.problems import invalid_request

NUMBER_LENGTH_MAX: Final = 16


def encode_cursor(last_id: str) -> str:
    """The cursor of the page that begins after ``last_id``."""
    return base64.urlsafe_b64encode(last_id.encode()).decode()


def decode_cursor(cursor: str | None) -> str:
    """The id after which the page begins; empty for the first page. Raises the problem for what is no cursor."""
    if cursor is None:
        return ""
    try:
        last_id = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise invalid_request("query.cursor", "Expected the `next_cursor` of the page before") from error
    if not last_id:
        raise invalid_request("query.cursor", "Expected the `next_cursor` of the page before")
    return last_id


def encode_number_cursor(last_number: int) -> str:
    """The same for lists that go down by a number."""
    return encode_cursor(str(last_number))


def decode_number_cursor(cursor: str | None) -> int | None:
    """The number below which the page begins; None for the first page. Raises as `decode_cursor`."""
    text = decode_cursor(cursor)
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > NUMBER_LENGTH_MAX:
        raise invalid_request("query.cursor", "Expected the `next_cursor` of the page before")
    return int(text)
