"""One connection of a lane: bytes to replies, in order. What to do about errors and loss is the lane's business."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, cast

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from engine.errors import OutcomeUnknown
from engine.scripts import Script

Argument: TypeAlias = bytes | str | int
Call: TypeAlias = tuple[
    "asyncio.Future[Any]",  # resolved by the reply; done already when its caller gave up
    float,  # deadline, on the event loop's clock
    Script | None,  # None for a plain command
    Sequence[bytes | str],  # the script's keys
    Sequence[Argument],  # the script's arguments after the identity, or the whole plain command
    int,  # how often its script had to be loaded
    int,  # the partition that it is about
]
"""A call on its way. A bare tuple, because one is made for every call: a class costs a third of a microsecond more."""

_NOTHING = object()
_EVALSHA = b"EVALSHA"
_pack = cast(Callable[[tuple[Argument, ...]], bytes], pack_command)  # hiredis's own annotation allows one item only
_LINGER_NOT = struct.pack("ii", 1, 0)


class ConnectionOwner(Protocol):
    """What a connection tells its lane."""

    def error_reply(self, call: Call, error: ReplyError) -> None: ...
    def writable_again(self) -> None: ...


class LaneConnection(asyncio.Protocol):
    """Calls written together, replies matched in order.

    ``in_flight`` holds the calls that were written and not answered, oldest first. ``progress_at`` is when the server
    last sent something, or when something was last written to a server that owed nothing. ``lost`` resolves with the
    reason.
    """

    __slots__ = (
        "_finishing",
        "_loop",
        "_owner",
        "_paused",
        "_reader",
        "_transport",
        "in_flight",
        "lost",
        "progress_at",
    )

    def __init__(self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(notEnoughData=_NOTHING)
        self._paused = False
        self._finishing = False
        self.in_flight: deque[Call] = deque()
        self.progress_at = 0.0
        self.lost: asyncio.Future[str] = loop.create_future()

    @property
    def writable(self) -> bool:
        transport = self._transport
        return not (self._paused or self._finishing or transport is None or transport.is_closing())

    def write(self, calls: Sequence[Call], identity: bytes) -> int:
        """Send calls in one write, but not those whose callers gave up. ``identity`` becomes each script's ARGV[1].

        Returns how many were sent.
        """
        transport = self._transport
        assert transport is not None
        in_flight = self.in_flight
        if not in_flight:
            self.progress_at = self._loop.time()
        packets: list[bytes] = []
        for call in calls:
            future, _, script, keys, arguments, _, _ = call
            if future.done():
                continue
            try:
                if script is None:
                    packet = _pack(tuple(arguments))
                else:
                    packet = _pack((_EVALSHA, script.sha1, len(keys), *keys, script.claim + identity, *arguments))
            except Exception as error:  # an argument of a wrong type is the fault of this caller alone
                future.set_exception(error)
                continue
            packets.append(packet)
            in_flight.append(call)
        if packets:
            transport.write(b"".join(packets))
        return len(packets)

    def finish(self) -> None:
        """Write nothing more; drop the connection when all that is in flight is answered."""
        self._finishing = True
        if not self.in_flight:
            self.drop("it was given up")

    def drop(self, reason: str) -> None:
        """Close at once and hard, with what is in flight of unknown outcome."""
        self._finishing = True
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                # Reset, not closed: what is still in the kernel's send buffer shall not reach the server later.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self._transport.abort()
            self._transport = None
        self._end(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        self.progress_at = self._loop.time()
        gets = self._reader.gets
        next_call = self.in_flight.popleft
        reply: Any = None
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _NOTHING:
                call = next_call()
                if type(reply) is ReplyError:
                    self._owner.error_reply(call, reply)
                else:
                    future = call[0]
                    if not future.done():
                        future.set_result(reply)
        except IndexError:
            # A server that has no room for one more says so before it is asked anything.
            self.drop(str(reply) if type(reply) is ReplyError else "it sent a reply to nothing")
        except ProtocolError as error:
            self.drop(f"it sent what is no reply to anything ({error})")
        if self._finishing and not self.in_flight:
            self.drop("it was given up")

    def eof_received(self) -> None:
        # Its loss is told a tick later, and what is written until then would reach nobody.
        self._finishing = True

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._owner.writable_again()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end(f"the connection was lost ({error})" if error else "the connection was closed by the server")

    def _end(self, reason: str) -> None:
        self._finishing = True
        calls, self.in_flight = self.in_flight, deque()
        for call in calls:
            if not call[0].done():
                call[0].set_exception(OutcomeUnknown(reason))
        if not self.lost.done():
            self.lost.set_result(reason)
