import asyncio

import pytest

from engine.engine import Engine
from tests.concurrency.buyers import in_processes, issue
from tests.engine.shop import campaign, events
from tests.engine.valkey_process import ValkeyProcess

USERS = [f"u{number}" for number in range(2_000)]


@pytest.mark.requirement("R4.1", "R4.8", "R4.9", "R0.4", "R0.5")
async def test_two_thousand_users_of_two_processes_get_a_hundred_coupons(
    redis_process: ValkeyProcess, engine: Engine
) -> None:
    await engine.coupons.put_campaign(campaign(quantity=100))
    said = await asyncio.to_thread(in_processes, issue, redis_process.url, [USERS[::2], USERS[1::2]])
    assert {word: said[word] for word in said if word.startswith("#")} == {f"#{n}": 1 for n in range(1, 101)}
    assert said["CouponAlreadyIssued"] == 100
    assert said["CouponsExhausted"] == 2 * 1_900
    spring = await engine.coupons.read_campaign("spring")
    assert (spring.issued, spring.remaining) == (100, 0)
    happened = await events(engine)
    issued = [(event["user"], event["number"]) for event in happened if event["type"] == "coupon.issued"]
    granted = [(event["user"], event["number"]) for event in happened if event["type"] == "coupon.granted"]
    assert [number for _, number in issued] == [str(number) for number in range(1, 101)]
    assert sorted(issued) == sorted(granted)
    assert len(dict(issued)) == 100
