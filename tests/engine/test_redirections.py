"""The lanes of a cluster whose nodes send calls to and fro as they are told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.cluster_lanes import RETRY_S, ClusterLanes
from engine.errors import OutcomeUnknown, Overloaded, Unavailable
from engine.lane import Lane
from engine.lane_counts import LaneCounts
from engine.lanes import LaneSettings
from engine.partitions import CLUSTER_SLOTS, Partitions
from engine.redis_address import parse_redis_url
from tests.engine.scripted_server import Client, Command, ScriptedServer, bulk
from tests.engine.waiting import until, within

PARTITIONS = Partitions(4)
FIRST, SECOND = 0, 2
"""A partition of each of the two nodes."""

SETTINGS = LaneSettings(probe_interval_s=60, reply_timeout_s=30)
NOT_ANSWERED = (Unavailable, OutcomeUnknown)
"""What ends a call that is sent again and again: the second, when it was just under way at its deadline."""

QUESTION = [b"CLUSTER", b"NODES"]


class Cluster:
    """Two nodes, each with half of the slots by the map that both know. ``says`` is what each answers to a call: None
    is what was asked.
    """

    def __init__(self) -> None:
        self.nodes = [ScriptedServer(self._answers(number)) for number in (0, 1)]
        for node in self.nodes:
            node.mode = "cluster"
        self.says: list[bytes | None] = [None, None]
        self.asked = [0, 0]
        """How many calls, those that ask for the map not among them, each has had."""

    def redirect(self, code: str, to: int) -> bytes:
        return f"-{code} {PARTITIONS.slot(FIRST)} 127.0.0.1:{self.nodes[to].port}\r\n".encode()

    def _answers(self, number: int) -> Any:
        async def answer(command: Command, client: Client) -> bytes | None:
            half = CLUSTER_SLOTS // 2
            if command == QUESTION:
                return bulk(
                    "".join(
                        f"{at:040} 127.0.0.1:{node.port}@1 {'myself,' * (at == number)}master - 0 0 {at + 1} connected "
                        f"{at * half}-{at * half + half - 1}\n"
                        for at, node in enumerate(self.nodes)
                    ).encode()
                )
            if command[0] == b"CLUSTER":
                return b"*0\r\n"
            if command[0] in {b"ASKING", b"CLIENT"}:
                return b"+OK\r\n"
            self.asked[number] += 1
            said = self.says[number]
            return bulk(command[-1]) if said is None else said

        return answer


@asynccontextmanager
async def connected(settings: LaneSettings = SETTINGS) -> AsyncIterator[tuple[Cluster, ClusterLanes, LaneCounts]]:
    cluster, counts = Cluster(), LaneCounts()
    async with cluster.nodes[0], cluster.nodes[1]:
        lanes = ClusterLanes(f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}", PARTITIONS, settings, counts)
        await lanes.start()
        try:
            yield cluster, lanes, counts
        finally:
            await lanes.close()


def refused(lanes: ClusterLanes, cluster: Cluster, code: str, text: str, within_s: float = 30) -> "asyncio.Future[Any]":
    """A call of the first node that it has just redirected to the second one."""
    future = asyncio.get_running_loop().create_future()
    call = (future, within(within_s), None, (), ("ECHO", text), 0, FIRST)
    lanes.reroute(lanes._route[FIRST], call, code, cluster.redirect(code, 1).decode().partition(" ")[2].strip())
    return future


async def test_asking_is_followed_by_its_call_whatever_else_waits_for_that_node() -> None:
    async with connected() as (cluster, lanes, _):
        others = [lanes.execute(SECOND, "ECHO", f"other {n}", deadline=within(30)) for n in range(10)]
        asked = [refused(lanes, cluster, "ASK", f"asked {n}") for n in range(3)]
        assert await asyncio.gather(*asked, *others) == [
            *(b"asked %d" % n for n in range(3)),
            *(b"other %d" % n for n in range(10)),
        ]
        came = [command for command in cluster.nodes[1].commands if command[0] in {b"ASKING", b"ECHO"}]
        after = [came[at + 1][-1] for at, command in enumerate(came) if command == [b"ASKING"]]
        assert after == [b"asked 0", b"asked 1", b"asked 2"]


async def test_a_call_with_asking_ends_at_its_own_deadline() -> None:
    """The node that it is sent to says nothing, and is waited for longer."""
    async with connected() as (cluster, lanes, _):
        cluster.says[1] = b""
        asked = refused(lanes, cluster, "ASK", "asked", 0.1)
        async with asyncio.timeout(10):
            with pytest.raises(OutcomeUnknown, match="has not answered in time"):
                await asked


async def test_a_node_that_takes_nothing_in_is_not_asked_until_it_does() -> None:
    async with connected() as (cluster, lanes, _):
        cluster.nodes[1].reading.clear()
        large = [lanes.execute(SECOND, "ECHO", b"%02d" % n * 500_000, deadline=within(30)) for n in range(20)]
        connection = lanes._route[SECOND]._connection
        assert connection is not None
        await until(lambda: not connection.writable)
        handed_over = len(connection.in_flight)
        asked = refused(lanes, cluster, "ASK", "asked")
        assert len(connection.in_flight) == handed_over
        # Not even as many as are written before the end of a tick.
        held_back = [lanes.execute(SECOND, "ECHO", f"{n}", deadline=within(30)) for n in range(100)]
        await asyncio.sleep(0)
        assert len(connection.in_flight) == handed_over
        cluster.nodes[1].reading.set()
        assert await asyncio.gather(*large) == [b"%02d" % n * 500_000 for n in range(20)]
        assert await asyncio.gather(*held_back) == [b"%d" % n for n in range(100)]
        assert await asked == b"asked", "the first node has it by the map, and was asked once more"


async def test_a_call_that_was_moved_takes_the_new_way_and_the_map_is_asked_for() -> None:
    async with connected() as (cluster, lanes, counts):
        cluster.says[0] = cluster.redirect("MOVED", 1)
        known = cluster.nodes[0].commands.count(QUESTION)
        assert await lanes.execute(FIRST, "ECHO", "x", deadline=within(30)) == b"x"
        assert cluster.asked == [1, 1]
        assert counts.sent_again == 1
        await until(lambda: cluster.nodes[0].commands.count(QUESTION) > known, 3.0)


async def test_nodes_that_each_name_the_other_are_not_asked_at_full_speed() -> None:
    async with connected() as (cluster, lanes, counts):
        cluster.says = [cluster.redirect("MOVED", 1), cluster.redirect("MOVED", 0)]
        patience = 20 * RETRY_S
        with pytest.raises(NOT_ANSWERED):
            await lanes.execute(FIRST, "ECHO", "x", deadline=within(patience))
        # It is put off for half of RETRY_S at least, and goes to and fro once between.
        assert 3 <= sum(cluster.asked) <= 3 * 2 * 20 + 3
        assert counts.sent_again >= sum(cluster.asked) - 1


async def test_the_more_wait_for_a_cluster_the_more_seldom_each_asks() -> None:
    waiting, patience = 800, 1.0
    async with connected() as (cluster, lanes, _):
        cluster.says[0] = b"-CLUSTERDOWN The cluster is down\r\n"
        calls = [lanes.execute(FIRST, "ECHO", "x", deadline=within(patience)) for _ in range(waiting)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {*NOT_ANSWERED}
        assert waiting < cluster.asked[0] < 10 * waiting, "some forty times, if each waited as long as one alone does"
        cluster.says[0] = None
        assert await lanes.execute(FIRST, "ECHO", "again", deadline=within(30)) == b"again"


async def test_those_who_wait_for_the_cluster_are_counted_and_are_no_more_than_a_server_may_have() -> None:
    limit = 50
    settings = LaneSettings(probe_interval_s=60, reply_timeout_s=30, in_flight_limit=limit)
    async with connected(settings) as (cluster, lanes, counts):
        cluster.says[0] = b"-CLUSTERDOWN The cluster is down\r\n"
        calls = [lanes.execute(FIRST, "ECHO", f"{n}", deadline=within(30)) for n in range(limit)]
        # All of them, and nothing besides; but now and then the map is asked for too.
        await until(lambda: len(lanes._delayed) == counts.in_flight == limit)
        with pytest.raises(Overloaded, match="50 calls wait for the cluster: CLUSTERDOWN"):
            await lanes.execute(FIRST, "ECHO", "one more", deadline=within(30))
        assert counts.shed >= 1
        assert await lanes.execute(SECOND, "ECHO", "elsewhere", deadline=within(30)) == b"elsewhere"
        cluster.says[0] = None
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(limit)]
        assert counts.in_flight == 0
    assert counts.lanes == []


async def test_a_call_that_only_waited_for_its_node_was_not_sent_again() -> None:
    async with connected() as (cluster, lanes, counts):
        lane = lanes._route[FIRST]
        connection = lane._connection
        assert connection is not None
        connection.drop("lost")
        call = lanes.execute(FIRST, "ECHO", "waits", deadline=within(30))
        lanes._move_queue(lane)
        assert await call == b"waits"
        assert (cluster.asked, counts.sent_again) == ([1, 0], 0)


async def test_a_lane_that_is_closed_takes_nothing_over() -> None:
    lane = Lane(parse_redis_url("redis://127.0.0.1:1"), LaneSettings())
    lane.open("nobody is there")
    waits = lane.call(0, None, (), ("PING",), within(30))
    await lane.close()
    late = asyncio.get_running_loop().create_future()
    lane.put((late, within(30), None, (), ("PING",), 0, 0))
    for future in (waits, late):
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable, match="has closed its connection"):
                await future
