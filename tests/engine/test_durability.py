"""Waiting until changes are durable: one reader for each partition, however many wait."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from api.settings import ApiSettings
from api.shop import HISTORY_WAIT_S, Shop
from engine.durability import LOOK_EVERY_S, Durability
from engine.engine import Engine
from engine.lanes import RedisLanes
from persistence.history import History
from persistence.settings import HistorySettings

WAITING = 300


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each partition's meta was read."""
    counted: Counter[int] = Counter()
    execute = RedisLanes.execute

    def counting(lanes: RedisLanes, partition: int, *command: Any, **named: Any) -> Any:
        counted[partition] += command[0] == "HMGET"
        return execute(lanes, partition, *command, **named)

    monkeypatch.setattr(RedisLanes, "execute", counting)
    return counted


async def test_however_many_wait_one_reads_for_each_partition_and_none_when_nobody_waits(
    engine: Engine, looks: Counter[int]
) -> None:
    charges = [await engine.wallets.charge(user, 5) for user in ("ann", "bob")]
    durability = Durability(engine.runner)

    positions = [position for charge in charges for position in charge.positions]
    waits = [durability.wait(positions, timeout_s=0.5) for _ in range(WAITING)]
    assert await asyncio.gather(*waits) == [False] * WAITING
    assert looks.keys() == {position.partition for position in positions}
    assert all(0 < count <= 0.5 / LOOK_EVERY_S + 1 for count in looks.values()), looks

    looks.clear()
    assert await durability.wait([], timeout_s=0.1)
    assert looks.total() == 0


async def test_who_waits_for_a_history_asks_its_partition_alone_however_many_a_position_names(
    engine: Engine, looks: Counter[int]
) -> None:
    settings = HistorySettings()
    shop = Shop(engine, History(settings.url, settings), ApiSettings(), settings.database_url)
    count, own = engine.partitions.count, engine.partitions.of("ann")
    never = [f"{partition}:9-{number}" for number in (1, 2) for partition in range(count)]
    await shop.await_history("ann", ",".join(never))
    assert looks.keys() == {own}
    assert looks[own] <= HISTORY_WAIT_S / LOOK_EVERY_S + 1

    looks.clear()
    await shop.await_history("ann", ",".join(never[:own] + never[own + 1 : count]))
    assert looks.total() == 0
