"""A shop in memory with the few operations that a replay needs: exact, and made to fail where a test wants it to."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import schemas

DAY = "2026-03-02"
AT = f"{DAY}T10:00:00.000Z"


def problem(name: str, status: int, **members: Any) -> Response:
    body = {"type": f"/problems/{name}", "detail": name, **members}
    return Response(msgspec.json.encode(body), status, media_type="application/problem+json")


def answer(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


@dataclass
class SmallShop:
    """`faults` holds, per operation, what answers the next requests in the shop's place; None lets the shop answer.
    With `late_faults` the shop acts first, and its answer is lost."""

    faults: dict[str, list[Response | None]] = field(default_factory=dict)
    late_faults: dict[str, list[Response | None]] = field(default_factory=dict)
    maximum_charge: int = 10_000_000
    maximum_balance: int = 100_000_000
    maximum_lines: int = 500
    skimmed: int = 0
    products: dict[str, schemas.ProductRequest] = field(default_factory=dict)
    stock: dict[str, int] = field(default_factory=dict)
    sold: dict[str, int] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    orders: dict[str, schemas.Order] = field(default_factory=dict)
    charges: list[int] = field(default_factory=list)
    numbers: Any = field(default_factory=itertools.count)

    def app(self) -> Starlette:
        user, product = "/v1/users/{user}", "/admin/v1/products/{product}"
        return Starlette(
            routes=[
                self._route("/v1/policies", self.get_policies),
                self._route("/v1/products", self.list_products),
                self._route("/v1/products/{product}", self.get_product),
                self._route("/v1/best-sellers", self.list_best_sellers),
                self._route(f"{user}/balance", self.get_balance),
                self._route(f"{user}/balance/charges", self.charge, "POST"),
                self._route(f"{user}/orders", self.list_orders),
                self._route(f"{user}/orders/{{order}}", self.get_order),
                self._route(f"{user}/checkout", self.checkout, "POST"),
                self._route(product, self.put_product, "PUT"),
                self._route(f"{product}/stock/unit/adjustments", self.adjust, "POST"),
            ]
        )

    def _route(self, path: str, operation: Callable[[Request], Awaitable[Response]], method: str = "GET") -> Route:
        name = operation.__name__

        async def endpoint(request: Request) -> Response:
            faults, late = self.faults.get(name, []), self.late_faults.get(name, [])
            if faults and (fault := faults.pop(0)) is not None:
                return fault
            own = await operation(request)
            return (late.pop(0) or own) if late else own

        return Route(path, endpoint, methods=[method])

    async def get_policies(self, request: Request) -> Response:
        return answer(
            schemas.Policies(
                currency="GBP",
                time_zone="Europe/London",
                minimum_charge=1,
                maximum_charge=self.maximum_charge,
                maximum_balance=self.maximum_balance,
                maximum_payment=50_000_000,
                maximum_unit_price=100_000_000,
                maximum_quantity=100_000,
                maximum_lines=self.maximum_lines,
                minimum_discount=1,
                maximum_discount=1_000_000,
                payment_deadline_seconds=86_400,
            )
        )

    def product(self, product_id: str) -> schemas.ChangedProduct:
        made, available = self.products[product_id], self.stock[product_id]
        item = schemas.StockItem(stock_id="unit", product_id=product_id, option="unit", available=available)
        return schemas.ChangedProduct(
            product_id=product_id,
            name=made.name,
            price=made.price,
            currency="GBP",
            available=available,
            stock=[item],
            position="0:1-1",
            durable=False,
        )

    async def put_product(self, request: Request) -> Response:
        product_id = request.path_params["product"]
        self.products[product_id] = msgspec.json.decode(await request.body(), type=schemas.ProductRequest)
        self.stock.setdefault(product_id, self.products[product_id].stock[0].initial_quantity)
        return answer(self.product(product_id))

    async def adjust(self, request: Request) -> Response:
        product_id = request.path_params["product"]
        self.stock[product_id] += msgspec.json.decode(await request.body(), type=schemas.AdjustmentRequest).delta
        item = self.product(product_id).stock[0]
        return answer({**msgspec.to_builtins(item), "position": "0:1-1", "durable": False}, 201)

    async def get_product(self, request: Request) -> Response:
        return answer(self.product(request.path_params["product"]))

    async def list_products(self, request: Request) -> Response:
        """Pages of two, so that a few products need several."""
        ids = [each for each in sorted(self.products) if each > request.query_params.get("cursor", "")]
        items = [{**msgspec.to_builtins(self.product(each))} for each in ids[:2]]
        return answer({"items": items, "next_cursor": ids[1] if len(ids) > 2 else None})

    async def list_best_sellers(self, request: Request) -> Response:
        best = sorted(self.sold.items(), key=lambda item: (-item[1], item[0]))[: int(request.query_params["limit"])]
        items = [
            {"rank": rank, "product_id": each, "name": each, "price": 1, "quantity_sold": count}
            for rank, (each, count) in enumerate(best, 1)
        ]
        return answer({"from": DAY, "to": DAY, "time_zone": "Europe/London", "items": items})

    async def get_balance(self, request: Request) -> Response:
        user = request.path_params["user"]
        return answer({"user_id": user, "balance": self.balances.get(user, 0), "currency": "GBP"})

    async def charge(self, request: Request) -> Response:
        user, amount = request.path_params["user"], msgspec.json.decode(await request.body())["amount"]
        balance = self.balances.get(user, 0) + amount
        if amount > self.maximum_charge:
            return problem("charge-limit", 422)
        if balance > self.maximum_balance:
            return problem("balance-limit", 409)
        self.balances[user] = balance
        self.charges.append(amount)
        return answer(
            schemas.Charge(
                user_id=user,
                amount=amount,
                balance=balance,
                currency="GBP",
                charged_at=AT,
                position="0:1-1",
                durable=False,
            ),
            201,
        )

    async def checkout(self, request: Request) -> Response:
        user = request.path_params["user"]
        lines = msgspec.json.decode(await request.body(), type=schemas.OrderRequest).lines
        if len(lines) > self.maximum_lines:
            return problem("line-limit", 422)
        if any(self.stock[line.product_id] < line.quantity for line in lines):
            return problem("out-of-stock", 409, retryable=False)
        total = sum(self.products[line.product_id].price * line.quantity for line in lines)
        is_paid = self.balances.get(user, 0) >= total
        order = self._record(user, lines, total, is_paid=is_paid)
        if not is_paid:
            return problem("insufficient-balance", 402, order_id=order.order_id)
        self.balances[user] -= total + self.skimmed
        for line in lines:
            self.stock[line.product_id] -= line.quantity
            self.sold[line.product_id] = self.sold.get(line.product_id, 0) + line.quantity
        return answer(order, 201)

    def _record(self, user: str, lines: list[schemas.OrderLineRequest], total: int, *, is_paid: bool) -> schemas.Order:
        order = schemas.Order(
            order_id=f"order-{next(self.numbers)}",
            user_id=user,
            status="completed" if is_paid else "failed",
            payment=schemas.Payment(
                status="paid" if is_paid else "failed",
                amount=total,
                paid_at=AT if is_paid else None,
                failure=None if is_paid else "insufficient_balance",
            ),
            lines=[],
            subtotal=total,
            discount=0,
            total=total,
            currency="GBP",
            coupon_id=None,
            ordered_at=AT,
            pay_before=None,
            position="0:1-1",
            durable=False,
        )
        self.orders[order.order_id] = order
        return order

    async def get_order(self, request: Request) -> Response:
        order = self.orders.get(request.path_params["order"])
        return problem("not-found", 404) if order is None else answer(order)

    async def list_orders(self, request: Request) -> Response:
        mine = [order for order in self.orders.values() if order.user_id == request.path_params["user"]]
        return answer({"items": mine[::-1], "next_cursor": None})
