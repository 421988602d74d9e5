"""Adds up a replay twice, from the file and the answers and from what the shop holds, and compares the two."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from api import schemas
from api.commands.replay_driver import BEST_SELLERS_MAX, Answers, run_all
from api.commands.replay_plan import Plan
from api.commands.replay_shop import Refused, Shop
from api.commands.replay_stores import StoreReading

BEST_SELLERS_SHOWN = 5
EXAMPLES_MAX = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One figure from both sides; `note` names examples of what differs."""

    what: str
    expected: int
    found: int
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both sides say the same, in all parts."""
        return self.expected == self.found and not self.note


@dataclass(frozen=True, slots=True)
class BestSellerRow:
    """How much more of a product counts as sold since the run began. The shop shows only so many best sellers: the
    increase of one that was not among them before lies between two figures."""

    product_id: str
    name: str
    expected: int
    found_min: int
    found_max: int

    @property
    def agrees(self) -> bool:
        """Whether the shop's figure is, or can be, the expected one."""
        return self.found_min <= self.expected <= self.found_max


@dataclass(slots=True)
class ShopReading:
    """What the shop says over HTTP after a run: of each order its status and total, or None where it knows none."""

    best_sellers: schemas.BestSellers
    available: dict[str, int] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    orders: dict[str, tuple[str, int] | None] = field(default_factory=dict)


async def read_best_sellers(shop: Shop, since: str) -> schemas.BestSellers:
    """The best sellers from the day `since` (as of its answer then) until now, so that midnight loses nothing."""
    today = await shop.get("/v1/best-sellers", schemas.BestSellers, days=1, limit=BEST_SELLERS_MAX)
    days = len(days_of(since, today.to))
    if days == 1:
        return today
    return await shop.get("/v1/best-sellers", schemas.BestSellers, days=days, limit=BEST_SELLERS_MAX)


def days_of(first: str, last: str) -> list[datetime.date]:
    """All days from `first` to `last`, both included, each given as yyyy-mm-dd."""
    start = datetime.date.fromisoformat(first)
    count = (datetime.date.fromisoformat(last) - start).days + 1
    return [start + datetime.timedelta(days=number) for number in range(count)]


async def read_shop(shop: Shop, plan: Plan, answers: Answers, concurrency: int) -> ShopReading:
    """Reads all that the run may have changed. Raises ReplayFailed, ShopError."""
    reading = ShopReading(await read_best_sellers(shop, answers.best_sellers_before.to))
    async for product in shop.products():
        if product.product_id in answers.stock_before:
            reading.available[product.product_id] = product.available

    async def read_balance(customer: str) -> None:
        answer = await shop.get(f"/v1/users/{customer}/balance", schemas.Balance)
        reading.balances[customer] = answer.balance

    async def read_order(customer: str, order_id: str) -> None:
        try:
            order = await shop.get(f"/v1/users/{customer}/orders/{order_id}", schemas.Order)
            reading.orders[order_id] = order.status, order.total
        except Refused:
            reading.orders[order_id] = None

    await run_all((read_balance(customer) for customer in answers.wallets), concurrency)
    on_record = [(order.invoice.customer_id, order.order_id) for order in answers.completed]
    on_record += [(each.invoice.customer_id, each.order_id) for each in answers.not_sold if each.order_id is not None]
    await run_all((read_order(customer, order_id) for customer, order_id in on_record), concurrency)
    return reading


def check_answers(plan: Plan, answers: Answers, after: ShopReading) -> list[Check]:
    """The file and the answers against what the shop says over HTTP."""
    completed = {order.order_id: order for order in answers.completed}
    shop_completed = {
        order_id for order_id, order in after.orders.items() if order is not None and order[0] == "completed"
    }
    spent = {user: wallet.before + wallet.charged - after.balances[user] for user, wallet in answers.wallets.items()}
    due = dict.fromkeys(answers.wallets, 0)
    for order in answers.completed:
        due[order.invoice.customer_id] += order.expected_total
    sold = answers.units_sold()
    left = {product: before - sold.get(product, 0) for product, before in answers.stock_before.items()}
    totals = {order_id: order.expected_total for order_id, order in completed.items()}
    shop_totals = {order_id: (after.orders.get(order_id) or ("", 0))[1] for order_id in completed}
    return [
        Check("invoices accounted for", len(plan.sales.invoices), len(answers.completed) + len(answers.not_sold)),
        Check(
            "orders completed",
            len(completed),
            len(shop_completed),
            differing(dict.fromkeys(completed), dict.fromkeys(shop_completed)),
        ),
        _sums("revenue, by the orders", totals, shop_totals),
        _sums("revenue, by what left the balances", due, spent),
        _sums("units left", left, after.available),
    ]


def check_store(name: str, answers: Answers, before: StoreReading, after: StoreReading) -> list[Check]:
    """The file and the answers against what a store holds."""
    sold = dict.fromkeys(answers.stock_before, 0) | answers.units_sold()
    balances = {user: wallet.before + wallet.charged for user, wallet in answers.wallets.items()}
    for order in answers.completed:
        balances[order.invoice.customer_id] -= order.expected_total
    checks = [
        _sums(
            f"{name}: units left", {p: n - sold[p] for p, n in answers.stock_before.items()}, _of(after, "available")
        ),
        _sums(f"{name}: units still held", dict.fromkeys(sold, 0), _more(_of(before, "held"), _of(after, "held"))),
        _sums(f"{name}: units sold", sold, _more(_of(before, "sold"), _of(after, "sold"))),
        _sums(f"{name}: units in the days' counters", sold, _more(before.sold_on_days, after.sold_on_days)),
        _sums(f"{name}: balances", balances, after.balances),
    ]
    if after.broken_laws is not None:
        checks.append(
            Check(f"{name}: conservation laws broken", 0, len(after.broken_laws), "; ".join(after.broken_laws))
        )
    return checks


def best_seller_rows(plan: Plan, answers: Answers, after: schemas.BestSellers) -> list[BestSellerRow]:
    """The products of which the run sold most (ties by id), beside their increase in the shop's list."""
    names = {product.product_id: product.name for product in plan.sales.products}
    best = sorted(answers.units_sold().items(), key=lambda item: (-item[1], item[0]))[:BEST_SELLERS_SHOWN]
    rows = []
    for product, expected in best:
        low_before, high_before = sold_range(answers.best_sellers_before, product)
        low, high = sold_range(after, product)
        rows.append(BestSellerRow(product, names[product], expected, low - high_before, high - low_before))
    return rows


def sold_range(best_sellers: schemas.BestSellers, product_id: str) -> tuple[int, int]:
    """The fewest and the most units that a list of best sellers says were sold of a product."""
    for item in best_sellers.items:
        if item.product_id == product_id:
            return item.quantity_sold, item.quantity_sold
    is_whole = len(best_sellers.items) < BEST_SELLERS_MAX
    return 0, 0 if is_whole else best_sellers.items[-1].quantity_sold


def differing(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    """Names some of the keys whose values are not the same, or says nothing."""
    keys = [
        key for key in {**expected, **found} if (key in expected, expected.get(key)) != (key in found, found.get(key))
    ]
    if not keys:
        return ""
    examples = (f"{key}: {expected.get(key, 'absent')} / {found.get(key, 'absent')}" for key in keys[:EXAMPLES_MAX])
    return f"{len(keys)} differ: {', '.join(examples)}"


def _sums(what: str, expected: Mapping[str, int], found: Mapping[str, int]) -> Check:
    return Check(what, sum(expected.values()), sum(found.values()), differing(expected, found))


def _of(reading: StoreReading, count: str) -> dict[str, int]:
    return {product: getattr(stock, count) for product, stock in reading.stock.items()}


def _more(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {key: after[key] - before.get(key, 0) for key in after}
