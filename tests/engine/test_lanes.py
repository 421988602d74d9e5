"""The lanes against a real server."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.errors import OutcomeUnknown, Overloaded, ServerError, Unavailable
from engine.lanes import LaneSettings, RedisLanes
from engine.scripts import Script, ScriptHead
from tests.engine.valkey_process import ValkeyProcess
from tests.engine.waiting import until, until_asked, within

QUICK = LaneSettings(connect_timeout_s=3.0, reply_timeout_s=0.4, drain_timeout_s=1.0, probe_interval_s=0.1)


def script(source: str) -> Script:
    return Script("test", source, sha1(source.encode()).hexdigest().encode(), ScriptHead("", (), (), (), ()))


ECHO = script("return {ARGV[1], ARGV[2]}")
COUNT = script("return redis.call('INCR', KEYS[1])")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    server = ValkeyProcess(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server for one test, which may do to it what it likes."""
    server = ValkeyProcess(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def lanes(shared: ValkeyProcess) -> AsyncIterator[RedisLanes]:
    lanes = RedisLanes(shared.url, LaneSettings(in_flight_limit=20_000))
    await lanes.start()
    await lanes.execute(0, "FLUSHALL", deadline=within(5))
    yield lanes
    await lanes.close()


@pytest.fixture
async def own_lanes(own: ValkeyProcess) -> AsyncIterator[RedisLanes]:
    lanes = RedisLanes(own.url, QUICK)
    await lanes.start()
    yield lanes
    await lanes.close()


@pytest.fixture
async def admin(shared: ValkeyProcess) -> AsyncIterator[Redis]:
    async with Redis.from_url(shared.url, protocol=2) as client:
        yield client


async def test_a_script_is_told_the_identity_of_the_server_it_reaches(lanes: RedisLanes, admin: Redis) -> None:
    info = await admin.info()
    identity = f"{info['run_id']}:{info['master_replid']}".encode()
    assert lanes.identity(0) == identity
    assert await lanes.call(0, ECHO, [], ["hello"], deadline=within(5)) == [identity, b"hello"]


async def test_replies_come_as_the_protocol_has_them(lanes: RedisLanes) -> None:
    assert await lanes.execute(0, "SET", "a", 7, deadline=within(5)) == b"OK"
    assert await lanes.execute(0, "GET", b"a", deadline=within(5)) == b"7"
    assert await lanes.execute(0, "GET", "none", deadline=within(5)) is None
    assert await lanes.execute(0, "INCR", "a", deadline=within(5)) == 8
    await lanes.execute(0, "XADD", "s", "1-1", "이름", "옷", deadline=within(5))
    entry = [b"1-1", ["이름".encode(), "옷".encode()]]
    assert await lanes.execute(0, "XRANGE", "s", "-", "+", deadline=within(5)) == [entry]


async def test_the_clock_is_that_of_the_server(lanes: RedisLanes) -> None:
    assert abs(lanes.now_ms(0) - time.time() * 1000) < 100


async def test_ten_thousand_calls_at_once_each_get_their_own_reply(lanes: RedisLanes) -> None:
    calls = [lanes.call(n % 64, ECHO, [], [n], deadline=within(30)) for n in range(10_000)]
    replies = await asyncio.gather(*calls)
    assert [int(reply[1]) for reply in replies] == list(range(10_000))


async def test_callers_that_give_up_never_get_another_callers_reply_in_the_way(lanes: RedisLanes) -> None:
    calls = []
    for n in range(3_000):
        calls.append(asyncio.ensure_future(lanes.call(0, ECHO, [], [n], deadline=within(30))))
        if n % 3 == 1:
            calls[n].cancel()  # before it is written
        if n % 100 == 99:
            await asyncio.sleep(0)
            calls[n - 1].cancel()  # after it was written
    replies: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    answered = [n for n, reply in enumerate(replies) if not isinstance(reply, BaseException)]
    assert [int(replies[n][1]) for n in answered] == answered
    assert 1_900 < len(answered) < 2_000


async def test_a_flush_of_scripts_is_not_noticed_by_callers(lanes: RedisLanes) -> None:
    async def caller() -> None:
        for _ in range(100):
            await lanes.call(0, COUNT, ["n"], [], deadline=within(10))

    async def flusher() -> None:
        for _ in range(10):
            await lanes.execute(0, "SCRIPT", "FLUSH", deadline=within(10))
            await asyncio.sleep(0.005)

    await asyncio.gather(flusher(), *(caller() for _ in range(50)))
    assert await lanes.execute(0, "GET", "n", deadline=within(5)) == b"5000"


async def test_a_script_that_does_not_compile_says_why(lanes: RedisLanes) -> None:
    with pytest.raises(ServerError, match="Error compiling script"):
        await lanes.call(0, script("this is no Lua"), [], [], deadline=within(5))


async def test_an_error_reply_is_its_callers_alone(lanes: RedisLanes) -> None:
    bad = lanes.execute(0, "NOSUCH", deadline=within(5))
    await lanes.execute(0, "SET", "a", "1", deadline=within(5))
    with pytest.raises(ServerError) as unknown:
        await bad
    assert unknown.value.code == "ERR"
    with pytest.raises(ServerError) as wrong_type:
        await lanes.execute(0, "HGET", "a", "f", deadline=within(5))
    assert wrong_type.value.code == "WRONGTYPE"


async def test_an_argument_of_a_wrong_type_is_its_callers_fault_alone(lanes: RedisLanes) -> None:
    nothing: Any = None
    calls = [lanes.call(0, ECHO, [], [argument], deadline=within(5)) for argument in ("a", nothing, "b")]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, TypeError)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert (first[1], third[1]) == (b"a", b"b")


async def test_large_arguments_and_large_replies_pass(lanes: RedisLanes) -> None:
    large = bytes(range(256)) * 40_000
    calls = [lanes.call(0, ECHO, [], [large + b"%d" % n], deadline=within(30)) for n in range(5)]
    for n, reply in enumerate(await asyncio.gather(*calls)):
        assert reply[1] == large + b"%d" % n


async def test_calls_past_the_in_flight_limit_are_shed_at_once(shared: ValkeyProcess) -> None:
    lanes = RedisLanes(shared.url, LaneSettings(in_flight_limit=10))
    await lanes.start()
    calls = [lanes.call(0, ECHO, [], [n], deadline=within(5)) for n in range(12)]
    assert [call.done() for call in calls] == [False] * 10 + [True] * 2
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(reply) for reply in replies] == [list] * 10 + [Overloaded] * 2
    assert await lanes.call(0, ECHO, [], ["again"], deadline=within(5))
    await lanes.close()


async def test_a_call_without_time_left_is_not_sent(lanes: RedisLanes) -> None:
    with pytest.raises(Unavailable):
        await lanes.call(0, COUNT, ["n"], [], deadline=within(-0.001))
    assert await lanes.execute(0, "EXISTS", "n", deadline=within(5)) == 0


async def test_a_process_that_was_held_up_reads_what_came_before_it_judges(lanes: RedisLanes) -> None:
    slow = script("for n = 1, 2000000 do end return 'x'")
    await lanes.call(0, slow, [], [], deadline=within(5))
    call = lanes.call(0, slow, [], [], deadline=within(0.1))
    for _ in range(3):
        await asyncio.sleep(0)  # now it is written, and the reply comes while the process stands still
    assert not call.done()
    time.sleep(0.3)  # noqa: ASYNC251
    assert await call == b"x"


async def test_a_unix_socket_serves_as_well(shared: ValkeyProcess) -> None:
    lanes = RedisLanes(f"unix://{shared.socket_path}")
    await lanes.start()
    assert (await lanes.call(0, ECHO, [], ["hi"], deadline=within(5)))[1] == b"hi"
    await lanes.close()


async def test_the_connection_has_a_name_for_operators(lanes: RedisLanes, admin: Redis) -> None:
    assert "firstcome" in {client["name"] for client in await admin.client_list()}


async def test_logging_in(tmp_path: Path) -> None:
    server = ValkeyProcess(tmp_path, "--requirepass", "p@ss/word")
    server.start()
    try:
        async with Redis.from_url(server.url, password="p@ss/word") as admin:
            await admin.acl_setuser("shop", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+@all"])
        for login in (":p%40ss%2Fword", "shop:s3cret"):
            lanes = RedisLanes(f"redis://{login}@127.0.0.1:{server.port}")
            await lanes.start()
            assert await lanes.execute(0, "PING", deadline=within(5)) == b"PONG"
            await lanes.close()
        for login in (":wr0ng", "shop:wr0ng"):
            started = time.monotonic()
            with pytest.raises(Unavailable, match=r"(?i)wrongpass|invalid") as refused:
                await RedisLanes(f"redis://{login}@127.0.0.1:{server.port}").start()
            assert "wr0ng" not in str(refused.value)
            assert time.monotonic() - started < LaneSettings().connect_timeout_s, "no other try can help"
        with pytest.raises(Unavailable, match="NOAUTH"):
            await RedisLanes(f"redis://127.0.0.1:{server.port}").start()
    finally:
        server.kill()


async def test_starting_where_nobody_listens_says_what_to_do(own: ValkeyProcess) -> None:
    own.kill()
    lanes = RedisLanes(own.url, LaneSettings(connect_timeout_s=0.3))
    with pytest.raises(Unavailable, match=r"redis://127\.0\.0\.1:\d+: .*Check that Redis or Valkey runs there"):
        await lanes.start()


async def test_who_is_patient_starts_where_nobody_listens_and_calls_wait_for_the_server(own: ValkeyProcess) -> None:
    own.kill()
    lanes = RedisLanes(own.url, LaneSettings(connect_timeout_s=0.3))
    await lanes.start(patient=True)
    try:
        with pytest.raises(Unavailable, match="Check that Redis or Valkey runs there"):
            await lanes.call(0, ECHO, [], ["no time to wait"], deadline=within(0.05))
        waiting = lanes.call(0, ECHO, [], ["time"], deadline=within(10))
        own.start()
        assert (await waiting)[1:] == [b"time"]
        assert lanes.identity(0) is not None
    finally:
        await lanes.close()


async def test_a_replica_is_refused_at_the_start(own: ValkeyProcess, shared: ValkeyProcess) -> None:
    async with Redis.from_url(own.url, protocol=2) as admin:
        await admin.replicaof("127.0.0.1", shared.port)
    with pytest.raises(Unavailable, match=r"it is a replica of 127\.0\.0\.1:\d+: name the primary"):
        await RedisLanes(own.url, LaneSettings(connect_timeout_s=0.3)).start()


async def test_a_restarted_server_has_another_identity_and_calls_wait_for_it(
    own: ValkeyProcess, own_lanes: RedisLanes
) -> None:
    before = own_lanes.identity(0)
    own.kill()
    await until(lambda: own_lanes.identity(0) is None)
    waiting = [own_lanes.call(0, ECHO, [], [n], deadline=within(10)) for n in range(100)]
    with pytest.raises(Unavailable):
        await own_lanes.call(0, ECHO, [], ["no time to wait"], deadline=within(0.05))
    own.start()
    replies = await asyncio.gather(*waiting)
    after = own_lanes.identity(0)
    assert after not in (None, before)
    assert [reply[0] for reply in replies] == [after] * 100


async def test_what_a_killed_server_had_been_sent_is_of_unknown_outcome(
    own: ValkeyProcess, own_lanes: RedisLanes
) -> None:
    async with Redis.from_url(own.url, protocol=2) as admin:
        await admin.client_pause(60_000, all=False)  # it takes scripts in and answers none
        sent = [own_lanes.call(0, COUNT, ["n"], [], deadline=within(10)) for _ in range(20)]

        async def received() -> bool:
            return any(client["cmd"] == "evalsha" for client in await admin.client_list())

        await until_asked(received)
    own.kill()
    replies = await asyncio.gather(*sent, return_exceptions=True)
    assert {type(reply) for reply in replies} == {OutcomeUnknown}
    with pytest.raises(Unavailable, match="Check that Redis or Valkey runs there"):
        await own_lanes.call(0, COUNT, ["n"], [], deadline=within(0.1))


async def test_a_silent_server_is_left_and_found_again(own: ValkeyProcess, own_lanes: RedisLanes) -> None:
    await own_lanes.call(0, COUNT, ["n"], [], deadline=within(5))
    own.freeze()
    started = time.monotonic()
    sent = [own_lanes.call(0, COUNT, ["n"], [], deadline=within(60)) for _ in range(20)]
    replies = await asyncio.gather(*sent, return_exceptions=True)
    assert {type(reply) for reply in replies} == {OutcomeUnknown}
    assert time.monotonic() - started < 30, "its silence decides, not their deadline"
    own.thaw()
    assert await own_lanes.call(0, COUNT, ["m"], [], deadline=within(10)) == 1


async def test_a_demoted_server_is_not_used_and_has_another_identity_when_promoted_again(
    own: ValkeyProcess, own_lanes: RedisLanes, shared: ValkeyProcess
) -> None:
    before = own_lanes.identity(0)
    await own_lanes.call(0, COUNT, ["n"], [], deadline=within(5))
    async with Redis.from_url(own.url, protocol=2) as admin:
        await admin.replicaof("127.0.0.1", shared.port)
        waiting = [own_lanes.call(0, COUNT, [f"k{n}"], [], deadline=within(10)) for n in range(50)]
        with pytest.raises(Unavailable, match=r"replica|READONLY|LOADING|MASTERDOWN"):
            await own_lanes.call(0, COUNT, ["x"], [], deadline=within(0.3))
        assert own_lanes.identity(0) is None
        await admin.replicaof("NO", "ONE")
    assert await asyncio.gather(*waiting) == [1] * 50
    assert own_lanes.identity(0) not in (None, before)


async def test_calls_wait_while_the_server_is_busy_with_a_script(own: ValkeyProcess, own_lanes: RedisLanes) -> None:
    async with Redis.from_url(own.url, protocol=2, socket_timeout=None) as admin, Redis.from_url(own.url) as killer:
        await admin.config_set("lua-time-limit", 10)
        endless = asyncio.ensure_future(admin.eval("while true do end", 0))

        async def busy() -> bool:
            try:
                await killer.ping()
            except ResponseError as error:
                return str(error).startswith("BUSY")
            return False

        await until_asked(busy)
        waiting = own_lanes.call(0, COUNT, ["n"], [], deadline=within(10))
        with pytest.raises(Unavailable, match="BUSY"):
            await own_lanes.call(0, COUNT, ["n"], [], deadline=within(0.3))
        await killer.script_kill()
        assert await waiting == 1
        await asyncio.gather(endless, return_exceptions=True)


async def test_a_server_out_of_memory_refuses_at_once(own: ValkeyProcess, own_lanes: RedisLanes) -> None:
    await own_lanes.execute(0, "CONFIG", "SET", "maxmemory", "1", deadline=within(5))
    with pytest.raises(Unavailable, match="refuses to write: OOM"):
        await own_lanes.call(0, COUNT, ["n"], [], deadline=within(5))


async def test_closing_lets_calls_under_way_finish_and_takes_no_new_ones(shared: ValkeyProcess) -> None:
    lanes = RedisLanes(shared.url)
    await lanes.start()
    under_way = [lanes.call(0, ECHO, [], [n], deadline=within(5)) for n in range(100)]
    closing = asyncio.ensure_future(lanes.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="closed"):
        await lanes.call(0, ECHO, [], ["late"], deadline=within(5))
    assert [int(reply[1]) for reply in await asyncio.gather(*under_way)] == list(range(100))
    await closing
    assert lanes.identity(0) is None


async def test_closing_waits_no_longer_than_it_should(own: ValkeyProcess) -> None:
    lanes = RedisLanes(own.url, LaneSettings(drain_timeout_s=0.2))
    await lanes.start()
    own.freeze()
    under_way = lanes.call(0, ECHO, [], ["x"], deadline=within(60))
    started = time.monotonic()
    await lanes.close()
    assert time.monotonic() - started < 30, "the drain timeout decides, not the call's deadline"
    with pytest.raises(OutcomeUnknown):
        await under_way
