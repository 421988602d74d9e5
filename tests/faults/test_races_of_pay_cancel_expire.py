"""Payment, cancellation and expiry meet on one order: one of them wins, and everybody is told the same."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from api.times import parse_time
from tests.running_shop import Crowd, RunningShop, put_campaign, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

DEADLINE_MS = 400
CHARGE = 1000
PRICE = 400
AT_ONCE = 10


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """Orders expire almost at once, and the worker looks for them all the time."""
    with opened_shop(databases, api_count=2, payment_deadline_ms=DEADLINE_MS, walk_every_ms=10) as shop:
        put_product(shop.client(), "tea", price=PRICE, S=1_000_000, M=1_000_000)
        put_campaign(shop.client(), "spring", quantity=1_000_000)
        yield shop


class Race:
    """One user's order, and what those who fought over it were told."""

    def __init__(self, user: str, lead_ms: int) -> None:
        self.user = user
        self._lead_ms = lead_ms
        self.outcome = ""

    async def run(self, crowd: Crowd) -> None:
        """Order with a coupon, then pay twice and cancel twice at once, around the deadline."""
        charged = await crowd.post(f"/v1/users/{self.user}/balance/charges", {"amount": CHARGE})
        coupon = (await crowd.post(f"/v1/users/{self.user}/coupons", {"campaign_id": "spring"})).json()["coupon_id"]
        assert charged.status_code == 201
        lines = [{"product_id": "tea", "stock_id": size, "quantity": 1} for size in "SM"]
        placed = await crowd.post(f"/v1/users/{self.user}/orders", {"lines": lines, "coupon_id": coupon})
        order = placed.json()
        await asyncio.sleep(max(0, (parse_time(order["pay_before"]) - self._lead_ms) / 1000 - time.time()))
        path = f"/v1/users/{self.user}/orders/{order['order_id']}"
        answers = await crowd.all([crowd.post(f"{path}/{act}") for act in ("payment", "cancellation") * 2])
        self.outcome = _agreed_outcome(answers[::2], answers[1::2])


def _agreed_outcome(payments: list[httpx.Response], cancellations: list[httpx.Response]) -> str:
    """`completed`, `cancelled` or `expired`: what all four were told."""
    told = set()
    for answer in payments:
        told.add("completed" if answer.status_code == 200 else answer.json()["failure"])
    for answer in cancellations:
        body = answer.json()
        told.add("cancelled" if answer.status_code == 200 else body["failure"] or body["order_status"])
    assert {answer.status_code for answer in payments + cancellations} <= {200, 409}
    (outcome,) = told
    assert outcome in {"completed", "cancelled", "expired"}
    return str(outcome)


async def race(shop: RunningShop, name: str, count: int) -> None:
    """So many races, some at once, with the requests from 30 ms before the deadline until after it."""
    races = [Race(f"{name}-{number}", lead_ms=(number * 7) % 40 - 10) for number in range(count)]
    gate = asyncio.Semaphore(AT_ONCE)
    async with shop.crowd() as crowd:

        async def run(one: Race) -> None:
            async with gate:
                await one.run(crowd)

        await asyncio.gather(*map(run, races))
    books = await asyncio.to_thread(shop.assert_conserved)
    orders = {order.user: order for order in books.orders.values()}
    for one in races:
        order = orders[one.user]
        assert (order.status if order.status == "completed" else order.failure) == one.outcome
        assert books.balances[one.user] == CHARGE - (2 * PRICE - 300 if one.outcome == "completed" else 0)
    assert shop.errors_logged() == []


@pytest.mark.requirement("R0.4", "R3.7", "R3.13", "R3.16", "R3.17")
async def test_pay_cancel_and_expiry_have_one_winner(shop: RunningShop) -> None:
    await race(shop, "few", 30)


@pytest.mark.soak
async def test_pay_cancel_and_expiry_have_one_winner_a_thousand_times(shop: RunningShop) -> None:
    await race(shop, "many", 1000)
