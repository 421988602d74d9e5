"""Connections that are slow, endless or too many, against a server in this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pytest
import uvicorn
import uvloop

from api.asgi import Answer, Call, Surface
from api.guards.connections import ConnectionLimits, limited_to
from api.operations import OPERATIONS

WITHIN_S: Final = 20.0
POLICIES: Final = b"GET /v1/policies HTTP/1.1\r\nHost: shop\r\n\r\n"
CHARGE: Final = (
    b"POST /v1/users/mina/balance/charges HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
    b"Content-Length: 12\r\n\r\n"
)
REFUSED: Final = CHARGE.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nAccept: text/html\r\n")

Respond = Callable[[Call[Any, Any]], Awaitable[Answer]]


async def nothing(_: Call[Any, Any]) -> Answer:
    return Answer(200, b"{}")


@dataclass
class Server:
    """A running server, and what it says to bytes that are written to it."""

    port: int
    connections: set[Any]
    tasks: set[Any]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def tell(self, *pieces: bytes, trickle: bytes = b"") -> bytes:
        """All that is answered until the server ends the connection; `trickle` is sent over and over meanwhile."""
        reader, writer = await self.connect()

        async def send() -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            while trickle:
                writer.write(trickle)
                await writer.drain()
                await asyncio.sleep(0.01)

        sending = asyncio.create_task(send())
        received = b""
        try:
            async with asyncio.timeout(WITHIN_S):
                with contextlib.suppress(ConnectionError):
                    while piece := await reader.read(65_536):
                        received += piece
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return received


@contextlib.asynccontextmanager
async def serving(
    respond: Respond = nothing,
    *,
    connections_max: int = 100,
    head_s: float = 0.2,
    body_s: float = 0.2,
    send_s: float = 0.2,
    keep_alive_s: int = 60,
    within: Callable[[Surface], Any] = lambda surface: surface,
) -> AsyncIterator[Server]:
    surface = Surface({operation.operation_id: respond for operation in OPERATIONS}, body_seconds_max=body_s)
    config = uvicorn.Config(
        within(surface),
        http=limited_to(ConnectionLimits(connections_max, head_s, body_s, send_s)),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await until(lambda: server.started)
            yield Server(listener.getsockname()[1], server.server_state.connections, server.server_state.tasks)
        finally:
            server.should_exit = True
            await serving


def answered(received: bytes) -> tuple[int, dict[str, Any]]:
    """The only answer that was received: its status and problem."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), msgspec.json.decode(body)


async def test_headers_that_trickle_are_cut_off_and_told_why() -> None:
    async with serving() as server:
        status, problem = answered(await server.tell(b"GET /v1/policies HTTP/1.1\r\n", trickle=b"X-A: b\r\n"))
    assert (status, problem["type"], problem["retryable"]) == (408, "/problems/request-timeout", True)


@pytest.mark.parametrize("start", [b"G", b"GET /v1/policies HTTP/1.1\r\nHost: shop\r\n"])
async def test_headers_that_stop_are_cut_off(start: bytes) -> None:
    async with serving() as server:
        assert answered(await server.tell(start))[0] == 408


async def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    async with serving() as server:
        assert await server.tell() == b""


async def test_blank_lines_keep_no_connection_open() -> None:
    async with serving() as server:
        assert answered(await server.tell(trickle=b"\r\n"))[0] == 408
        assert (await server.tell(POLICIES, trickle=b"\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("trickle", [b"", b" "])
async def test_a_body_that_does_not_come_in_time_is_cut_off_and_told_why(trickle: bytes) -> None:
    async with serving() as server:
        request = CHARGE.replace(b"Content-Length: 12", b"Content-Length: 60000")
        assert answered(await server.tell(request, trickle=trickle))[0] == 408


async def test_a_body_that_nobody_reads_is_cut_off_too() -> None:
    async with serving() as server:
        request = REFUSED.replace(b"Content-Length: 12", b"Content-Length: 60000")
        assert b"HTTP/1.1 406" in await server.tell(request, trickle=b" ")


async def test_a_request_in_pieces_and_the_next_on_its_connection_are_served() -> None:
    async with serving(head_s=5, body_s=5, keep_alive_s=1) as server:
        received = await server.tell(POLICIES[:9], POLICIES[9:], CHARGE, b'{"amount":', b"1}", POLICIES)
    assert received.count(b"HTTP/1.1 200") == 3


async def test_a_request_that_is_answered_slowly_is_not_cut_off() -> None:
    async def slowly(_: Call[Any, Any]) -> Answer:
        await asyncio.sleep(0.7)
        return Answer(200, b"{}")

    async with serving(slowly, body_s=5, keep_alive_s=1) as server:
        received = await server.tell(POLICIES, POLICIES[:20])
        assert received.count(b"HTTP/1.1 200") == 1
        received = await server.tell(POLICIES, POLICIES)
        assert received.count(b"HTTP/1.1 200") == 2


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = POLICIES) -> bytes:
    """The head of one answer, of those whose body is `{}`."""
    writer.write(request)
    return (await reader.readuntil(b"\r\n\r\n{}")).lower()


async def test_a_connection_is_idle_from_its_last_answer_on() -> None:
    async with serving(keep_alive_s=1) as server, asyncio.timeout(WITHIN_S):
        reader, writer = await server.connect()
        began = asyncio.get_running_loop().time()
        for _ in range(4):
            assert b"http/1.1 200" in await ask(reader, writer)
            await asyncio.sleep(0.4)
        answered_at = asyncio.get_running_loop().time() - 0.4
        assert answered_at - began > 1, "so long that a timer of the first answer would be over"
        assert await reader.read() == b"", "and then it is closed"
        assert asyncio.get_running_loop().time() - answered_at > 0.99
        writer.close()


async def test_a_connection_is_not_idle_while_a_request_is_answered() -> None:
    async def slowly(call: Call[Any, Any]) -> Answer:
        await asyncio.sleep(1.3 if call.body is not None else 0)
        return Answer(200, b"{}")

    async with serving(slowly, body_s=WITHIN_S, keep_alive_s=1) as server, asyncio.timeout(WITHIN_S):
        slow = CHARGE + b'{"amount":1}'
        for requests in ([POLICIES, slow, POLICIES], [POLICIES + slow, b""], [POLICIES, POLICIES + slow, b""]):
            reader, writer = await server.connect()
            for request in requests:
                assert b"http/1.1 200" in await ask(reader, writer, request)
            assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize("end", [lambda writer: writer.close(), lambda writer: writer.transport.abort()])
async def test_a_connection_that_is_closed_leaves_nothing_behind(end: Callable[[asyncio.StreamWriter], None]) -> None:
    async with serving() as server:
        reader, writer = await server.connect()
        await ask(reader, writer)
        (connection,) = server.connections
        timer = connection.timeout_keep_alive_task
        assert timer is not None
        end(writer)
        await until(lambda: not server.connections)
        assert timer.cancelled()


async def test_an_answer_that_ends_its_connection_does() -> None:
    async def last(_: Call[Any, Any]) -> Answer:
        return Answer(200, b"{}", [(b"connection", b"close")])

    async with serving(last) as server, asyncio.timeout(WITHIN_S):
        reader, writer = await server.connect()
        writer.write(POLICIES)
        assert (await reader.read()).endswith(b"{}"), "read to its end, which no timer brings about in that time"
        writer.close()


async def test_a_last_answer_has_the_time_that_its_client_takes() -> None:
    """However long ago the connection was idle."""

    async def much(_: Call[Any, Any]) -> Answer:
        return Answer(200, b'"' + b"x" * 8_000_000 + b'"')

    async with serving(much, send_s=WITHIN_S, keep_alive_s=1) as server, asyncio.timeout(WITHIN_S):
        reader, writer = await server.connect()
        writer.write(POLICIES)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(8_000_002)
        writer.write(POLICIES.replace(b"Host", b"Connection: close\r\nHost"))
        await asyncio.sleep(1.5)
        assert (await reader.read()).endswith(b'x"')
        writer.close()


async def test_what_waits_behind_a_request_is_not_done_for_a_client_that_has_left() -> None:
    begun = 0
    answer = asyncio.Event()

    async def respond(_: Call[Any, Any]) -> Answer:
        nonlocal begun
        begun += 1
        await answer.wait()
        return Answer(200, b"{}")

    async with serving(respond, head_s=5, body_s=5) as server:
        _, writer = await server.connect()
        writer.write((CHARGE + b'{"amount":1}') * 2)
        await until(lambda: begun == 1)
        writer.close()
        await until(lambda: not server.connections)
        answer.set()
        await until(lambda: not server.tasks)
    assert begun == 1


async def test_a_body_is_measured_where_it_comes_in_one_piece_too() -> None:
    body = b'{"amount":1' + b" " * 70_000 + b"}"
    async with serving(body_s=WITHIN_S, keep_alive_s=0) as server:
        received = await server.tell(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert received.startswith(b"HTTP/1.1 413")


async def test_headers_without_an_end_are_refused() -> None:
    async with serving(head_s=WITHIN_S) as server:
        received = await server.tell(POLICIES[:-2], trickle=b"X-Filler: " + b"x" * 1000 + b"\r\n")
    if received:
        assert answered(received)[0] == 431


@pytest.mark.parametrize("head", [b"X-Filler: " + b"x" * 40_000, b"\r\n".join(b"X-%d: y" % n for n in range(5_000))])
async def test_headers_that_are_too_large_are_refused_also_where_they_come_at_once(head: bytes) -> None:
    whole = POLICIES[:-2] + head + b"\r\n\r\n"
    async with serving(head_s=WITHIN_S) as server:
        for pieces in ((whole,), (whole[:20_000], whole[20_000:])):
            status, problem = answered(await server.tell(*pieces))
            assert (status, problem["type"], problem["retryable"]) == (431, "about:blank", False)
            assert "The address and the headers together have more than 32768 bytes." in problem["detail"]


async def test_an_address_that_is_too_long_is_no_mystery() -> None:
    async with serving(head_s=WITHIN_S) as server:
        whole = POLICIES.replace(b"policies", b"policies?a=" + b"x" * 40_000)
        for pieces in ((whole,), (whole[:20_000], whole[20_000:])):
            status, problem = answered(await server.tell(*pieces))
            assert status == 431
            assert problem["detail"].startswith("The address and the headers together have more than 32768 bytes.")


async def test_a_large_body_that_comes_with_its_headers_is_no_large_head() -> None:
    body = b'{"amount":1' + b" " * 50_000 + b"}"
    whole = CHARGE.replace(b"Content-Length: 12", b"Connection: close\r\nContent-Length: %d" % len(body)) + body
    async with serving(body_s=WITHIN_S) as server:
        assert (await server.tell(whole)).startswith(b"HTTP/1.1 200")


CHUNKED: Final = CHARGE.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("nonsense", [b"\x16\x03\x01\x02\x00nonsense\r\n\r\n", CHUNKED + b"no number\r\n"])
async def test_what_is_no_http_is_refused_with_a_problem_and_on_no_line_of_the_log(
    nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        status, problem = answered(await server.tell(nonsense))
    assert (status, problem["type"], problem["title"], problem["retryable"]) == (
        400,
        "about:blank",
        "Bad Request",
        False,
    )
    assert problem["request_id"]
    assert "Invalid HTTP" not in caplog.text


NO_METHOD: Final = ": it begins with no method that is known. This port speaks http://, not https://."


@pytest.mark.parametrize(
    ("nonsense", "what"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NO_METHOD),
        (POLICIES.replace(b"GET", b"FETCH"), NO_METHOD),
        (
            CHUNKED.replace(b"Host", b"Content-Length: 2\r\nHost"),
            ": Transfer-Encoding can't be present with Content-Length.",
        ),
        (POLICIES.replace(b"Host", b"No <b>name</b>"), ": Invalid header token."),
        (b"GET http://[ HTTP/1.1\r\n\r\n", "."),
    ],
)
async def test_what_is_no_http_is_told_what_is_wrong_with_it(nonsense: bytes, what: str) -> None:
    async with serving() as server:
        status, problem = answered(await server.tell(nonsense))
    assert status == 400
    assert problem["detail"] == f"What came is no request of HTTP/1.1{what} Nothing was changed."


async def test_nonsense_is_not_answered_in_the_place_of_a_request_that_may_be_done() -> None:
    asked = asyncio.Event()

    async def endlessly(_: Call[Any, Any]) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        return Answer(200, b"{}")

    async with serving(endlessly, body_s=WITHIN_S) as server:
        for nonsense in (b"no http\r\n\r\n", b"X-Filler: " + b"x" * 40_000):
            assert await server.tell(CHARGE + b'{"amount":1}' + nonsense) == b""
            assert asked.is_set()
            asked.clear()
        # Nor where the one that is no request waits behind it.
        assert await server.tell(CHARGE + b'{"amount":1}' + CHUNKED + b"no number\r\n") == b""


async def test_a_client_that_does_not_take_its_answers_is_disconnected() -> None:
    async def much(_: Call[Any, Any]) -> Answer:
        return Answer(200, b'"' + b"x" * 8_000_000 + b'"')

    async with serving(much) as server:
        _, writer = await server.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(POLICIES)
        await until(lambda: len(server.connections) == 1)
        await until(lambda: not server.connections)
        writer.close()


async def test_a_connection_too_many_is_refused_at_once() -> None:
    async with serving(connections_max=2, head_s=WITHIN_S) as server:
        held = [await server.connect() for _ in range(2)]
        await until(lambda: len(server.connections) == 2)
        status, problem = answered(await server.tell())
        assert (status, problem["type"]) == (503, "/problems/overloaded")
        for _, writer in held:
            writer.close()
        await until(lambda: not server.connections)
        assert b"HTTP/1.1 200" in await server.tell(POLICIES.replace(b"Host:", b"Connection: close\r\nHost:"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is the server's to know
            await asyncio.sleep(0.005)


HEAD: Final = b" HTTP/1.1\r\nHost: shop\r\nX-Request-Id: same\r\n"
ASKED: Final = {
    "a read": b"GET /v1/policies" + HEAD + b"\r\n",
    "a read of its headers alone": b"HEAD /v1/policies" + HEAD + b"\r\n",
    "what the client has already": b"GET /v1/policies" + HEAD + b"If-None-Match: *\r\n\r\n",
    "an address that is none": b"GET /v1/nothing" + HEAD + b"\r\n",
    "a method that is not taken": b"POST /v1/policies" + HEAD + b"Content-Length: 0\r\n\r\n",
    "a change": CHARGE.replace(b" HTTP/1.1\r\nHost: shop\r\n", HEAD) + b'{"amount":1}',
    "a change that waits to be let go on": CHARGE.replace(b" HTTP/1.1\r\n", HEAD + b"Expect: 100-continue\r\n")
    + b'{"amount":1}',
    "a body that is too large": b"POST /v1/users/mina/balance/charges" + HEAD + b"Content-Length: 99999\r\n\r\n",
    "one after the other at once": (b"GET /v1/policies" + HEAD + b"\r\n") * 3,
    "one and no more": b"GET /v1/policies" + HEAD + b"Connection: close\r\n\r\n",
    "an older protocol": b"GET /v1/policies HTTP/1.0\r\nX-Request-Id: same\r\n\r\n",
}
HEADERS: Final = [(b"x-of-its-own", b"1"), (b"x-not-allowed", b"1\r\nx-smuggled: 1"), (b"connection", b"close")]


def in_messages(surface: Surface) -> Any:
    """The surface within what looks at each message that it gets and sends, as what traces requests does."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        async def look(message: Any) -> None:
            await send(message)

        async def look_at_request() -> Any:
            return await receive()

        await surface(scope, look_at_request, look)

    return serve


async def said(within: Callable[[Surface], Any], requests: bytes, respond: Respond = nothing) -> list[bytes]:
    """The lines that are answered until the connection ends, but for the date."""
    async with serving(respond, keep_alive_s=0, within=within) as server:
        received = await server.tell(requests)
    return [line for line in received.split(b"\r\n") if not line.startswith(b"date: ")]


@pytest.mark.parametrize("requests", ASKED.values(), ids=list(ASKED))
async def test_an_answer_in_one_piece_is_what_it_is_in_messages(requests: bytes) -> None:
    whole = await said(lambda surface: surface, requests)

    assert whole == await said(in_messages, requests)
    assert b"x-request-id: same" in whole


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[0].decode())
async def test_an_answers_own_header_is_what_it_is_in_messages(header: tuple[bytes, bytes]) -> None:
    async def respond(_: Call[Any, Any]) -> Answer:
        return Answer(200, b"{}", [header])

    whole = await said(
        lambda surface: surface, POLICIES.replace(b"\r\n\r\n", b"\r\nX-Request-Id: same\r\n\r\n"), respond
    )

    assert whole == await said(in_messages, POLICIES.replace(b"\r\n\r\n", b"\r\nX-Request-Id: same\r\n\r\n"), respond)
    assert b"x-smuggled: 1" not in whole


async def test_an_answer_that_is_there_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        reader, writer = await server.connect()
        writer.write(POLICIES)
        await reader.readuntil(b"\r\n\r\n{}")
        (connection,) = server.connections
        written: list[bytes] = []
        monkeypatch.setattr(connection, "transport", Written(connection.transport, written))
        writer.write(POLICIES)
        await until(lambda: bool(written))
        writer.close()

    assert [piece.count(b"HTTP/1.1 200 OK") + piece.endswith(b"\r\n\r\n{}") for piece in written] == [2]


class Written:
    """A transport that remembers what is written to it."""

    def __init__(self, transport: Any, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        """Remembered, and written."""
        self._written.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.mark.parametrize("within", [lambda surface: surface, in_messages], ids=["whole", "messages"])
@pytest.mark.parametrize("being_answered", [1, 2])
def test_a_client_that_leaves_before_its_answers_is_on_no_line_of_the_log(
    within: Callable[[Surface], Any], being_answered: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        begun = 0
        answer = asyncio.Event()

        async def respond(_: Call[Any, Any]) -> Answer:
            nonlocal begun
            begun += 1
            if begun >= being_answered:
                await answer.wait()
            return Answer(200, b"{}")

        async with serving(respond, head_s=5, body_s=5, within=within) as server:
            _, writer = await server.connect()
            writer.write(POLICIES * 3)
            await until(lambda: begun == being_answered)
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            answer.set()
            await until(lambda: not server.tasks)

    # The server's own loop: a transport of asyncio's takes what nobody will read, one of uvloop's raises.
    uvloop.run(leave())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
