"""Idempotency keys over HTTP: what makes two requests the same, and how a repeated answer says that it is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine.idempotency import RequestKey, request_key

if TYPE_CHECKING:
    from api.asgi import Call
    from api.whole_messages import Header

KEY_LENGTH_MAX: Final = 255

_REPLAYED: Final[Header] = (b"idempotent-replayed", b"true")


def key_of(call: Call[Any, Any]) -> RequestKey | None:
    """The request's key, if it has one. The same request: the same operation, path and body, however written.

    A user's key is one for all of the user's requests. An operator's belongs to the product or the delivery that the
    request is about, for there its effect is.
    """
    if call.idempotency_key is None:
        return None
    params = call.path_params
    owner = params.get("user_id", "")
    scope = "" if owner else params.get("product_id", "")
    body = b"" if call.body is None else msgspec.json.encode(call.body)
    parts = (call.operation.operation_id, *params.values())
    request = "\0".join(parts).encode() + b"\0" + (b"" if body == b"{}" else body)
    return request_key(owner, call.idempotency_key, scope, request)


def replayed_headers(replayed: bool) -> tuple[Header, ...]:
    """The header of an answer that is the first request's."""
    return (_REPLAYED,) if replayed else ()
