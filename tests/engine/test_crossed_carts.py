"""Two carts that each hold the other's last unit: reserving in all partitions at once can come to that on a cluster."""

import asyncio
from typing import Any

import orjson
import pytest

from engine.engine import Engine
from engine.errors import OutOfStock, Overloaded
from engine.lanes import RedisLanes
from engine.scripts import Script
from tests.engine.shop import all_units, lines, stock_shop
from tests.engine.valkey_process import ValkeyProcess


class SlowLane(RedisLanes):
    """Keeps the first reservation for one partition back until the other cart has made its own there."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.slow_partition = -1
        self.others_turn = asyncio.Event()
        self.reserved = asyncio.Event()

    def call(self, partition: int, script: Script, keys: Any, arguments: Any, *, deadline: float) -> Any:
        if script.name != "reserve_stock":
            return super().call(partition, script, keys, arguments, deadline=deadline)
        return self._reserve(partition, script, keys, arguments, deadline)

    async def _reserve(self, partition: int, script: Script, keys: Any, arguments: Any, deadline: float) -> Any:
        if partition == self.slow_partition:
            await self.others_turn.wait()
            return await super().call(partition, script, keys, arguments, deadline=deadline)
        reply = await super().call(partition, script, keys, arguments, deadline=deadline)
        self.reserved.set()
        return reply


@pytest.mark.requirement("R0.3", "R0.4", "R0.5")
async def test_two_carts_that_hold_each_others_last_unit_do_not_both_lose(
    redis_process: ValkeyProcess, engine: Engine
) -> None:
    await stock_shop(engine)
    await engine.catalog.adjust("shirt", "S", -9, "one left")
    await engine.catalog.adjust("hat", "one", -2, "one left")
    before = await all_units(engine)
    shops: list[tuple[SlowLane, Engine]] = []
    for _ in range(2):
        lanes = SlowLane(redis_process.url)
        await lanes.start()
        shop = Engine(engine.settings, lanes)
        shop.runner.test_now_ms = engine.runner.test_now_ms
        await shop.wallets.balance("warm")
        shops.append((lanes, shop))
    (one, kims), (other, lees) = shops
    lost_both = 0
    for turn in range(50):
        one.slow_partition, other.slow_partition = engine.partitions.of("hat"), engine.partitions.of("shirt")
        one.reserved, other.reserved = asyncio.Event(), asyncio.Event()
        one.others_turn, other.others_turn = other.reserved, one.reserved
        cart = lines(("shirt", "S", 1), ("hat", None, 1))
        # What kim begins with is what lee does not wait for, or the other way round: else neither would begin.
        carts = {"kim": cart[:: -1 if turn % 3 == 2 else 1], "lee": cart[:: -1 if turn % 3 else 1]}
        outcomes = await asyncio.gather(
            kims.orders.place("kim", carts["kim"], None),
            lees.orders.place("lee", carts["lee"], None),
            return_exceptions=True,
        )
        won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} == {OutOfStock}
        lost_both += not won
        assert len(won) <= 1
        for order in won:
            assert [each["product_id"] for each in orjson.loads(order.lines_json)] == [
                each.product_id for each in carts[order.user_id]
            ]
            own, *of_stock = [position.partition for position in order.positions]
            assert own == engine.partitions.of(order.user_id)
            assert sorted(of_stock) == sorted(map(engine.partitions.of, ("shirt", "hat")))
            await engine.orders.cancel(order.user_id, order.order_id)
        assert await all_units(engine) == before
    for lanes, _ in shops:
        await lanes.close()
    assert lost_both == 0


async def test_a_second_round_that_comes_to_a_partition_that_sheds_it_holds_nothing(
    redis_process: ValkeyProcess, engine: Engine
) -> None:
    """What it holds in the partition before is given back."""
    first, last = sorted(("shirt", "hat"), key=engine.partitions.of)

    class ShedsTheSecondRound(RedisLanes):
        def __init__(self) -> None:
            super().__init__(redis_process.url)
            self.reserved = [0] * engine.partitions.count

        def call(self, partition: int, script: Script, keys: Any, arguments: Any, *, deadline: float) -> Any:
            if script.name == "reserve_stock":
                self.reserved[partition] += 1
                if self.reserved[partition] > 1 and partition == engine.partitions.of(last):
                    return self._shed()
            return super().call(partition, script, keys, arguments, deadline=deadline)

        async def _shed(self) -> Any:
            raise Overloaded("shed")

    await stock_shop(engine)
    items = {"shirt": ("shirt", "S", 10), "hat": ("hat", None, 3)}
    await engine.orders.place("lee", lines(items[last]), None)
    before = await all_units(engine)
    lanes = ShedsTheSecondRound()
    await lanes.start()
    shop = Engine(engine.settings, lanes)
    shop.runner.test_now_ms = engine.runner.test_now_ms
    await shop.wallets.balance("warm")
    with pytest.raises(Overloaded):
        await shop.orders.place("kim", lines(*((product, stock, 1) for product, stock, _ in items.values())), None)
    await lanes.close()
    assert lanes.reserved[engine.partitions.of(first)] == 2
    assert await all_units(engine) == before
