"""What is handed over at once, and that uvicorn's own requests are left as its messages would leave them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.whole_messages import FixedHeaders, WholeReceive, WholeSend


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False


def cycle_of(
    body: bytes, transport: Transport | None = None, servers: list[tuple[bytes, bytes]] | None = None
) -> RequestResponseCycle:
    """A request of uvicorn's, all of which has come."""
    written = cast("asyncio.Transport", transport or Transport())
    event = asyncio.Event()
    event.set()
    cycle = RequestResponseCycle(
        scope=cast("Any", {"method": "POST"}),
        transport=written,
        flow=FlowControl(written),
        logger=logging.getLogger(),
        access_logger=logging.getLogger(),
        access_log=False,
        default_headers=[] if servers is None else servers,
        message_event=event,
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    cycle.body += body
    cycle.more_body = False
    return cycle


async def test_a_body_is_given_once_and_then_only_its_clients_leave_is_waited_for() -> None:
    cycle = cycle_of(b"{}")
    receive = WholeReceive(cycle)
    assert receive.whole() == b"{}"
    assert receive.whole() == b""
    waiting = asyncio.ensure_future(receive())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    cycle.disconnected = True
    cycle.message_event.set()
    assert await waiting == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    "left",
    [{"more_body": True}, {"disconnected": True}, {"response_complete": True}, {"waiting_for_100_continue": True}],
)
async def test_what_is_not_there_whole_is_not_given_and_stays(left: dict[str, bool]) -> None:
    cycle = cycle_of(b"{}")
    for name, value in left.items():
        setattr(cycle, name, value)
    assert WholeReceive(cycle).whole() is None
    assert (bytes(cycle.body), cycle.message_event.is_set()) == (b"{}", True)


async def test_each_answer_says_the_servers_date_of_its_own_moment() -> None:
    fixed = FixedHeaders((b"x-fixed", b"1"), (b"x-too", b"2"))
    first, second = [(b"date", b"first")], [(b"date", b"second")]
    for servers in (first, first, second, first):
        transport = Transport()
        assert WholeSend(cycle_of(b"", transport, servers)).whole(200, fixed, [(b"content-length", b"2")], b"{}")
        assert transport.written == [
            b"HTTP/1.1 200 OK\r\ndate: %b\r\nx-fixed: 1\r\nx-too: 2\r\ncontent-length: 2\r\n\r\n{}" % servers[0][1]
        ]


@pytest.mark.parametrize("headers", [[], [(b"x", b"1\r\ny: 2")], [(b"x", b"1\n")], [(b"x\r", b"1")]])
def test_fixed_headers_are_some_and_each_is_one_line(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValueError, match="line break"):
        FixedHeaders(*headers)
