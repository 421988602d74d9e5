import asyncio
from collections import Counter

import pytest

from engine.catalog import NewStockItem
from engine.engine import Engine
from tests.concurrency.buyers import charge_and_pay, in_processes
from tests.engine.shop import events, units
from tests.engine.valkey_process import ValkeyProcess


@pytest.mark.requirement("R1.6", "R1.7", "R0.4", "R0.5")
async def test_a_thousand_charges_and_payments_of_one_user_end_in_the_exact_balance(
    redis_process: ValkeyProcess, engine: Engine
) -> None:
    await engine.catalog.put("hat", "Hat", 500, [NewStockItem("one", "", 10_000)])
    turns = [f"kim:{number}" for number in range(1_000)]
    said = await asyncio.to_thread(in_processes, charge_and_pay, redis_process.url, [turns[:500], turns[500:]])
    assert said["charged 700"] == 500
    assert said["completed"] + said["InsufficientBalance"] == 500
    balance = await engine.wallets.balance("kim")
    assert balance == 500 * 700 - 500 * said["completed"]
    ledger = 0
    for event in await events(engine):
        if event["type"] == "wallet.charged":
            ledger += int(event["amount"])
        elif event["type"] == "order.checked_out" and event["status"] == "completed":
            ledger -= int(event["total"])
        else:
            continue
        assert int(event["balance"]) == ledger >= 0
    assert ledger == balance
    assert await units(engine, "hat", "one") == (10_000 - said["completed"], said["completed"], 0)
    assert Counter(event["type"] for event in await events(engine))["order.checked_out"] == 500
