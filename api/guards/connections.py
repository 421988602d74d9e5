"""Connections that are slow, endless or too many: what uvicorn leaves to whoever stands in front of it.

A client that sends nothing, or sends headers or a body byte by byte, costs one connection and one timer, and only until
its deadline. A request that arrives as it should costs neither: in most cases it comes in one piece.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import OVERLOADED, PROBLEM_MEDIA_TYPE, REQUEST_TIMEOUT, Problem
from api.whole_messages import takes_whole_messages

HEAD_BYTES_MAX: Final = 32 * 1024
BODY_GRACE_S: Final = 1.0
"""The application's own deadline for a body comes first, for it can tell the client; this one is for what it never
reads."""

_TOO_LARGE: Final = f"The address and the headers together have more than {HEAD_BYTES_MAX} bytes."
_NO_REQUEST: Final = "What came is no request of HTTP/1.1"

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a process has, and how long each part of a request and of an answer may take."""

    connections_max: int
    head_seconds_max: float
    body_seconds_max: float
    send_seconds_max: float
    head_bytes_max: int = HEAD_BYTES_MAX


class _Awaited(enum.Enum):
    NOTHING = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()


# By names of their own, since they are looked at five times in a request.
_NOTHING, _HEAD, _BODY = _Awaited.NOTHING, _Awaited.HEAD, _Awaited.BODY


class GuardedConnection(HttpToolsProtocol):
    """One connection. `limited_to` makes the class that a server uses."""

    limits: ClassVar[ConnectionLimits]

    _awaited = _HEAD
    _messages = 0
    _head_bytes = 0
    _piece_bytes = 0
    _head_is_too_large = False
    _timed: tuple[int, _Awaited] | None = None
    _idle_since: float | None = None
    """On the loop's clock; None while a request comes, is answered, or was the last of its connection."""
    _deadline: asyncio.TimerHandle | None = None
    _send_deadline: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self.app = takes_whole_messages(self.app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Closes what is too many at once; for everything else the time for the first headers begins."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            self._refuse(Problem(OVERLOADED, "As many connections are open as this process lets in."))
        else:
            self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets every deadline."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self._stop_deadline()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Takes in a piece of a request, and sets or ends the deadline for the rest of it."""
        if self.transport.is_closing():
            return
        self._piece_bytes = len(data)
        super().data_received(data)
        awaited = self._awaited
        if awaited is _NOTHING:
            if self._deadline is not None:
                self._stop_deadline()
            if self.cycle.response_complete:
                # Blank lines between requests, or the end of a body that nobody wanted: uvicorn counts neither as idle.
                self._awaited = _HEAD
                self._await_more()
        elif not self.transport.is_closing():
            self._head_bytes = self._head_bytes + len(data) if awaited is _HEAD else 0
            if self._head_bytes > self.limits.head_bytes_max:
                self._refuse_unread(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif self._timed != (self._messages, awaited):
                self._await_more()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._awaited = _HEAD
        self._messages += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are there. They are added up only where what has come could be too much."""
        head_bytes_max = self.limits.head_bytes_max
        if self._head_bytes + self._piece_bytes > head_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > head_bytes_max:
                self._head_is_too_large = True
                raise ValueError("the headers are too large")
        self._awaited = _BODY
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._awaited = _NOTHING
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses what the parser, or this connection while it parses, does not take."""
        too_large = self._head_is_too_large
        if too_large:
            self._refuse_unread(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            # uvicorn's own message is the same for all; what the parser found is the error that it handles just now.
            self._refuse_unread(HTTPStatus.BAD_REQUEST, _what_is_wrong(sys.exception()))

    def pause_writing(self) -> None:
        """The client does not take its answer as fast as it comes; it has a while for that."""
        super().pause_writing()
        if self._send_deadline is None:
            self._send_deadline = self.loop.call_later(self.limits.send_seconds_max, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None

    def _unset_keepalive_if_required(self) -> None:
        """Notes that the connection is not idle. uvicorn cancels its timer here, and sets another after each answer,
        which costs a fortieth of a request; this one runs on, and when it is over looks how long nothing came.
        """
        self._idle_since = None

    def on_response_complete(self) -> None:
        """Notes since when the connection is idle. uvicorn's own does the rest where there is no timer yet or any more,
        and where the next of several requests is there or no other will come.
        """
        is_next_there = bool(self.pipeline)
        if is_next_there or self.timeout_keep_alive_task is None or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        is_idle = not (is_next_there or self.transport.is_closing())
        self._idle_since = self.loop.time() if is_idle else None

    def timeout_keep_alive_handler(self) -> None:
        """Ends an idle connection, also one whose client never took its last answer."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # the next answer sets a timer
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _await_more(self) -> None:
        self._stop_deadline()
        limits = self.limits
        self._timed = (self._messages, self._awaited)
        in_head = self._awaited is _HEAD
        seconds = limits.head_seconds_max if in_head else limits.body_seconds_max + BODY_GRACE_S
        self._deadline = self.loop.call_later(seconds, self._end)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._timed = None

    def _end(self) -> None:
        """The deadline is over. An earlier request on this connection that is still being answered is let finish."""
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._awaited is _BODY:
            if self.flow.read_paused:
                self._await_more()
            else:
                self.transport.abort()
        elif self.cycle is not None and not self.cycle.response_complete:
            self._await_more()
        elif self._head_bytes == 0:
            self.transport.close()
        else:
            seconds = self.limits.head_seconds_max
            self._refuse(Problem(REQUEST_TIMEOUT, f"The headers were not complete after {seconds:g} seconds."))

    def _refuse(self, problem: Problem) -> None:
        """Answers with a problem what no application has seen, and closes."""
        request_id = secrets.token_hex(8)
        body = problem.encode(request_id=request_id, repeatable=True)
        self._answer(HTTPStatus(problem.kind.status), request_id, body, problem.headers)

    def _refuse_unread(self, status: HTTPStatus, detail: str = _TOO_LARGE) -> None:
        """Answers what is no request, so that no operation's problems apply: the status says all (RFC 9457, 4.2.1).

        Where an earlier request on this connection is not answered yet, nothing is said: it would be taken for that
        one's answer, though it may have been done.
        """
        if self._owes_an_answer():
            self._stop_deadline()
            self.transport.close()
            return
        request_id = secrets.token_hex(8)
        body = {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": f"{detail} Nothing was changed.",
            "retryable": False,
            "request_id": request_id,
        }
        self._answer(status, request_id, orjson.dumps(body), {})

    def _owes_an_answer(self) -> bool:
        """Whether a request is being answered that is not the one that comes in."""
        cycle = self.cycle
        if self.pipeline:
            return True
        if cycle is None or cycle.response_complete:
            return False
        return self._awaited is not _BODY or cycle.response_started

    def _answer(self, status: HTTPStatus, request_id: str, body: bytes, more: Mapping[str, str]) -> None:
        self._stop_deadline()
        lines = {
            **more,
            "Content-Type": PROBLEM_MEDIA_TYPE,
            "X-Request-Id": request_id,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Connection": "close",
        }
        head = "".join(f"{name.lower()}: {value}\r\n" for name, value in lines.items())
        self.transport.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode("latin-1") + body)
        self.transport.close()


def _what_is_wrong(error: BaseException | None) -> str:
    """What the parser found, in a sentence. Its own messages are fixed texts, so nothing of the request is in them."""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        # TLS, too, begins with what is no method. A load balancer ends it, and this port never does.
        return f"{_NO_REQUEST}: it begins with no method that is known. This port speaks http://, not https://."
    if isinstance(error, httptools.HttpParserError) and not isinstance(error, httptools.HttpParserCallbackError):
        return f"{_NO_REQUEST}: {error}."
    return f"{_NO_REQUEST}."


def limited_to(limits: ConnectionLimits) -> type[GuardedConnection]:
    """The protocol for uvicorn's `http`, with these limits."""
    # uvicorn warns of what clients do wrong, which nobody here can mend; what the application does wrong is an error.
    _log.setLevel(logging.ERROR)
    return type("LimitedConnection", (GuardedConnection,), {"limits": limits})
