"""The way to a Redis Cluster: one lane to each primary, and which of them a partition's calls take.

A partition is one slot. Its lane is looked up in a list, so a call costs what it costs on one server; everything else
happens when a node answers that the slot is elsewhere, or when a lane loses its node.

The map of slots is asked for over the lanes themselves: they are logged in, they are connected to primaries alone, and
what they cannot reach cannot mislead. Only the first question goes out through redis-py, to the nodes of the URL, and
later ones when no lane is left. Nodes that disagree are settled by `engine.cluster_map`.
"""

import asyncio
import logging
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from engine.cluster_map import (
    VIEW_COMMANDS,
    ClusterMap,
    ClusterView,
    Endpoint,
    merge,
    moving_slots,
    read_endpoint,
    read_view,
)
from engine.errors import EngineError, Overloaded, Unavailable
from engine.lane import CLOSED, Lane
from engine.lane_connection import Argument, Call
from engine.lane_counts import LaneCounts
from engine.lanes import Lanes, LaneSettings
from engine.partitions import Partitions
from engine.redis_address import RedisAddress, parse_cluster_url
from engine.scripts import Script
from engine.together import answers_of

REFRESH_S = 5.0
"""How often the map is asked for while nothing is wrong."""

REFRESH_TROUBLED_S = 0.1
"""How often while some partition has no server."""

REFRESH_PAUSE_S = 0.02
"""The shortest pause between two questions, however many redirections say that the map is old."""

ASK_WITHIN_S = 0.5
ASK_ONCE_WITHIN_S = 1.0
RETRY_S = 0.03
"""About how long a call waits that a node would not run yet: a slot is half moved, or the cluster has no majority."""

RETRIES_PER_S = 4000
"""About how many of those who wait are sent again in a second, however many they are."""

NOBODY = "no node of the cluster has its slot"

_log = logging.getLogger("firstcome.cluster")


class ClusterLanes(Lanes):
    """The partitions on the primaries of one Redis Cluster.

    Raises ValueError when the URL is not one that `engine.redis_address.parse_cluster_url` takes.
    """

    def __init__(
        self,
        url: str,
        partitions: Partitions,
        settings: LaneSettings | None = None,
        counts: LaneCounts | None = None,
    ) -> None:
        self._seeds = parse_cluster_url(url)
        self._settings = settings or LaneSettings()
        self._counts = counts or LaneCounts()
        self._slots = [partitions.slot(number) for number in range(partitions.count)]
        self._partition_of = {slot: number for number, slot in enumerate(self._slots)}
        self._lanes: dict[Endpoint, Lane] = {}
        self._endpoints: dict[Lane, Endpoint] = {}
        self._nowhere = Lane(self._seeds[0], self._settings, self._counts)
        self._route = [self._nowhere] * partitions.count
        self._moved_at = [0.0] * partitions.count
        self._known: set[Endpoint] = set()
        self._delayed: dict[asyncio.Future[Any], asyncio.TimerHandle] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, *, patient: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._attention = asyncio.Event()
        self._nowhere.open(NOBODY)
        self._counts.lanes.append(self)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                self._adopt(merge([await self._ask_any([_endpoint(seed) for seed in self._seeds])]))
            await self._first_connections()
        except (TimeoutError, Unavailable) as error:
            nobody = f"no node of {self._shown()} answers. Check that one of them runs."
            trouble = error if isinstance(error, Unavailable) else Unavailable(nobody)
            if not patient:
                await self.close()
                raise trouble from None
            _log.warning("The cluster is waited for: %s", trouble.reason)
        except BaseException:
            await self.close()
            raise
        self._keeper = self._loop.create_task(self._keep_map(), name="the map of the cluster")

    async def close(self) -> None:
        self._closing = True
        if self in self._counts.lanes:
            self._counts.lanes.remove(self)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        for future, timer in self._delayed.items():
            timer.cancel()
            if not future.done():
                future.set_exception(Unavailable(CLOSED))
        self._delayed.clear()
        await asyncio.gather(*(lane.close() for lane in (*self._lanes.values(), self._nowhere)), *self._leaving)

    @property
    def under_way(self) -> int:
        """How many calls wait to be sent again; the lanes count all others."""
        return len(self._delayed)

    def identity(self, partition: int) -> bytes | None:
        return self._route[partition].identity

    def call(
        self,
        partition: int,
        script: Script,
        keys: Sequence[bytes | str],
        arguments: Sequence[Argument],
        *,
        deadline: float,
    ) -> asyncio.Future[Any]:
        return self._route[partition].call(partition, script, keys, arguments, deadline)

    def execute(self, partition: int, *command: Argument, deadline: float) -> asyncio.Future[Any]:
        return self._route[partition].call(partition, None, (), command, deadline)

    def recheck(self, partition: int) -> None:
        self._route[partition].recheck()

    def now_ms(self, partition: int) -> int:
        return self._route[partition].now_ms()

    def goes_on(self, partition: int, server: str) -> bool:
        """Whether it is that server, or one that was promoted in its place.

        A restart cannot be told from a slot that was moved here: both have another run id and another history.
        """
        lane = self._route[partition]
        identity = lane.identity
        if identity is None:
            return False
        return server.encode() == identity or (lane.origin != b"" and server.encode().endswith(b":" + lane.origin))

    async def moving(self) -> frozenset[int]:
        """Each node knows what it gives or takes itself, so all are asked; one that is away has nothing to serve."""
        deadline = self._loop.time() + ASK_WITHIN_S
        lanes = [lane for lane in self._lanes.values() if lane.identity is not None]
        slots: set[int] = set()
        for answer in await answers_of(lane.call(-1, None, (), VIEW_COMMANDS[0], deadline) for lane in lanes):
            if isinstance(answer, EngineError):
                raise Unavailable(answer.reason) from answer
            slots |= moving_slots(answer)
        return frozenset(self._partition_of[slot] for slot in slots if slot in self._partition_of)

    # ---- what lanes cannot do themselves -----------------------------------------------------------------------------

    def reroute(self, lane: Lane, call: Call, code: str, message: str) -> None:
        """Send what was not executed where it belongs: at once where that is said, else a little later."""
        if self._closing:
            self._put_later(call, f"{code} {message}")
            return
        partition = call[6]
        said = message.split(" ")
        if partition >= 0 and code in {"MOVED", "ASK"} and len(said) == 2:
            target = self._lane_to(read_endpoint(said[1], self._endpoints.get(lane) or _endpoint(self._seeds[0])))
            if code == "ASK":
                if target.put_asking(call):
                    self._counts.sent_again += 1
                    return
            else:
                self._attention.set()
                now = self._loop.time()
                # Nodes that do not agree yet may each name the other one: then it takes turns, but not at full speed.
                if self._route[partition] is lane and now - self._moved_at[partition] > RETRY_S:
                    self._moved_at[partition] = now
                    self._route[partition] = target
                if self._route[partition] is not lane:
                    self._counts.sent_again += 1
                    self._route[partition].put(call)
                    return
        elif code != "TRYAGAIN":
            self._attention.set()
        self._put_later(call, f"{code} {message}")

    def troubled(self) -> None:
        """A lane has lost its node: a replica may take its place soon."""
        self._attention.set()

    def _put_later(self, call: Call, why: str) -> None:
        future, deadline = call[:2]
        if self._closing:
            if not future.done():
                future.set_exception(Unavailable(CLOSED))
            return
        if len(self._delayed) >= self._settings.in_flight_limit:
            self._counts.shed += 1
            if not future.done():
                future.set_exception(Overloaded(f"{len(self._delayed)} calls wait for the cluster: {why}"))
            return
        wait_s = (RETRY_S + len(self._delayed) / RETRIES_PER_S) * random.uniform(0.5, 1.5)
        wait_s = min(wait_s, max(0.0, deadline - self._loop.time()))

        def send_again() -> None:
            self._delayed.pop(future, None)
            if future.done():
                return
            if deadline <= self._loop.time() or call[6] < 0:
                future.set_exception(Unavailable(why))
            else:
                self._counts.sent_again += 1
                self._route[call[6]].put(call)

        self._delayed[future] = self._loop.call_later(wait_s, send_again)

    # ---- the map -----------------------------------------------------------------------------------------------------

    async def _keep_map(self) -> None:
        while True:
            interval_s = REFRESH_TROUBLED_S if any(lane.identity is None for lane in self._route) else REFRESH_S
            try:
                async with asyncio.timeout(interval_s):
                    await self._attention.wait()
            except TimeoutError:
                pass
            self._attention.clear()
            try:
                views = await self._ask_lanes()
                if not views:
                    views = [await self._ask_any([*self._known, *map(_endpoint, self._seeds)])]
                self._adopt(merge(views))
            except (EngineError, TimeoutError) as error:
                _log.debug("The map of the cluster cannot be read: %s", error)
            except Exception:
                _log.exception("The map of the cluster was not understood")
            await asyncio.sleep(REFRESH_PAUSE_S)

    async def _ask_lanes(self) -> list[ClusterView]:
        deadline = self._loop.time() + ASK_WITHIN_S
        lanes = {endpoint: lane for endpoint, lane in self._lanes.items() if lane.identity is not None}
        answers = await answers_of(
            asyncio.gather(*(lane.call(-1, None, (), command, deadline) for command in VIEW_COMMANDS))
            for lane in lanes.values()
        )
        return [
            read_view(answer[0], answer[1], endpoint)
            for endpoint, answer in zip(lanes, answers, strict=True)
            if not isinstance(answer, EngineError)
        ]

    async def _ask_any(self, endpoints: Collection[Endpoint]) -> ClusterView:
        """What the first of these nodes says that answers; replicas may be asked too. Raises Unavailable."""
        troubles = []
        for endpoint in dict.fromkeys(endpoints):
            try:
                async with asyncio.timeout(ASK_ONCE_WITHIN_S):
                    return await self._ask_once(endpoint)
            except (RedisError, OSError, TimeoutError, ValueError) as error:
                troubles.append(f"{endpoint.host}:{endpoint.port}: {error or 'no answer'}")
        remedy = "Check that Redis Cluster runs there and that FIRSTCOME_REDIS_URL names it."
        raise Unavailable(f"{'; '.join(troubles)}. {remedy}")

    async def _ask_once(self, endpoint: Endpoint) -> ClusterView:
        address = self._address(endpoint)
        # Bare connections, so that replies are not reshaped.
        tls: dict[str, Any] = {}
        if address.tls:
            tls = {
                "ssl": True,
                "ssl_ca_certs": address.tls_authorities_file,
                "ssl_certfile": address.tls_certificate_file,
                "ssl_keyfile": address.tls_key_file,
            }
        async with Redis(
            host=address.host,
            port=address.port,
            username=address.username,
            password=address.password,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ASK_ONCE_WITHIN_S,
            **tls,
        ) as client:
            connection = cast(AbstractConnection, await client.connection_pool.get_connection())  # type: ignore[no-untyped-call]
            answers = []
            for command in VIEW_COMMANDS:
                await connection.send_command(*command)
                answers.append(await connection.read_response())
        return read_view(answers[0], answers[1], endpoint)

    def _adopt(self, cluster: ClusterMap) -> None:
        """Let each partition's calls take the lane to the node that has its slot, those that wait already too."""
        self._known = cluster.endpoints
        wanted = {node.endpoint for node in cluster.primaries.values()}
        for endpoint in wanted:
            self._lane_to(endpoint)
        for partition, slot in enumerate(self._slots):
            owner = cluster.owner(slot)
            # A slot that nobody claims for a moment is most likely still where it was.
            if owner is not None:
                self._route[partition] = self._lanes[owner.endpoint]
        in_use = set(self._route)
        for endpoint, lane in list(self._lanes.items()):
            if endpoint not in wanted and lane not in in_use:
                self._leave(endpoint, lane)
        for lane in (self._nowhere, *self._lanes.values()):
            self._move_queue(lane)

    def _move_queue(self, lane: Lane) -> None:
        for call in lane.take_queue():
            if not call[0].done():
                (self._route[call[6]] if call[6] >= 0 else lane).put(call)

    def _lane_to(self, endpoint: Endpoint) -> Lane:
        lane = self._lanes.get(endpoint)
        if lane is None:
            lane = Lane(self._address(endpoint), self._settings, self._counts, self)
            self._lanes[endpoint] = lane
            self._endpoints[lane] = endpoint
            lane.begin()
        return lane

    def _leave(self, endpoint: Endpoint, lane: Lane) -> None:
        """The node is no primary any more: nothing goes there, and what is under way may still be answered."""
        del self._lanes[endpoint]
        del self._endpoints[lane]
        self._move_queue(lane)
        leaving = self._loop.create_task(lane.close())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _first_connections(self) -> None:
        """Wait for all lanes; one is enough to go on with when others do not come. Raises Unavailable."""
        lanes = set(self._lanes.values())
        if not lanes:
            raise Unavailable(f"{self._shown()}: no node has any slots yet. Create the cluster first.")
        await asyncio.wait({lane.first for lane in lanes}, timeout=self._settings.connect_timeout_s)
        if all(lane.identity is None for lane in lanes):
            raise Unavailable("; ".join(lane.trouble for lane in lanes))

    def _address(self, endpoint: Endpoint) -> RedisAddress:
        return replace(self._seeds[0], host=endpoint.host, port=endpoint.port)

    def _shown(self) -> str:
        return ", ".join(map(str, self._seeds))


def _endpoint(address: RedisAddress) -> Endpoint:
    return Endpoint(address.host, address.port)
