"""The lanes on a real cluster of three primaries: redirections, certificates, names, and what a call costs."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from hashlib import sha1
from pathlib import Path

import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.listening import free_port
from engine.cluster_lanes import ClusterLanes
from engine.errors import ServerError, Unavailable
from engine.keys import Keys
from engine.lane_counts import LaneCounts
from engine.lanes import LaneSettings
from engine.partitions import Partitions
from engine.scripts import Script, ScriptHead
from tests.cluster.moves import close_slot, give_up_slot, move_keys, open_slot, slots_of
from tests.engine.test_lane_faults import self_signed_certificate
from tests.engine.trouble import Proxy
from tests.engine.waiting import outlasted, until, within
from tests.servers import CLUSTER_SETTINGS, reachable_folder

pytestmark = pytest.mark.cluster

PARTITIONS = Partitions(64)
KEYS = Keys(PARTITIONS)
ALL = range(PARTITIONS.count)


def script(source: str) -> Script:
    return Script("test", source, sha1(source.encode()).hexdigest().encode(), ScriptHead("", (), (), (), ()))


COUNT = script("return {ARGV[1], redis.call('INCR', KEYS[1])}")
COUNT_FIELD = script("return redis.call('HINCRBY', KEYS[1], 'n', 1)")
COUNT_TWO = script("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")


def key(partition: int, name: str) -> str:
    return KEYS.prefix(partition) + name


@pytest.fixture(scope="module")
def trio() -> Iterator[EmbeddedCluster]:
    """Three primaries without replicas; who adds one takes it away."""
    folder = reachable_folder()
    try:
        with EmbeddedCluster(folder / "trio", with_replicas=False, settings=CLUSTER_SETTINGS) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def connected(url: str, counts: LaneCounts | None = None) -> AsyncIterator[ClusterLanes]:
    lanes = ClusterLanes(url, PARTITIONS, LaneSettings(reply_timeout_s=0.5, probe_interval_s=0.1), counts)
    await lanes.start()
    try:
        yield lanes
    finally:
        await lanes.close()


@pytest.fixture
async def lanes(trio: EmbeddedCluster) -> AsyncIterator[ClusterLanes]:
    async with connected(trio.url) as lanes:
        yield lanes


async def test_each_partition_has_the_server_of_its_slot(trio: EmbeddedCluster, lanes: ClusterLanes) -> None:
    for node in range(3):
        run_id = trio.info(node, "INFO", "server")["run_id"]
        server = f"{run_id}:{trio.info(node, 'INFO', 'replication')['master_replid']}"
        slots = set(slots_of(trio, node))
        assert {lanes.identity(p) for p in ALL if PARTITIONS.slot(p) in slots} == {server.encode()}
    replies = await asyncio.gather(*(lanes.call(p, COUNT, [key(p, "n")], [], deadline=within(5)) for p in ALL))
    assert [reply[0] for reply in replies] == [lanes.identity(p) for p in ALL]


async def test_a_call_is_sent_once_however_many_nodes_there_are(trio: EmbeddedCluster) -> None:
    """The work of an order is counted in calls; with the scripts loaded, none is sent twice."""
    counts = LaneCounts()
    async with connected(trio.application_url, counts) as lanes:
        await asyncio.gather(*(lanes.call(p, COUNT_FIELD, [key(p, "m")], [], deadline=within(5)) for p in ALL))
        before, again = counts.sent, counts.sent_again
        nine_each = [p for p in ALL for _ in range(9)]
        await asyncio.gather(*(lanes.call(p, COUNT_FIELD, [key(p, "m")], [], deadline=within(5)) for p in nine_each))
        own = 4 * 3  # each lane asks its node who it is, at most once in that time
        assert 9 * len(ALL) <= counts.sent - before <= 9 * len(ALL) + 2 * own
        assert counts.sent_again == again


async def test_calls_follow_a_slot_that_is_moved(trio: EmbeddedCluster, lanes: ClusterLanes) -> None:
    source, target = 0, 1
    partition = next(p for p in ALL if PARTITIONS.slot(p) in slots_of(trio, source))
    slot = PARTITIONS.slot(partition)
    first, second, new = (key(partition, name) for name in ("first", "second", "new"))
    for each in (first, second):
        await lanes.execute(partition, "SET", each, 1, deadline=within(5))
    before = lanes.identity(partition)
    there = lanes.identity(next(p for p in ALL if PARTITIONS.slot(p) in slots_of(trio, target)))
    assert await lanes.moving() == frozenset()
    await asyncio.to_thread(open_slot, trio, source, target, slot)
    assert await lanes.moving() == {partition}

    # A key that is not there is asked for where the slot goes; those that are there stay until they are moved.
    assert (await lanes.call(partition, COUNT, [new], [], deadline=within(5))) == [there, 1]
    assert (await lanes.call(partition, COUNT, [first], [], deadline=within(5))) == [before, 2]
    half = asyncio.ensure_future(lanes.call(partition, COUNT_TWO, [first, new], [], deadline=within(10)))
    with pytest.raises(Unavailable, match="TRYAGAIN"):
        await outlasted(lambda: lanes.call(partition, COUNT_TWO, [first, new], [], deadline=within(0.2)))
    assert not half.done()

    while await asyncio.to_thread(move_keys, trio, source, target, slot):
        pass
    assert await half == 5
    await asyncio.to_thread(close_slot, trio, slot, target, [source])
    assert (await lanes.call(partition, COUNT, [second], [], deadline=within(5))) == [there, 2]
    assert lanes.identity(partition) == there
    assert before is not None
    assert not lanes.goes_on(partition, before.decode())
    assert lanes.goes_on(partition, there.decode() if there else "")


async def test_a_caller_that_gives_up_leaves_no_asking_behind(trio: EmbeddedCluster, lanes: ClusterLanes) -> None:
    source, target = 2, 0
    partition = next(p for p in ALL if PARTITIONS.slot(p) in slots_of(trio, source))
    slot = PARTITIONS.slot(partition)
    await asyncio.to_thread(open_slot, trio, source, target, slot)
    calls = [lanes.call(partition, COUNT, [key(partition, f"x{n}")], [], deadline=within(5)) for n in range(50)]
    for call in calls[::2]:
        call.cancel()
    replies = await asyncio.gather(*calls[1::2])
    assert [reply[1] for reply in replies] == [1] * 25
    await asyncio.to_thread(trio.ask, target, "FLUSHALL")
    await asyncio.to_thread(give_up_slot, trio, slot, [source, target])


async def test_an_error_that_is_no_redirection_is_the_callers(lanes: ClusterLanes) -> None:
    await lanes.execute(3, "SET", key(3, "text"), "x", deadline=within(5))
    with pytest.raises(ServerError, match="not an integer"):
        await lanes.call(3, COUNT, [key(3, "text")], [], deadline=within(5))


async def test_who_is_patient_starts_where_no_node_answers_and_calls_wait(
    trio: EmbeddedCluster,
) -> None:
    port = free_port()
    nobody = f"{trio.url.rpartition('@')[0]}@127.0.0.1:{port}"
    lanes = ClusterLanes(nobody, PARTITIONS, LaneSettings(connect_timeout_s=0.3))
    proxy = Proxy(trio.ports[0])
    await lanes.start(patient=True)
    try:
        with pytest.raises(Unavailable):
            await lanes.call(0, COUNT, [key(0, "patient")], [], deadline=within(0.05))
        waiting = [lanes.call(each, COUNT, [key(each, "patient")], [], deadline=within(20)) for each in ALL]
        await proxy.start(port)
        assert [reply[1] for reply in await asyncio.gather(*waiting)] == [1] * len(waiting)
    finally:
        await lanes.close()
        await proxy.close()


async def test_a_primary_that_is_restarted_is_found_again_and_others_do_not_wait(
    trio: EmbeddedCluster, lanes: ClusterLanes
) -> None:
    mine = next(p for p in ALL if PARTITIONS.slot(p) in slots_of(trio, 1))
    other = next(p for p in ALL if PARTITIONS.slot(p) in slots_of(trio, 2))
    before = lanes.identity(mine)
    await asyncio.to_thread(trio.nodes[1].kill)
    await until(lambda: lanes.identity(mine) is None)
    waiting = lanes.call(mine, COUNT, [key(mine, "w")], [], deadline=within(20))
    assert (await lanes.call(other, COUNT, [key(other, "w")], [], deadline=within(1)))[1] == 1
    await asyncio.to_thread(trio.nodes[1].start)
    assert (await waiting)[1] == 1
    assert lanes.identity(mine) not in (None, before)
    assert before is not None
    assert not lanes.goes_on(mine, before.decode())
    await asyncio.to_thread(trio.wait_until_whole)


async def test_a_wrong_password_is_told_at_once_and_not_shown(trio: EmbeddedCluster) -> None:
    url = trio.url.replace(trio.administrator_password, "wr0ng")
    with pytest.raises(Unavailable, match=r"(?i)wrongpass|invalid") as refused:
        await ClusterLanes(url, PARTITIONS).start()
    assert "wr0ng" not in str(refused.value)


@asynccontextmanager
async def terminator(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Takes TLS off and hands on what is inside; the port it listens on."""
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        for task in (asyncio.create_task(copy(reader, inner_writer)), asyncio.create_task(copy(inner_reader, writer))):
            tasks.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cluster_behind_tls_announces_other_names_and_ports(trio: EmbeddedCluster, tmp_path: Path) -> None:
    """As behind a NAT: clients reach the nodes under `localhost`, at ports that the nodes do not listen on."""
    authorities = tmp_path / "server.pem"
    authorities.write_bytes(self_signed_certificate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authorities)
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(terminator(port, context)) for port in trio.ports]
        for node, port in enumerate(ports):
            for name, value in (
                ("cluster-announce-port", str(port)),
                ("cluster-announce-hostname", "localhost"),
                ("cluster-preferred-endpoint-type", "hostname"),
            ):
                await asyncio.to_thread(trio.ask, node, "CONFIG", "SET", name, value)
        try:
            await until(lambda: all(len(set(seen) & set(map(str, ports))) == 3 for seen in announced(trio)), 10.0)
            login = f"default:{trio.administrator_password}"
            url = f"rediss+cluster://{login}@localhost:{ports[0]}?ssl_ca_certs={authorities}"
            async with connected(url) as lanes:
                replies = await asyncio.gather(
                    *(lanes.call(p, COUNT, [key(p, "tls")], [], deadline=within(5)) for p in ALL)
                )
                assert [reply[1] for reply in replies] == [1] * len(ALL)
                assert len({reply[0] for reply in replies}) == 3
        finally:
            for node in range(3):
                for name, value in (
                    ("cluster-announce-port", "0"),
                    ("cluster-announce-hostname", ""),
                    ("cluster-preferred-endpoint-type", "ip"),
                ):
                    await asyncio.to_thread(trio.ask, node, "CONFIG", "SET", name, value)


def announced(cluster: EmbeddedCluster) -> list[list[str]]:
    return [
        [line.split(" ")[1].partition("@")[0].rpartition(":")[2] for line in cluster.lines(node) if "localhost" in line]
        for node in range(3)
    ]
