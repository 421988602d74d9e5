"""A spree of customers who charge, take coupons, order, pay, cancel or walk away, while processes die under them."""

import asyncio
import random
from dataclasses import dataclass, field

import httpx

from tests.books import Books
from tests.running_shop import LOST, Crowd, RunningShop, put_campaign, put_product

CHARGE = 10_000
PRODUCTS = [f"p{number}" for number in range(8)]
RARE_UNITS = 3
ROUNDS = 3
"""Orders of each customer: enough that every process meets every step several times."""


def stock_shop(shop: RunningShop) -> None:
    """The products and the campaign of every spree."""
    client = shop.client()
    for product in PRODUCTS:
        put_product(client, product, price=100, S=100_000, M=100_000)
    put_campaign(client, "spring", quantity=1_000_000)


@dataclass(slots=True)
class Customer:
    """What one customer was told. `lost` are requests whose answer never came."""

    user: str
    charged: bool | None = None
    finished: dict[str, str] = field(default_factory=dict)
    placed: set[str] = field(default_factory=set)
    coupon: str | None = None
    lost: int = 0


class Spree:
    """Customers of one round, with users of their own; what happens follows from the seed."""

    def __init__(self, shop: RunningShop, name: str, count: int, seed: int) -> None:
        self._shop = shop
        self._random = random.Random(seed)
        self.name = name
        self.customers = [Customer(f"{name}-{number}") for number in range(count)]
        put_product(shop.client(), f"rare-{name}", price=100, one=RARE_UNITS)

    async def run(self) -> None:
        """All customers at once, each one step after the other."""
        async with self._shop.crowd() as crowd:
            await asyncio.gather(
                *(self._visit(crowd, customer, number % 5) for number, customer in enumerate(self.customers))
            )

    def check(self, books: Books) -> None:
        """Whatever a customer was told has happened and still holds; what they were not told happened once or never."""
        for customer in self.customers:
            mine = {order_id: order for order_id, order in books.orders.items() if order.user == customer.user}
            for order_id, status in customer.finished.items():
                assert mine[order_id].status == status, f"{customer}: {order_id} is {mine[order_id]}"
            assert customer.placed <= mine.keys(), f"{customer} was told of orders that there are not"
            allowed = {"awaiting_payment", "completed", "failed", "void"}
            assert {order.status for order in mine.values()} <= allowed
            spent = sum(order.total for order in mine.values() if order.status == "completed")
            balances = {True: {CHARGE - spent}, False: {CHARGE - spent, -spent}, None: {0}}[customer.charged]
            assert books.balances.get(customer.user, 0) in balances, f"{customer}: {books.balances.get(customer.user)}"
            if customer.coupon:
                assert books.coupons[customer.coupon].user == customer.user

    async def _visit(self, crowd: Crowd, customer: Customer, kind: int) -> None:
        if kind != 2:
            answer = await self._ask(crowd, customer, "balance/charges", {"amount": CHARGE})
            customer.charged = answer is not None
        if kind in {0, 4}:
            answer = await self._ask(crowd, customer, "coupons", {"campaign_id": "spring"})
            customer.coupon = answer.json().get("coupon_id") if answer is not None else None
        if kind == 1:
            rare = [{"product_id": f"rare-{self.name}", "quantity": 1}]
            await self._order(crowd, customer, "checkout", rare)
        for number in range(1 if kind == 4 else ROUNDS):
            if kind == 1:
                await self._order(crowd, customer, "checkout", [])
                continue
            coupon = customer.coupon if number == 0 else None
            order_id = await self._order(crowd, customer, "orders", [], coupon)
            if order_id is None or kind == 4:
                continue
            await self._finish(crowd, customer, order_id, "cancellation" if kind == 3 else "payment")

    async def _finish(self, crowd: Crowd, customer: Customer, order_id: str, how: str) -> None:
        answer = await self._ask(crowd, customer, f"orders/{order_id}/{how}")
        if answer is not None and answer.is_success:
            customer.finished[order_id] = answer.json()["status"]
        elif answer is not None and answer.status_code == httpx.codes.PAYMENT_REQUIRED:
            customer.finished[order_id] = "failed"

    async def _order(
        self, crowd: Crowd, customer: Customer, at: str, extra: list[dict[str, object]], coupon: str | None = None
    ) -> str | None:
        lines = [
            {"product_id": product, "stock_id": self._random.choice("SM"), "quantity": self._random.randint(1, 3)}
            for product in self._random.sample(PRODUCTS, 3)
        ]
        answer = await self._ask(crowd, customer, at, {"lines": extra + lines, "coupon_id": coupon})
        if answer is None or not answer.is_success:
            return None
        order = answer.json()
        customer.placed.add(order["order_id"])
        if order["status"] == "completed":
            customer.finished[order["order_id"]] = "completed"
        return str(order["order_id"])

    async def _ask(self, crowd: Crowd, customer: Customer, path: str, body: object = None) -> httpx.Response | None:
        try:
            answer = await crowd.post(f"/v1/users/{customer.user}/{path}", body)
        except LOST:
            customer.lost += 1
            return None
        assert answer.status_code in {200, 201, 402, 409}, answer.text
        return answer
