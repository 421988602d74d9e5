"""Drives a shop with a plan: makes the catalogue, charges customers, checks out their invoices, keeps every answer."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from api import schemas
from api.commands.online_retail import Invoice, Product
from api.commands.replay_plan import STOCK_ID, Plan, charge_parts
from api.commands.replay_shop import OutcomeUnknown, Refused, Shop, ShopError

BEST_SELLERS_MAX = 50
ADJUSTMENT_TRIES_MAX = 5
CHECKOUT_TRIES_MAX = 3
# An order id is refused 30 s after it was made, so a checkout that has left no order by then never will.
LATE_CHECKOUT_S = 40.0
LATE_CHARGE_S = 10.0
POLL_S = 0.25
# The shop keeps its best sellers for a second: a list read sooner may lack the end of a run before this one.
BEST_SELLERS_AGE_S = 1.1


class Phase(StrEnum):
    """What a run does, in this order."""

    CATALOGUE = "catalogue"
    CHARGES = "charges"
    CHECKOUTS = "checkouts"


Advance = Callable[[Phase], None]


class ReplayFailed(Exception):
    """The run cannot go on; the message says why and what to do."""


PRODUCT_REFUSED = "a product that the shop does not take"
"""Why an invoice is not sent that has such a product."""


@dataclass(frozen=True, slots=True)
class Completed:
    """An invoice that became an order, paid."""

    invoice: Invoice
    order_id: str
    expected_total: int
    total: int


@dataclass(frozen=True, slots=True)
class NotSold:
    """An invoice that the shop refused; `order_id` where a failed order is on record."""

    invoice: Invoice
    reason: str
    order_id: str | None


@dataclass(slots=True)
class Wallet:
    """One customer's money during a run: before it, charged since, still to be charged, and now."""

    before: int
    charged: int
    to_charge: int
    balance: int
    last_order_before: str | None


@dataclass(slots=True)
class Answers:
    """All that the shop answered. What is called before is from just before the first checkout."""

    policies: schemas.Policies
    best_sellers_before: schemas.BestSellers
    stock_before: dict[str, int] = field(default_factory=dict)
    products_refused: dict[str, str] = field(default_factory=dict)
    """Products that the shop does not take, as one whose price is over its limit: the problem's name of each."""
    wallets: dict[str, Wallet] = field(default_factory=dict)
    completed: list[Completed] = field(default_factory=list)
    not_sold: list[NotSold] = field(default_factory=list)

    def units_sold(self) -> dict[str, int]:
        """Units per product in the completed orders, by the file."""
        sold: dict[str, int] = {}
        for order in self.completed:
            for line in order.invoice.lines:
                sold[line.product_id] = sold.get(line.product_id, 0) + line.quantity
        return sold


class Driver:
    """One run of a plan against a shop, `concurrency` requests at once. Raises ReplayFailed."""

    def __init__(self, shop: Shop, plan: Plan, concurrency: int, advance: Advance = lambda _: None) -> None:
        self._shop, self._plan, self._advance = shop, plan, advance
        self._concurrency = concurrency

    async def prepare(self) -> Answers:
        """Makes the catalogue and charges the customers."""
        began = asyncio.get_running_loop().time()
        answers = Answers(await self._shop.get("/v1/policies", schemas.Policies), await self._best_sellers())
        await run_all((self._stock_up(answers, product) for product in self._plan.sales.products), self._concurrency)
        await run_all((self._open_wallet(answers, customer) for customer in self._plan.budgets), self._concurrency)
        await asyncio.sleep(began + BEST_SELLERS_AGE_S - asyncio.get_running_loop().time())
        answers.best_sellers_before = await self._best_sellers()
        return answers

    async def check_out(self, answers: Answers) -> None:
        """Sends every invoice: customers side by side, each one's invoices one after the other as the file has them."""
        customers = self._plan.invoices_by_customer().items()
        await run_all((self._shop_for(answers, *customer) for customer in customers), self._concurrency)

    async def _stock_up(self, answers: Answers, product: Product) -> None:
        target = self._plan.stock[product.product_id]
        path = f"/admin/v1/products/{product.product_id}"
        request = schemas.ProductRequest(
            name=product.name,
            price=product.price,
            stock=[schemas.StockItemRequest(stock_id=STOCK_ID, option=STOCK_ID, initial_quantity=target)],
        )
        try:
            made = await self._shop.put(path, request, schemas.ChangedProduct)
        except Refused as refused:
            answers.products_refused[product.product_id] = refused.name
            self._advance(Phase.CATALOGUE)
            return
        if len(made.stock) > 1:
            raise ReplayFailed(f"the product {product.product_id} has other stock items here: replay into another shop")
        available = made.stock[0].available
        for _ in range(ADJUSTMENT_TRIES_MAX):
            if available == target:
                break
            adjustment = schemas.AdjustmentRequest(delta=target - available, reason="replay")
            try:
                available = (
                    await self._shop.post(f"{path}/stock/{STOCK_ID}/adjustments", adjustment, schemas.AdjustedStockItem)
                ).available
            except OutcomeUnknown:
                await asyncio.sleep(POLL_S)
                available = (await self._shop.get(f"/v1/products/{product.product_id}", schemas.Product)).available
        else:
            raise ReplayFailed(f"the stock of {product.product_id} changes while it is counted: who else sells it?")
        answers.stock_before[product.product_id] = available
        self._advance(Phase.CATALOGUE)

    async def _open_wallet(self, answers: Answers, customer: str) -> None:
        balance = await self._balance(customer)
        to_charge = max(0, self._plan.budgets[customer] - balance)
        last_order = await self._newest_order(customer)
        wallet = answers.wallets[customer] = Wallet(balance, 0, to_charge, balance, last_order)
        await self._charge(answers.policies, customer, wallet)
        self._advance(Phase.CHARGES)

    async def _charge(self, policies: schemas.Policies, customer: str, wallet: Wallet) -> None:
        """Charges what is still to be charged, as far as the maximum balance leaves room."""
        amount = min(wallet.to_charge, policies.maximum_balance - wallet.balance)
        for part in charge_parts(amount, policies.minimum_charge, policies.maximum_charge):
            before = wallet.balance
            try:
                request = schemas.ChargeRequest(amount=part)
                path = f"/v1/users/{customer}/balance/charges"
                wallet.balance = (await self._shop.post(path, request, schemas.Charge)).balance
            except OutcomeUnknown:
                wallet.balance = await self._changed_balance(customer, before)
                if wallet.balance == before:
                    continue
            wallet.charged += part
            wallet.to_charge -= part

    async def _changed_balance(self, customer: str, before: int) -> int:
        """The balance once it is another one, or the same one when a charge that is late can hardly arrive any more."""
        deadline = asyncio.get_running_loop().time() + LATE_CHARGE_S
        while True:
            balance = await self._balance(customer)
            if balance != before or asyncio.get_running_loop().time() > deadline:
                return balance
            await asyncio.sleep(POLL_S)

    async def _balance(self, customer: str) -> int:
        return (await self._shop.get(f"/v1/users/{customer}/balance", schemas.Balance)).balance

    async def _shop_for(self, answers: Answers, customer: str, invoices: list[tuple[Invoice, int]]) -> None:
        wallet = answers.wallets[customer]
        seen = {wallet.last_order_before}
        for invoice, total in invoices:
            if any(line.product_id in answers.products_refused for line in invoice.lines):
                answers.not_sold.append(NotSold(invoice, PRODUCT_REFUSED, None))
                self._advance(Phase.CHECKOUTS)
                continue
            if wallet.balance < total and wallet.to_charge > 0:
                await self._charge(answers.policies, customer, wallet)
            outcome = await self._check_out(invoice, total, seen)
            if isinstance(outcome, Completed):
                wallet.balance -= outcome.total
                answers.completed.append(outcome)
            else:
                answers.not_sold.append(outcome)
            self._advance(Phase.CHECKOUTS)

    async def _check_out(self, invoice: Invoice, total: int, seen: set[str | None]) -> Completed | NotSold:
        """One invoice to its end; `seen` are the orders that this customer is known to have."""
        request = schemas.OrderRequest(
            lines=[
                schemas.OrderLineRequest(product_id=line.product_id, quantity=line.quantity) for line in invoice.lines
            ]
        )
        for _ in range(CHECKOUT_TRIES_MAX):
            order_id: str | None = None
            try:
                path = f"/v1/users/{invoice.customer_id}/checkout"
                order: schemas.Order | None = await self._shop.post(path, request, schemas.Order)
            except Refused as refused:
                order_id = refused.body.get("order_id") if refused.name == "insufficient-balance" else None
                if order_id is not None:
                    seen.add(order_id)
                return NotSold(invoice, refused.name, order_id)
            except OutcomeUnknown as unknown:
                order = await self._order_after_all(invoice.customer_id, unknown.order_id, seen)
            if order is None:
                continue
            seen.add(order.order_id)
            if order.status == "completed":
                return Completed(invoice, order.order_id, total, order.total)
            return NotSold(invoice, (order.payment.failure or order.status).replace("_", "-"), order.order_id)
        return NotSold(invoice, "outcome-unknown", None)

    async def _order_after_all(
        self, customer: str, order_id: str | None, seen: set[str | None]
    ) -> schemas.Order | None:
        """What became of a checkout without an answer; None when it left no order and no longer can."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LATE_CHECKOUT_S
        while True:
            if order_id is None:
                newest = await self._newest_order(customer)
                order_id = None if newest in seen else newest
            if order_id is not None:
                try:
                    order = await self._shop.get(f"/v1/users/{customer}/orders/{order_id}", schemas.Order)
                    if order.status in {"completed", "failed"}:
                        return order
                except Refused as refused:
                    if refused.name != "not-found":
                        raise
            if loop.time() > deadline:
                return None
            await asyncio.sleep(POLL_S)

    async def _best_sellers(self) -> schemas.BestSellers:
        return await self._shop.get("/v1/best-sellers", schemas.BestSellers, days=1, limit=BEST_SELLERS_MAX)

    async def _newest_order(self, customer: str) -> str | None:
        page = await self._shop.get(f"/v1/users/{customer}/orders", schemas.OrderPage, limit=1)
        return page.items[0].order_id if page.items else None


async def run_all(jobs: Iterable[Coroutine[Any, Any, None]], concurrency: int) -> None:
    """Runs the jobs, so many at once; the first one that fails ends all. Raises ReplayFailed."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as errors:
        # Not `except*`: what is raised there comes wrapped in a group again, in some versions of Python.
        known, unknown = errors.split((ShopError, ReplayFailed))
        if known is None or unknown is not None:
            raise
        raise ReplayFailed(str(known.exceptions[0])) from known.exceptions[0]
