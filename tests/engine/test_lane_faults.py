"""The lanes against a server that misbehaves as it is told to."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.cluster_lanes import ClusterLanes
from engine.errors import OutcomeUnknown, Overloaded, ServerError, Unavailable
from engine.lane import CLOSED, EARLY_WRITE_CALLS, Lane
from engine.lane_connection import Call, LaneConnection
from engine.lanes import LaneSettings, RedisLanes
from engine.partitions import Partitions
from engine.redis_address import parse_redis_url
from engine.scripts import Script, ScriptHead
from tests.engine.scripted_server import Client, Command, ScriptedServer, bulk
from tests.engine.waiting import outlasted, until, within

SETTINGS = LaneSettings(connect_timeout_s=2.0, reply_timeout_s=1.0, drain_timeout_s=0.1, probe_interval_s=0.05)
SCRIPT = Script("test", "return ARGV[2]", sha1(b"return ARGV[2]").hexdigest().encode(), ScriptHead("", (), (), (), ()))


UNPROBED = LaneSettings(probe_interval_s=60)


class Connected:
    """Lanes to a scripted server, closed at the end."""

    def __init__(self, server: ScriptedServer, settings: LaneSettings = SETTINGS, query: str = "") -> None:
        self._lanes = RedisLanes(server.url + query, settings)

    async def __aenter__(self) -> RedisLanes:
        await self._lanes.start()
        return self._lanes

    async def __aexit__(self, *_: object) -> None:
        await self._lanes.close()


async def echo(command: Command, client: Client) -> bytes | None:
    return bulk(command[-1])


def recorded_writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on, how many calls each write of a connection was given."""
    writes: list[int] = []
    write = LaneConnection.write

    def recorded(self: LaneConnection, calls: Sequence[Call], identity: bytes) -> int:
        writes.append(len(calls))
        return write(self, calls, identity)

    monkeypatch.setattr(LaneConnection, "write", recorded)
    return writes


async def outcomes(calls: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_replies_that_arrive_byte_by_byte_are_put_together() -> None:
    async def crumbs(command: Command, client: Client) -> bytes | None:
        for byte in bulk(command[-1]):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        return None

    async with ScriptedServer(crumbs) as server, Connected(server) as lanes:
        calls = [lanes.execute(0, "ECHO", f"number {n}", deadline=within(5)) for n in range(20)]
        assert await asyncio.gather(*calls) == [b"number %d" % n for n in range(20)]


@pytest.mark.parametrize("requests", [1, 3, 10, 11, 100])
async def test_the_calls_of_a_tick_leave_in_full_writes_at_once_and_the_rest_at_its_end(
    requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedServer(echo) as server, Connected(server, UNPROBED) as lanes:
        writes = recorded_writes(monkeypatch)

        async def request() -> list[Any]:
            return await asyncio.gather(*(lanes.execute(0, "ECHO", "x", deadline=within(5)) for _ in range(3)))

        await asyncio.gather(*(request() for _ in range(requests)))
        full, rest = divmod(3 * requests, EARLY_WRITE_CALLS)
        assert writes == [EARLY_WRITE_CALLS] * full + [rest] * (rest > 0)


async def test_under_tls_all_calls_of_a_tick_leave_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop tells a tick late that such a connection is lost."""
    query = f"?ssl_ca_certs={(server := tls_server(tmp_path)).authority}"
    async with server, Connected(server, UNPROBED, query) as lanes:
        writes = recorded_writes(monkeypatch)
        await asyncio.gather(*(lanes.execute(0, "ECHO", "x", deadline=within(5)) for _ in range(5 * EARLY_WRITE_CALLS)))
        assert writes == [5 * EARLY_WRITE_CALLS]


async def test_a_connection_writes_calls_as_one_piece() -> None:
    class Recorder(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[bytes] = []

        def write(self, data: Any) -> None:
            self.pieces.append(bytes(data))

    loop = asyncio.get_running_loop()
    connection = LaneConnection(cast(Any, None), loop)
    recorder = Recorder()
    connection.connection_made(recorder)
    given_up = loop.create_future()
    given_up.cancel()
    calls: list[Call] = [
        (loop.create_future(), 0.0, None, (), ("ECHO", "a"), 0, 0),
        (given_up, 0.0, None, (), ("ECHO", "b"), 0, 0),
        (loop.create_future(), 0.0, SCRIPT, ("k",), ("x", 7), 0, 0),
    ]
    connection.write(calls, b"run:replid")
    assert recorder.pieces == [
        b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n"
        b"*7\r\n$7\r\nEVALSHA\r\n$40\r\n" + SCRIPT.sha1 + b"\r\n$1\r\n1\r\n$1\r\nk\r\n"
        b"$10\r\nrun:replid\r\n$1\r\nx\r\n$1\r\n7\r\n"
    ]
    connection.data_received(b"+one\r\n:")
    connection.data_received(b"2\r\n")
    assert [calls[n][0].result() for n in (0, 2)] == [b"one", 2]


async def test_nothing_is_written_to_a_connection_that_has_ended_before_its_loss_is_told() -> None:
    """Whoever asks in that tick would be told that it may have been executed."""

    class Closing(asyncio.Transport):
        closing = False

        def is_closing(self) -> bool:
            return self.closing

    loop = asyncio.get_running_loop()
    transport = Closing()
    reset, ended = (LaneConnection(cast(Any, None), loop) for _ in range(2))
    for connection in (reset, ended):
        assert not connection.writable
        connection.connection_made(transport)
        assert connection.writable
    ended.eof_received()
    assert not ended.writable
    transport.closing = True
    assert not reset.writable


@pytest.mark.parametrize("end", ["closed", "reset"])
async def test_who_asks_in_the_tick_in_which_the_server_goes_is_served_by_the_next_connection(end: str) -> None:
    """More than are written at once: the early write comes before the connection's loss is told."""
    async with ScriptedServer(echo) as server, Connected(server) as lanes:
        assert await lanes.execute(0, "ECHO", "first", deadline=within(5)) == b"first"
        loop = asyncio.get_running_loop()
        calls: list[Any] = []

        def ask() -> None:
            calls.extend(lanes.execute(0, "ECHO", f"{n}", deadline=within(5)) for n in range(3 * EARLY_WRITE_CALLS))

        connection = lanes._lane._connection
        assert connection is not None
        transport = connection._transport
        assert transport is not None
        if end == "closed":
            connection.eof_received()
        else:
            transport.abort()
        ask()
        loop.call_soon(transport.abort)
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(3 * EARLY_WRITE_CALLS)]
        assert server.connections == 2


async def test_a_connection_lost_in_the_middle_leaves_what_was_sent_unknown_and_nothing_else() -> None:
    async def lose_third(command: Command, client: Client) -> bytes | None:
        if command[-1] == b"2":
            await client.writer.drain()
            client.writer.close()
            return None
        return bulk(command[-1])

    async with ScriptedServer(lose_third) as server, Connected(server) as lanes:
        calls = [lanes.execute(0, "ECHO", str(n), deadline=within(5)) for n in range(10)]
        results = await outcomes(calls)
        assert results[:2] == [b"0", b"1"]
        assert [type(result) for result in results[2:]] == [OutcomeUnknown] * 8
        assert await lanes.execute(0, "ECHO", "after", deadline=within(5)) == b"after"
        assert server.connections == 2
        assert [command[-1] for command in server.commands].count(b"9") == 1, "nothing is sent twice by itself"


async def test_a_silent_server_is_dropped_hard_and_asked_anew() -> None:
    async def silent_at_first(command: Command, client: Client) -> bytes | None:
        return None if server.connections == 1 else bulk(command[-1])

    settings = LaneSettings(reply_timeout_s=0.2, probe_interval_s=60)
    async with ScriptedServer(silent_at_first) as server, Connected(server, settings) as lanes:
        sent = await outcomes([lanes.execute(0, "ECHO", "x", deadline=within(30)) for _ in range(5)])
        assert [str(error) for error in sent if "silent for 0.2 s" in str(error)] == [str(sent[0])] * 5
        assert await lanes.execute(0, "ECHO", "y", deadline=within(5)) == b"y"
        await until(lambda: server.resets == 1)


async def test_a_deadline_fails_its_own_call_alone() -> None:
    go_on = asyncio.Event()

    async def wait(command: Command, client: Client) -> bytes | None:
        await go_on.wait()
        return bulk(command[-1])

    async with ScriptedServer(wait) as server, Connected(server) as lanes:
        patient = lanes.execute(0, "ECHO", "patient", deadline=within(5))
        hasty = lanes.execute(0, "ECHO", "hasty", deadline=within(0.1))
        last = lanes.execute(0, "ECHO", "last", deadline=within(4))
        with pytest.raises(OutcomeUnknown, match="has not answered in time"):
            await hasty
        go_on.set()
        assert await outcomes([patient, last]) == [b"patient", b"last"]
        assert server.connections == 1


async def test_deadlines_close_together_are_looked_after_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look goes through all that wait: one for each deadline would take half a processor of a busy shop's."""
    lane = Lane(parse_redis_url("redis://127.0.0.1:1"), LaneSettings())
    lane.open("nobody is there")
    looks = 0
    look = Lane._look

    def counted(self: Lane) -> None:
        nonlocal looks
        looks += 1
        look(self)

    monkeypatch.setattr(Lane, "_look", counted)
    calls = [lane.call(0, None, (), ("PING",), within(0.05 + n / 10_000)) for n in range(1000)]
    assert {type(outcome) for outcome in await outcomes(calls)} == {Unavailable}
    assert looks < 20
    await lane.close()


async def test_callers_that_gave_up_take_nobodys_room() -> None:
    limit = 10
    lane = Lane(parse_redis_url("redis://127.0.0.1:1"), LaneSettings(in_flight_limit=limit))
    lane.open("nobody is there")
    for _ in range(limit):
        lane.call(0, None, (), ("PING",), within(0.05)).cancel()
    with pytest.raises(Overloaded):
        await lane.call(0, None, (), ("PING",), within(0.05))
    await until(lambda: lane.under_way == 0)
    with pytest.raises(Unavailable):
        await lane.call(0, None, (), ("PING",), within(0.05))
    await lane.close()


async def test_only_what_was_written_is_counted_as_sent() -> None:
    async with ScriptedServer(echo) as server, Connected(server, UNPROBED) as lanes:
        counts = lanes._lane.counts
        before = counts.sent
        gone, wrong, right = (lanes.execute(0, "ECHO", x, deadline=within(5)) for x in ("a", cast(Any, object()), "b"))
        gone.cancel()
        assert [type(outcome) for outcome in await outcomes([wrong, right])] == [TypeError, bytes]
        assert counts.sent - before == len(server.commands) == 1


async def test_a_server_that_refuses_to_write_is_told_of_now_and_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each call, nor once for all: nobody else says whether it still does."""

    async def refuse(command: Command, client: Client) -> bytes | None:
        return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"

    async with ScriptedServer(refuse) as server, Connected(server) as lanes:
        for times_told in (1, 2):
            probes = len(server.own_commands)
            for _ in range(5):
                with pytest.raises(Unavailable, match="refuses to write: OOM"):
                    await lanes.execute(0, "SET", "x", "y", deadline=within(5))
            # Its questions are answered between, so it is connected all the while.
            await until(lambda asked=probes: len(server.own_commands) > asked + 4)  # type: ignore[misc]
            assert caplog.text.count("refuses to write: OOM") == times_told
            monkeypatch.setattr(lanes._lane, "_tell_need_at", asyncio.get_running_loop().time())


async def test_a_closed_lane_does_not_send_its_callers_to_look_for_a_server() -> None:
    async with ScriptedServer(echo) as server:
        lanes = RedisLanes(server.url, SETTINGS)
        await lanes.start()
        await lanes.close()
        with pytest.raises(Unavailable) as refusal:
            await lanes.execute(0, "ECHO", "x", deadline=within(5))
        assert refusal.value.reason == CLOSED


async def test_an_error_for_a_caller_that_gave_up_is_nobody_elses() -> None:
    go_on = asyncio.Event()

    async def refuse(command: Command, client: Client) -> bytes | None:
        await go_on.wait()
        return b"-ERR unknown command\r\n" if command[0] == b"NOSUCH" else bulk(command[-1])

    async with ScriptedServer(refuse) as server, Connected(server) as lanes:
        calls = [lanes.execute(0, *words, deadline=within(5)) for words in (["NOSUCH"], ["ECHO", "a"], ["ECHO", "b"])]
        await until(lambda: server.commands)
        calls[0].cancel()
        go_on.set()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*calls[1:]) == [b"a", b"b"]


async def test_a_server_that_has_no_room_may_say_so_before_it_is_asked() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR max number of clients reached\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(5):  # it is read before the first question or after it
        with pytest.raises(Unavailable, match=rf"{port}: .*max number of clients reached\. Check"):
            await RedisLanes(f"redis://127.0.0.1:{port}", LaneSettings(connect_timeout_s=0.2)).start()
    server.close()


async def test_a_server_with_no_room_for_one_more_is_waited_for_and_says_so() -> None:
    """It says so in answer to whatever is asked first: it is no refused login, and no name that it does not allow."""

    class Full(ScriptedServer):
        room_after = 2  # connections

        async def _reply(self, command: Command, client: Client) -> bytes | None:
            if self.connections > self.room_after:
                return await super()._reply(command, client)
            client.writer.write(b"-ERR max number of clients reached\r\n")
            client.writer.close()
            return None

    for password in ("", ":secret@"):
        async with Full(echo) as server:
            lanes = RedisLanes(server.url.replace("//", f"//{password}"), SETTINGS)
            await lanes.start()
            assert server.connections == 3
            await lanes.close()
        async with Full(echo) as server:
            server.room_after = 1_000
            with pytest.raises(Unavailable, match=rf"{server.port}: ERR max number of clients reached\. Check"):
                await RedisLanes(server.url.replace("//", f"//{password}"), LaneSettings(connect_timeout_s=0.3)).start()


@pytest.mark.parametrize(
    "error",
    [
        b"-LOADING Redis is loading the dataset in memory",
        b"-READONLY You can't write against a read only replica.",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        b"-BUSY Redis is busy running a script.",
        b"-ERR Error running script (call to f_ab): @user_script:1: @user_script: 1: -READONLY You can't write.",
    ],
)
async def test_what_a_server_that_is_not_ready_refuses_is_sent_again_until_it_is(error: bytes) -> None:
    refused: list[bytes] = []

    async def refuse_twice(command: Command, client: Client) -> bytes | None:
        if server.connections < 3:
            refused.append(command[-1])
            return error + b"\r\n"
        return bulk(command[-1])

    async with ScriptedServer(refuse_twice) as server, Connected(server) as lanes:
        calls = [lanes.call(0, SCRIPT, [], [n], deadline=within(5)) for n in range(5)]
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(5)]
        assert len(refused) == 10


async def test_a_server_that_does_not_get_ready_is_unavailable_at_the_deadline() -> None:
    async def refuse(command: Command, client: Client) -> bytes | None:
        return b"-LOADING Redis is loading the dataset in memory\r\n"

    async with ScriptedServer(refuse) as server, Connected(server) as lanes:
        calls = 0

        def call() -> Awaitable[object]:
            nonlocal calls
            calls += 1
            return lanes.call(0, SCRIPT, [], ["x"], deadline=within(0.5))

        with pytest.raises(Unavailable, match="LOADING"):
            await outlasted(call)
        assert 2 < server.connections < 15 * calls, "it tries again, slower and slower"


async def test_a_server_that_loads_its_data_is_waited_for() -> None:
    async with ScriptedServer(echo) as server:
        server.loading = 1
        with pytest.raises(Unavailable, match="it is loading its data: wait"):
            await RedisLanes(server.url, LaneSettings(connect_timeout_s=1.0)).start()
        starting = asyncio.ensure_future((lanes := RedisLanes(server.url, SETTINGS)).start())
        await asyncio.sleep(0.1)
        assert not starting.done()
        server.loading = 0
        await starting
        await lanes.close()


async def test_only_the_calls_that_missed_their_script_are_sent_again() -> None:
    loaded: set[bytes] = set()

    async def forgetful(command: Command, client: Client) -> bytes | None:
        if command[0] == b"SCRIPT":
            loaded.add(sha1(command[2]).hexdigest().encode())
            return bulk(SCRIPT.sha1)
        if command[0] == b"EVALSHA" and command[1] not in loaded:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        return bulk(command[-1])

    async with ScriptedServer(forgetful) as server, Connected(server) as lanes:
        calls = [
            lanes.call(0, SCRIPT, [], ["a"], deadline=within(5)),
            lanes.execute(0, "ECHO", "b", deadline=within(5)),
            lanes.call(0, SCRIPT, [], ["c"], deadline=within(5)),
        ]
        assert await asyncio.gather(*calls) == [b"a", b"b", b"c"]
        names = [command[0] for command in server.commands]
        assert names == [b"EVALSHA", b"ECHO", b"EVALSHA", b"SCRIPT", b"EVALSHA", b"EVALSHA"]


async def test_a_script_that_stays_missing_fails_in_the_end() -> None:
    async def never(command: Command, client: Client) -> bytes | None:
        return b"-NOSCRIPT No matching script.\r\n" if command[0] == b"EVALSHA" else bulk(b"")

    async with ScriptedServer(never) as server, Connected(server) as lanes:
        with pytest.raises(ServerError, match="NOSCRIPT"):
            await lanes.call(0, SCRIPT, [], ["x"], deadline=within(5))
        assert len(server.commands) < 10


async def test_a_promotion_that_keeps_the_connection_is_learned_by_the_next_question() -> None:
    async def identity(command: Command, client: Client) -> bytes | None:
        return bulk(command[-2])

    async with ScriptedServer(identity) as server, Connected(server) as lanes:
        assert await lanes.call(0, SCRIPT, [], ["x"], deadline=within(5)) == b"r" * 40 + b":" + b"a" * 40
        server.run_id = "n" * 40
        await until(lambda: lanes.identity(0) == b"n" * 40 + b":" + b"a" * 40)
        assert await lanes.call(0, SCRIPT, [], ["x"], deadline=within(5)) == b"n" * 40 + b":" + b"a" * 40
        assert server.connections == 1


@pytest.mark.parametrize("trigger", ["an error reply", "recheck"])
async def test_the_identity_is_asked_for_at_once_when_something_is_wrong(trigger: str) -> None:
    async def fail(command: Command, client: Client) -> bytes | None:
        return b"-ERR something\r\n"

    async with ScriptedServer(fail) as server, Connected(server, LaneSettings(probe_interval_s=60)) as lanes:
        server.run_id = "n" * 40
        assert lanes.identity(0) == b"r" * 40 + b":" + b"a" * 40
        if trigger == "recheck":
            lanes.recheck(0)
        else:
            await outcomes([lanes.execute(0, "GET", "x", deadline=within(5))])
        await until(lambda: lanes.identity(0) == b"n" * 40 + b":" + b"a" * 40, 1.0)


async def test_a_storm_of_errors_is_no_storm_of_questions() -> None:
    async def fail(command: Command, client: Client) -> bytes | None:
        return b"-ERR something\r\n"

    async with ScriptedServer(fail) as server, Connected(server, LaneSettings(probe_interval_s=60)) as lanes:
        give_up_at = time.monotonic() + 0.3
        while time.monotonic() < give_up_at:
            await outcomes([lanes.execute(0, "GET", "x", deadline=within(5)) for _ in range(10)])
        assert len(server.commands) > 200
        assert [command[-1] for command in server.own_commands].count(b"server") < 20


async def test_what_is_no_reply_ends_the_connection() -> None:
    async def babble(command: Command, client: Client) -> bytes | None:
        return b"HTTP/1.1 400 Bad Request\r\n" if server.connections == 1 else bulk(command[-1])

    async with ScriptedServer(babble) as server, Connected(server) as lanes:
        with pytest.raises(OutcomeUnknown, match="no reply"):
            await lanes.execute(0, "ECHO", "x", deadline=within(5))
        assert await lanes.execute(0, "ECHO", "x", deadline=within(5)) == b"x"


async def test_a_reply_too_many_ends_the_connection() -> None:
    async def twice(command: Command, client: Client) -> bytes | None:
        return bulk(command[-1]) * (2 if server.connections == 1 else 1)

    async with ScriptedServer(twice) as server, Connected(server) as lanes:
        assert await lanes.execute(0, "ECHO", "x", deadline=within(5)) == b"x"
        await until(lambda: server.connections == 2)
        assert await lanes.execute(0, "ECHO", "y", deadline=within(5)) == b"y"


async def test_a_server_that_takes_nothing_in_holds_later_calls_back_unsent() -> None:
    settings = LaneSettings(reply_timeout_s=30, probe_interval_s=60)
    async with ScriptedServer(echo) as server, Connected(server, settings) as lanes:
        server.reading.clear()
        received_before = server.received_bytes
        large = [lanes.execute(0, "ECHO", b"%02d" % n * 500_000, deadline=within(30)) for n in range(20)]
        await until(lambda: server.received_bytes > received_before)  # all of them were handed over at once
        with pytest.raises(Unavailable):
            await lanes.execute(0, "ECHO", "held back, then out of time", deadline=within(0.1))
        held_back = lanes.execute(0, "ECHO", "held back", deadline=within(30))
        server.reading.set()
        assert await asyncio.gather(*large) == [b"%02d" % n * 500_000 for n in range(20)]
        assert await held_back == b"held back"
        assert b"held back, then out of time" not in {command[-1] for command in server.commands}


async def test_a_node_of_a_cluster_is_refused_where_one_server_is_expected() -> None:
    async with ScriptedServer(echo) as server:
        server.mode = "cluster"
        with pytest.raises(Unavailable, match=r"it is a node of a Redis Cluster: write redis\+cluster://"):
            await RedisLanes(server.url, LaneSettings(connect_timeout_s=1.0)).start()


async def test_tls_with_a_private_authority(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as server:
        async with Connected(server, query=f"?ssl_ca_certs={server.authority}") as lanes:
            assert await lanes.execute(0, "ECHO", "secret", deadline=within(5)) == b"secret"
        with pytest.raises(Unavailable, match="certificate"):
            await RedisLanes(server.url, LaneSettings(connect_timeout_s=1.0)).start()


class TlsServer(ScriptedServer):
    """Echoes under TLS; ``authority`` is the file that vouches for it."""

    authority: Path


def tls_server(folder: Path) -> TlsServer:
    certificate = folder / "server.pem"
    certificate.write_bytes(self_signed_certificate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = TlsServer(echo, context)
    server.authority = certificate
    return server


def self_signed_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


async def test_a_server_that_was_asked_nothing_for_longer_than_it_may_be_silent_is_not_taken_for_silent() -> None:
    patience = LaneSettings(reply_timeout_s=0.2, probe_interval_s=60)
    async with ScriptedServer(echo) as server, Connected(server, patience) as lanes:
        assert await lanes.execute(0, "ECHO", "first", deadline=within(5)) == b"first"
        await asyncio.sleep(2 * patience.reply_timeout_s)
        assert await lanes.execute(0, "ECHO", "second", deadline=within(5)) == b"second"
        assert server.connections == 1


async def test_a_call_that_another_lane_hands_over_ends_at_its_deadline_too() -> None:
    lane = Lane(parse_redis_url("redis://127.0.0.1:1"), LaneSettings())
    lane.open("nobody is there")
    future = asyncio.get_running_loop().create_future()
    lane.put((future, within(0.05), None, (), ("PING",), 0, 0))
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="nobody is there"):
            await future
    await lane.close()


async def test_who_waits_for_a_cluster_to_make_up_its_mind_is_answered_when_the_lanes_close() -> None:
    lanes = ClusterLanes("redis+cluster://127.0.0.1:1", Partitions(4), LaneSettings(connect_timeout_s=0.05))
    await lanes.start(patient=True)
    node = Lane(parse_redis_url("redis://127.0.0.1:1"), LaneSettings())
    before, after, late, later = (asyncio.get_running_loop().create_future() for _ in range(4))

    def refused(future: "asyncio.Future[Any]") -> None:
        lanes.reroute(node, (future, within(60), None, (), ("PING",), 0, 0), "TRYAGAIN", "Multiple keys")

    def moved(future: "asyncio.Future[Any]", code: str) -> None:
        lanes.reroute(node, (future, within(60), None, (), ("PING",), 0, 0), code, "1 127.0.0.1:2")

    refused(before)
    await lanes.close()
    refused(after)
    moved(late, "MOVED")
    moved(later, "ASK")
    assert not lanes._lanes, "none is made for one that comes late"
    for future in (before, after, late, later):
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await future
