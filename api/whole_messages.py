"""A request that is there whole is read at once, and an answer that is there whole leaves in one write.

uvicorn gives a body in messages that are waited for, takes an answer in two of them, looks at each header by two
regular expressions and writes head and body apart: a fourth of what a process spends on a coupon. Here body, and head
with body, are handed over at once, and uvicorn's requests are left as its messages would leave them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]

_LINE = b": ".join


def _lines(headers: Sequence[Header]) -> bytes:
    return b"\r\n".join(map(_LINE, headers))


class FixedHeaders:
    """Headers that many answers have alike, made lines once. Their names are in lower case; what an answer's length is,
    and whether its connection goes on, is its own.
    """

    __slots__ = ("headers", "lines")

    def __init__(self, *headers: Header) -> None:
        if not headers or any({*part} & {*b"\r\n"} for header in headers for part in header):
            raise ValueError(f"there is none, or a line break is in one of them: {headers}")
        self.headers = headers
        self.lines = _lines(headers)


class _ServersHeaders:
    """uvicorn's own headers as lines: it makes them anew once a second, for the date."""

    __slots__ = ("_headers", "_lines")

    def __init__(self) -> None:
        self._headers: Sequence[Header] | None = None
        self._lines = b""

    def lines(self, headers: Sequence[Header]) -> bytes:
        """Each ends with a line break."""
        if headers is not self._headers:
            self._headers = headers
            self._lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._lines


_servers = _ServersHeaders()


class WholeReceive:
    """uvicorn's `receive` of one request."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def __call__(self) -> Awaitable[Message]:
        """As ASGI has it."""
        return self._cycle.receive()  # type: ignore[return-value]

    def whole(self) -> bytes | None:
        """What is left of the body, where all of it has come; None where it has to be waited for, or its client has
        gone.
        """
        cycle = self._cycle
        if cycle.more_body or cycle.waiting_for_100_continue or cycle.disconnected or cycle.response_complete:
            return None
        cycle.flow.resume_reading()
        body = bytes(cycle.body)
        cycle.body = bytearray()
        cycle.message_event.clear()
        return body


class WholeSend:
    """uvicorn's `send` of one request. Whoever wraps it in a `send` of its own sees every answer in messages."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def __call__(self, message: Message) -> Awaitable[None]:
        """As ASGI has it."""
        self._look_for_client()
        return self._cycle.send(message)  # type: ignore[arg-type]

    def whole(self, status: int, fixed: FixedHeaders, headers: Sequence[Header], body: bytes) -> bool:
        """Answers; or does nothing and returns False, where uvicorn's own two messages are needed: the client is not to
        be answered at once, the connection ends with this answer, or a line break is in a header.

        `headers` have lower-case names and the body's length; `body` is nothing where none may follow.
        """
        cycle = self._cycle
        self._look_for_client()
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        lines = _lines(headers)
        breaks = len(headers) - 1
        if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks or lines.find(b"connection:") >= 0:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        servers = _servers.lines(cycle.default_headers)
        cycle.transport.write(b"%b%b%b\r\n%b\r\n\r\n%b" % (STATUS_LINE[status], servers, fixed.lines, lines, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _look_for_client(self) -> None:
        """Of a client that has gone uvicorn tells the newest request of its connection alone, and uvloop's transport
        raises at what is written to nobody.
        """
        if self._cycle.transport.is_closing():
            self._cycle.disconnected = True


def takes_whole_messages(app: Any) -> Any:
    """The application, given a `WholeReceive` and a `WholeSend` by each of uvicorn's requests."""

    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        served: Awaitable[None] = app(scope, WholeReceive(cycle), WholeSend(cycle))
        return served

    return serve
