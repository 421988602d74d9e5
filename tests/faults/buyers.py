"""Customers who buy without end while Redis is lost, and remember what they were told is durable."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

from tests.books import Books
from tests.running_shop import LOST, Crowd, RunningShop, put_campaign, put_product

CHARGE = 5_000
COUPONS = 60
RARE_UNITS = 80
PRODUCTS = [f"p{number}" for number in range(12)]
REFUSED = {402, 409}
BUSY = {"recovering", "overloaded", "outcome-unknown"}
"""The only errors that a loss of Redis may be told by."""
BUSY_PAUSE_S = 0.1
"""Impatient, where Retry-After says a second."""


def stock_shop(shop: RunningShop) -> None:
    """Plenty of most, few of one, and a small campaign; all of it durable."""
    client = shop.client()
    for product in PRODUCTS:
        put_product(client, product, price=100, S=100_000, M=100_000)
    put_product(client, "rare", price=100, one=RARE_UNITS)
    put_campaign(client, "spring", quantity=COUPONS)
    shop.settle()


@dataclass(slots=True)
class Buyers:
    """`count` customers at once, users of their own by ``name``; each waits ``wait_s`` at most until what was done is
    durable, or as long as the shop lets it by default.
    """

    shop: RunningShop
    name: str
    count: int
    wait_s: int | None = None
    orders: dict[str, str] = field(default_factory=dict)
    coupons: dict[str, str] = field(default_factory=dict)
    charges: dict[str, int] = field(default_factory=dict)
    sold_at: list[float] = field(default_factory=list)
    busy_at: list[float] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _sold: asyncio.Condition = field(default_factory=asyncio.Condition)
    _crowd: Crowd = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> "Buyers":
        self._crowd = await self.shop.crowd().__aenter__()
        self._tasks += [asyncio.create_task(self._buy(number)) for number in range(self.count)]
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._crowd.__aexit__(*raised)

    @property
    def _headers(self) -> dict[str, str]:
        return {} if self.wait_s is None else {"Prefer": f"durable, wait={self.wait_s}"}

    async def have_sold(self, orders: int, *, since: float = 0.0, within_s: float = 30.0) -> None:
        """Wait until so many orders were sold since a moment (of `time.monotonic`)."""
        async with asyncio.timeout(within_s), self._sold:
            await self._sold.wait_for(lambda: sum(at > since for at in self.sold_at) >= orders)

    def check(self, books: Books) -> None:
        """Whatever was said to be durable is there, and nothing was said that must not be."""
        assert not self.unexpected, self.unexpected[:5]
        for order_id, status in self.orders.items():
            assert order_id in books.orders, f"order {order_id} was durable ({status}) and is gone"
            assert books.orders[order_id].status == status
        for coupon_id, user in self.coupons.items():
            assert coupon_id in books.coupons, f"coupon {coupon_id} was durable and is gone"
            assert books.coupons[coupon_id].user == user
        for user, charged in self.charges.items():
            spent = sum(
                each.total for each in books.orders.values() if each.user == user and each.status == "completed"
            )
            assert books.balances.get(user, 0) + spent >= charged, f"a durable charge of {user} is gone"

    async def _buy(self, number: int) -> None:
        chance = random.Random(f"{self.name}{number}")
        user = f"{self.name}-{number}"
        coupon: str | None = None
        while not self._stop.is_set():
            charged = await self._ask(user, "balance/charges", {"amount": CHARGE})
            if charged is not None and charged["durable"]:
                self.charges[user] = self.charges.get(user, 0) + CHARGE
            if coupon is None and (issued := await self._ask(user, "coupons", {"campaign_id": "spring"})) is not None:
                coupon = issued["coupon_id"]
                if issued["durable"]:
                    self.coupons[issued["coupon_id"]] = user
            for _ in range(3):
                lines: list[dict[str, Any]] = [
                    {"product_id": product, "stock_id": chance.choice("SM"), "quantity": chance.randint(1, 3)}
                    for product in chance.sample(PRODUCTS, 3)
                ]
                if chance.random() < 0.3:
                    lines.append({"product_id": "rare", "quantity": 1})
                order = await self._ask(user, "checkout", {"lines": lines, "coupon_id": coupon})
                if order is not None:
                    coupon = None if coupon is None else ""
                    async with self._sold:
                        self.sold_at.append(time.monotonic())
                        self._sold.notify_all()
                    if order["durable"]:
                        self.orders[order["order_id"]] = order["status"]
                coupon = coupon or None

    async def _ask(self, user: str, path: str, body: object) -> dict[str, Any] | None:
        try:
            answer = await self._crowd.post(f"/v1/users/{user}/{path}", body, self._headers)
        except LOST:
            return None
        if answer.is_success:
            return dict(answer.json())
        problem = answer.json().get("type", "").rpartition("/")[2]
        if problem in BUSY:
            self.busy_at.append(time.monotonic())
            await asyncio.sleep(BUSY_PAUSE_S)
        elif answer.status_code not in REFUSED:
            self.unexpected.append(f"{answer.status_code} {answer.text}")
        return None
