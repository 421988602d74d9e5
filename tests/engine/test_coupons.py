import asyncio

import pytest

from engine.coupons import Coupon, Discount, Issue
from engine.engine import Engine
from engine.errors import (
    CampaignNotOpen,
    CouponAlreadyIssued,
    CouponNotValid,
    CouponsExhausted,
    NotFound,
    QuantityBelowIssued,
)
from tests.engine.shop import NOW, campaign, lines, stock_shop

DAY_MS = 86_400_000


@pytest.mark.requirement("R4.1", "R4.4", "R4.5", "R4.8")
async def test_a_coupon_carries_user_day_and_number_rule_and_validity(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign(discount=Discount("percent", 10, 500, 300), quantity=2))
    coupon = await engine.coupons.issue("kim", "spring")
    assert (coupon.coupon_id, coupon.issue_number, coupon.state) == ("kim-20270115-1", 1, "free")
    assert coupon.discount == Discount("percent", 10, 500, 300)
    assert (coupon.issued_at_ms, coupon.valid_from_ms, coupon.valid_until_ms) == (NOW, NOW, NOW + 7 * DAY_MS)
    assert (await engine.coupons.read_campaign("spring")).remaining == 1


@pytest.mark.requirement("R4.5")
async def test_the_day_in_the_id_is_the_business_day_of_the_issue(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign())
    midnight_in_seoul = NOW + 7 * 3_600_000
    engine.runner.test_now_ms = str(midnight_in_seoul - 1)
    assert (await engine.coupons.issue("kim", "spring")).coupon_id == "kim-20270115-1"
    engine.runner.test_now_ms = str(midnight_in_seoul)
    assert (await engine.coupons.issue("lee", "spring")).coupon_id == "lee-20270116-1"


@pytest.mark.requirement("R4.9")
async def test_refusals_say_what_stands_in_the_way(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign(quantity=1))
    coupon = await engine.coupons.issue("kim", "spring")
    with pytest.raises(CouponAlreadyIssued) as again:
        await engine.coupons.issue("kim", "spring")
    assert again.value.coupon_id == coupon.coupon_id
    with pytest.raises(CouponsExhausted):
        await engine.coupons.issue("lee", "spring")
    with pytest.raises(QuantityBelowIssued):
        await engine.coupons.put_campaign(campaign(quantity=0))
    for opens_at_ms, upcoming in ((NOW + 1, True), (NOW - 10, False)):
        await engine.coupons.put_campaign(campaign("other", opens_at_ms=opens_at_ms, closes_at_ms=opens_at_ms + 5))
        with pytest.raises(CampaignNotOpen) as closed:
            await engine.coupons.issue("lee", "other")
        assert closed.value.upcoming is upcoming


@pytest.mark.requirement("R4.2", "R4.3", "R4.4", "R4.6", "R4.10", "R4.11")
async def test_a_coupon_is_valid_taken_used_or_expired(engine: Engine) -> None:
    await stock_shop(engine)
    await engine.wallets.charge("kim", 10_000)
    await engine.coupons.put_campaign(campaign())
    coupon_id = (await engine.coupons.issue("kim", "spring")).coupon_id

    async def seen() -> Coupon:
        return (await engine.coupons.list_coupons("kim"))[0]

    assert (await seen()).reason_invalid(NOW) is None
    order = await engine.orders.place("kim", lines(("shirt", "S", 1)), coupon_id)
    assert (order.subtotal, order.discount, order.total) == (1_000, 300, 700)
    assert ((await seen()).reason_invalid(NOW), (await seen()).order_id) == ("taken", order.order_id)
    await engine.orders.cancel("kim", order.order_id)
    assert (await seen()).reason_invalid(NOW) is None
    order = await engine.orders.checkout("kim", lines(("shirt", "S", 1)), coupon_id)
    used = await engine.coupons.read_coupon("kim", coupon_id)
    assert (used.reason_invalid(NOW), used.order_id, used.used_at_ms) == ("used", order.order_id, NOW)
    with pytest.raises(CouponNotValid) as refused:
        await engine.orders.checkout("kim", lines(("shirt", "S", 1)), coupon_id)
    assert refused.value.why == "used"

    await engine.coupons.put_campaign(campaign("next"))
    newest = (await engine.coupons.issue("kim", "next")).coupon_id
    assert [coupon.coupon_id for coupon in await engine.coupons.list_coupons("kim")] == [newest, coupon_id]
    coupon = await engine.coupons.read_coupon("kim", newest)
    assert coupon.reason_invalid(NOW + 7 * DAY_MS - 1) is None
    assert coupon.reason_invalid(NOW + 7 * DAY_MS) == "expired"
    assert coupon.reason_invalid(NOW - 1) == "not_started"


async def test_another_users_coupon_is_not_found(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign())
    coupon = await engine.coupons.issue("kim", "spring")
    for user, coupon_id in (("lee", coupon.coupon_id), ("kim", "campaign:spring"), ("kim", "kim-20270115-2")):
        with pytest.raises(NotFound):
            await engine.coupons.read_coupon(user, coupon_id)
    assert await engine.coupons.list_coupons("lee") == []


@pytest.mark.requirement("R4.1", "R4.9", "R0.4")
async def test_one_user_asking_many_times_at_once_gets_one_coupon(engine: Engine) -> None:
    await engine.coupons.put_campaign(campaign(quantity=5))
    asked = await asyncio.gather(*(engine.coupons.issue("kim", "spring") for _ in range(50)), return_exceptions=True)
    assert len([coupon for coupon in asked if isinstance(coupon, Coupon)]) == 1
    assert {type(refusal) for refusal in asked if isinstance(refusal, Exception)} == {CouponAlreadyIssued}
    assert (await engine.coupons.read_campaign("spring")).issued == 1


async def test_a_grant_is_made_once_with_the_rule_of_its_issue(engine: Engine) -> None:
    rule = Discount("amount", 77, None, None)
    issue = Issue("kim", "gone", 5, NOW - DAY_MS, rule, 3)
    coupon, granted = await engine.coupons.grant(issue)
    assert granted
    assert (coupon.coupon_id, coupon.discount, coupon.valid_until_ms) == ("kim-20270114-1", rule, NOW + 2 * DAY_MS)
    assert await engine.coupons.grant(issue) == (coupon, False)


async def test_campaigns_of_all_partitions_are_listed(engine: Engine) -> None:
    ids = sorted(f"c{number}" for number in range(12))
    for campaign_id in ids:
        await engine.coupons.put_campaign(campaign(campaign_id))
    assert [found.campaign_id for found in await engine.coupons.list_campaigns(100)] == ids
    with pytest.raises(NotFound):
        await engine.coupons.read_campaign("c99")
