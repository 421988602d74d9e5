"""A recovery between two steps of a flow: the rest is left to the worker, which knows what was lost."""

from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import OutcomeUnknown
from engine.idempotency import request_key
from engine.stock import Stock
from tests.engine.shop import PARTITIONS, UNTOUCHED, all_units, campaign, lines, stock_shop


async def recovered(engine: Engine) -> None:
    """What a recovery does to the flows that are under way."""
    for partition in range(PARTITIONS):
        assert await engine.recovery.raise_generation(partition, 2) is not None


async def test_what_a_cancelled_order_held_is_not_given_back_over_a_recovery(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation may have been lost; then the order awaits payment, and needs its stock."""
    await stock_shop(engine)
    order = await engine.orders.place("kim", lines(("shirt", "S", 2)), None)
    give_back = Stock.give_back

    async def late(stock: Stock, *arguments: Any) -> Any:
        await recovered(engine)
        return await give_back(stock, *arguments)

    monkeypatch.setattr(Stock, "give_back", late)
    assert (await engine.orders.cancel("kim", order.order_id)).status == "failed"
    assert (await all_units(engine))["shirt/S"] == (8, 2, 0)
    released = await engine.stock.release(engine.partitions.of("shirt"), order.order_id, ["shirt"])
    assert released.status == "released"
    assert await all_units(engine) == UNTOUCHED


def recover_before_the_grant(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every coupon meets a recovery between its issue and its grant."""
    grant = engine.coupons._grant

    async def late(*arguments: Any, **named: Any) -> Any:
        await recovered(engine)
        return await grant(*arguments, **named)

    monkeypatch.setattr(engine.coupons, "_grant", late)


async def test_a_coupon_is_not_granted_over_a_recovery(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its issue may have been lost, and the number given to another."""
    await engine.coupons.put_campaign(campaign())
    recover_before_the_grant(engine, monkeypatch)
    with pytest.raises(OutcomeUnknown):
        await engine.coupons.issue("kim", "spring")
    assert await engine.coupons.list_coupons("kim") == []


@pytest.mark.requirement("R4.9")
async def test_a_coupon_that_a_recovery_has_kept_is_no_refusal_of_the_request_that_was_issued_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same key asks again: what is issued by then was issued to it."""
    await engine.coupons.put_campaign(campaign())
    recover_before_the_grant(engine, monkeypatch)
    with pytest.raises(OutcomeUnknown):
        await engine.coupons.issue("kim", "spring", request_key("kim", "key", "", b"coupon"))
    monkeypatch.undo()
    coupon = await engine.coupons.issue("kim", "spring", request_key("kim", "key", "", b"coupon"))
    assert (coupon.issue_number, coupon.replayed) == (1, False)
    assert (await engine.coupons.issue("kim", "spring", request_key("kim", "key", "", b"coupon"))).replayed
