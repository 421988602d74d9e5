import asyncio

import pytest

from engine.engine import Engine
from engine.errors import BalanceLimit, ChargeLimit
from tests.engine.shop import NOW, events, opened
from tests.engine.valkey_process import ValkeyProcess


@pytest.mark.requirement("R1.1", "R1.2", "R1.3", "R1.4", "R1.5")
async def test_a_charge_raises_that_users_balance_and_answers_it(engine: Engine) -> None:
    assert await engine.wallets.balance("kim") == 0
    charge = await engine.wallets.charge("kim", 700)
    assert (charge.user_id, charge.amount, charge.balance, charge.charged_at_ms) == ("kim", 700, 700, NOW)
    assert [position.partition for position in charge.positions] == [engine.partitions.of("kim")]
    assert (await engine.wallets.charge("kim", 5)).balance == 705
    assert (await engine.wallets.balance("kim"), await engine.wallets.balance("lee")) == (705, 0)


@pytest.mark.requirement("R0.8")
async def test_limits_are_refused_and_change_nothing(redis_process: ValkeyProcess) -> None:
    async with opened(redis_process.url, charge_min=10, charge_max=100, balance_max=150) as engine:
        for amount in (-1, 0, 9, 101):
            with pytest.raises(ChargeLimit) as refused:
                await engine.wallets.charge("kim", amount)
            assert (refused.value.minimum, refused.value.maximum) == (10, 100)
        await engine.wallets.charge("kim", 100)
        with pytest.raises(BalanceLimit) as full:
            await engine.wallets.charge("kim", 51)
        assert (full.value.balance, full.value.maximum) == (100, 150)
        assert (await engine.wallets.charge("kim", 50)).balance == 150
        assert len(await events(engine)) == 2


@pytest.mark.requirement("R1.6", "R0.4")
async def test_charges_at_once_are_all_reflected(engine: Engine) -> None:
    charges = await asyncio.gather(*(engine.wallets.charge("kim", amount) for amount in range(1, 301)))
    assert await engine.wallets.balance("kim") == sum(range(1, 301))
    assert len({charge.balance for charge in charges}) == 300
