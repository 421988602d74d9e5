"""What an order costs does not grow with the nodes: the same calls, the same round trips, and each node its share."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from engine.catalog import NewStockItem
from engine.cluster_lanes import ClusterLanes
from engine.engine import Engine, open_engine
from engine.settings import EngineSettings
from engine.stock import LineRequest
from loadtests.hot_spots import busy_us, run
from tests.cluster.moves import spread_over
from tests.running_shop import PARTITIONS
from tests.servers import CLUSTER_SETTINGS, empty_redis, reachable_folder

pytestmark = pytest.mark.cluster

NODES = (1, 3, 6)
PRODUCTS = 64
CHARGE = 1_000_000
COUNTED = 10
MEASURED = 4_000


@pytest.fixture(scope="module")
def six() -> Iterator[EmbeddedCluster]:
    """Six primaries without replicas."""
    folder = reachable_folder()
    try:
        with EmbeddedCluster(folder / "six", primaries=6, with_replicas=False, settings=CLUSTER_SETTINGS) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def shop_on(cluster: EmbeddedCluster, count: int) -> AsyncIterator[Engine]:
    """A shop that is not written of, on so many of the primaries."""
    empty_redis(cluster.url)
    spread_over(cluster, count)
    settings = EngineSettings(redis_url=cluster.application_url, partitions=PARTITIONS, request_deadline_ms=30_000)
    async with open_engine(settings) as engine:
        for partition in range(PARTITIONS):
            assert await engine.recovery.init(partition, 1)
        for product in range(PRODUCTS):
            await engine.catalog.put(f"p{product}", "P", 10, [NewStockItem("one", "", CHARGE)])
        assert len({engine.lanes.identity(partition) for partition in range(PARTITIONS)}) == count
        yield engine


def two_lines(number: int) -> list[LineRequest]:
    """Of two products, which no two orders in a row share."""
    return [LineRequest(f"p{(number * step + step) % PRODUCTS}", "one", 1) for step in (1, 7)]


class Trips:
    """Counts what one caller sends, and how often it waits for the answers before it sends more."""

    def __init__(self, lanes: ClusterLanes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.round_trips = 0
        self._sent: list[asyncio.Future[Any]] = []
        original = lanes.call

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self._sent = [each for each in self._sent if not each.done()]
            self.round_trips += not self._sent
            self._sent.append(original(*arguments, **options))
            return self._sent[-1]

        monkeypatch.setattr(lanes, "call", call)


async def test_an_order_is_as_many_calls_and_round_trips_on_six_primaries_as_on_one(
    six: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, tuple[int, int]] = {}
    for count in (1, 6):
        async with shop_on(six, count) as engine:
            for number in range(COUNTED):
                await engine.wallets.charge(f"u{number}", CHARGE)
                # From here on each node has the scripts.
                await engine.orders.checkout(f"u{number}", two_lines(number), None)
            assert isinstance(engine.lanes, ClusterLanes)
            with monkeypatch.context() as patch:
                trips = Trips(engine.lanes, patch)
                again = engine.lane_counts.sent_again
                for number in range(COUNTED):
                    assert (await engine.orders.checkout(f"u{number}", two_lines(number), None)).status == "completed"
                assert engine.lane_counts.sent_again == again
                seen[count] = (trips.calls, trips.round_trips)
    assert seen[1] == seen[6]
    calls, round_trips = seen[1]
    assert round_trips == 2 * COUNTED
    assert 2 * COUNTED < calls <= 3 * COUNTED


@pytest.mark.soak
async def test_each_node_has_its_share_of_the_work(six: EmbeddedCluster) -> None:
    """Printed: the processor time of an order on each node, with one, three and six primaries."""
    total: dict[int, float] = {}
    fullest: dict[int, float] = {}
    for count in NODES:
        async with shop_on(six, count) as engine:
            await run([partial(engine.wallets.charge, f"u{u}", CHARGE) for u in range(MEASURED)])
            before = busy_us(six)
            await run([partial(engine.orders.checkout, f"u{u}", two_lines(u), None) for u in range(MEASURED)])
            each = used(before, busy_us(six))[:count]
            total[count], fullest[count] = sum(each), max(each)
            print(f"{count} primaries: {', '.join(f'{us:.0f}' for us in each)} us an order, {sum(each):.0f} in all")  # noqa: T201
    for count in NODES[1:]:
        assert total[count] < 1.5 * total[1]
        assert fullest[count] < 1.5 * fullest[1] / count * 1.2


def used(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Of each order, on each node."""
    return [(now - then) / MEASURED for then, now in zip(before, after, strict=True)]
