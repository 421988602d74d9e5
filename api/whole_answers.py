"""An answer that is there whole leaves in one write.

uvicorn takes an answer in two messages, looks at each header by two regular expressions and writes head and body apart:
a fifth of what a process spends on a coupon. Here it gets head and body at once, and does the same with them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]

_LINE = b": ".join


class WholeSend:
    """uvicorn's `send` of one request. Whoever wraps it in a `send` of its own sees every answer in messages."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def __call__(self, message: Message) -> Awaitable[None]:
        """As ASGI has it."""
        self._look_for_client()
        return self._cycle.send(message)  # type: ignore[arg-type]

    def whole(self, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Answers; or does nothing and returns False, where uvicorn's own two messages are needed: the client is not to
        be answered at once, the connection ends with this answer, or a line break is in a header.

        `headers` have lower-case names and the body's length; `body` is nothing where none may follow.
        """
        cycle = self._cycle
        self._look_for_client()
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        lines = [STATUS_LINE[status][:-2], *map(_LINE, cycle.default_headers), *map(_LINE, headers)]
        head = b"\r\n".join(lines)
        breaks = len(lines) - 1
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\nconnection:" in head:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"%b\r\n\r\n%b" % (head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _look_for_client(self) -> None:
        """Of a client that has gone uvicorn tells the newest request of its connection alone, and uvloop's transport
        raises at what is written to nobody.
        """
        if self._cycle.transport.is_closing():
            self._cycle.disconnected = True


def takes_whole_answers(app: Any) -> Any:
    """The application, given a `WholeSend` by each of uvicorn's requests."""

    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        served: Awaitable[None] = app(scope, receive, WholeSend(send.__self__))  # type: ignore[attr-defined]
        return served

    return serve
