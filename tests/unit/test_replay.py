"""A replay against a small shop in memory that fails in every way in which a network and a shop can."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from api.commands import replay_driver, replay_shop
from api.commands.online_retail import Invoice, InvoiceLine, Product, Sales
from api.commands.replay_books import Check, ShopReading, best_seller_rows, check_answers, read_shop
from api.commands.replay_driver import Answers, Driver, Phase, ReplayFailed
from api.commands.replay_plan import charge_parts, make_plan, part_of
from api.commands.replay_shop import Shop
from tests.unit.small_shop import SmallShop, problem


def invoice(number: int, customer: str, **quantities: int) -> Invoice:
    return Invoice(str(number), customer, tuple(InvoiceLine(product, units) for product, units in quantities.items()))


PRODUCTS = (
    Product("A", "Ball", price=100, quantity=6),
    Product("B", "Box", price=250, quantity=5),
    Product("C", "Cup", price=30, quantity=40),
)
INVOICES = (
    invoice(1, "customer-1", A=1, B=2),
    invoice(2, "customer-2", C=30),
    invoice(3, "customer-1", A=5),
    invoice(4, "customer-3", B=3, C=10),
)
SALES = Sales(PRODUCTS, INVOICES, lines_read=6, sale_lines=6, skipped={})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits as short as a shop in memory needs."""
    monkeypatch.setattr(replay_driver, "BEST_SELLERS_AGE_S", 0.0)
    monkeypatch.setattr(replay_driver, "POLL_S", 0.001)
    monkeypatch.setattr(replay_driver, "LATE_CHECKOUT_S", 0.02)
    monkeypatch.setattr(replay_driver, "LATE_CHARGE_S", 0.02)
    monkeypatch.setattr(replay_shop, "BACKOFF_S_MIN", 0.0001)
    monkeypatch.setattr(replay_shop, "BACKOFF_S_MAX", 0.001)


@dataclass
class Run:
    answers: Answers
    after: ShopReading
    checks: list[Check]
    progress: Counter[Phase]

    @property
    def refusals(self) -> Counter[str]:
        return Counter(each.reason for each in self.answers.not_sold)

    @property
    def agrees(self) -> bool:
        return all(check.agrees for check in self.checks)


@pytest.fixture
async def http(shop: SmallShop) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shop.app()), base_url="http://shop") as client:
        yield client


@pytest.fixture
def shop() -> SmallShop:
    return SmallShop()


async def run(http: httpx.AsyncClient, stock: str = "1", balance: str = "1", sales: Sales = SALES) -> Run:
    plan = make_plan(sales, Decimal(stock), Decimal(balance))
    progress = Counter[Phase]()
    driver = Driver(Shop([http]), plan, 2, lambda phase: progress.update([phase]))
    answers = await driver.prepare()
    await driver.check_out(answers)
    after = await read_shop(Shop([http]), plan, answers, 2)
    assert all(row.agrees for row in best_seller_rows(plan, answers, after.best_sellers))
    return Run(answers, after, check_answers(plan, answers, after), progress)


async def test_with_enough_of_everything_every_invoice_is_sold(http: httpx.AsyncClient, shop: SmallShop) -> None:
    result = await run(http)
    assert (len(result.answers.completed), result.refusals) == (4, {})
    assert result.agrees
    assert set(shop.stock.values()) == set(shop.balances.values()) == {0}
    assert result.progress == {Phase.CATALOGUE: 3, Phase.CHARGES: 3, Phase.CHECKOUTS: 4}


async def test_invoices_with_a_product_that_the_shop_does_not_take_are_counted_and_not_sent(
    http: httpx.AsyncClient, shop: SmallShop
) -> None:
    shop.faults = {"put_product": [problem("invalid-request", 400)]}
    result = await run(http)
    (product,) = result.answers.products_refused
    others = [each for each in INVOICES if product not in {line.product_id for line in each.lines}]
    assert result.answers.products_refused == {product: "invalid-request"}
    assert len(result.answers.completed) == len(shop.orders) == len(others) < len(INVOICES)
    assert result.refusals == {replay_driver.PRODUCT_REFUSED: len(INVOICES) - len(others)}
    assert result.agrees
    assert result.progress == {Phase.CATALOGUE: 3, Phase.CHARGES: 3, Phase.CHECKOUTS: 4}


async def test_a_second_run_on_the_same_shop_is_counted_for_itself(http: httpx.AsyncClient, shop: SmallShop) -> None:
    await run(http, stock="2", balance="3")
    again = await run(http)
    assert (len(again.answers.completed), again.agrees) == (4, True)
    assert set(shop.stock.values()) == {0}
    assert shop.sold == {"A": 12, "B": 10, "C": 80}


async def test_with_half_the_stock_refusals_happen_and_the_books_agree(http: httpx.AsyncClient) -> None:
    result = await run(http, stock="0.5")
    assert result.refusals["out-of-stock"] > 0
    assert result.agrees


async def test_with_too_little_money_the_failed_orders_are_on_record(http: httpx.AsyncClient) -> None:
    result = await run(http, balance="0.5")
    assert result.refusals == {"insufficient-balance": 4 - len(result.answers.completed)}
    assert all(each.order_id in result.after.orders for each in result.answers.not_sold)
    assert result.agrees


async def test_an_invoice_past_the_policy_counts_under_the_name_of_its_problem(
    http: httpx.AsyncClient, shop: SmallShop
) -> None:
    shop.maximum_lines = 1
    assert (await run(http)).refusals == {"line-limit": 2}


async def test_a_charge_past_the_maximum_goes_in_parts(http: httpx.AsyncClient, shop: SmallShop) -> None:
    shop.maximum_charge = 400
    result = await run(http)
    assert (len(result.answers.completed), result.agrees) == (4, True)
    assert max(shop.charges) <= 400


async def test_what_the_largest_balance_has_no_room_for_is_charged_later(
    http: httpx.AsyncClient, shop: SmallShop
) -> None:
    shop.maximum_balance = 1050
    result = await run(http)
    assert (len(result.answers.completed), result.agrees) == (4, True)
    assert set(shop.balances.values()) == {0}


async def test_a_shop_that_sheds_load_is_asked_again(http: httpx.AsyncClient, shop: SmallShop) -> None:
    busy: list[Response | None] = [problem("overloaded", 503), problem("too-many-requests", 429), None] * 3
    shop.faults = {name: list(busy) for name in ("put_product", "charge", "checkout", "get_balance", "get_policies")}
    result = await run(http)
    assert (len(result.answers.completed), result.agrees) == (4, True)
    assert sum(shop.charges) == 600 + 500 + 900 + 750 + 300


@pytest.mark.parametrize("members", [{}, {"order_id": "order-0"}])
async def test_a_checkout_whose_answer_was_lost_is_found_and_not_sent_again(
    http: httpx.AsyncClient, shop: SmallShop, members: dict[str, str]
) -> None:
    shop.late_faults = {"checkout": [problem("outcome-unknown", 504, **members)]}
    result = await run(http)
    assert (len(result.answers.completed), len(shop.orders), result.agrees) == (4, 4, True)


async def test_a_lost_answer_of_a_second_run_is_not_taken_for_an_order_of_the_first(
    http: httpx.AsyncClient, shop: SmallShop
) -> None:
    await run(http)
    shop.faults = {"checkout": [problem("outcome-unknown", 504)] * 2}
    again = await run(http)
    assert (len(again.answers.completed), len(shop.orders), again.agrees) == (4, 8, True)


async def test_a_checkout_that_left_no_order_is_sent_again(http: httpx.AsyncClient, shop: SmallShop) -> None:
    shop.faults = {"checkout": [problem("outcome-unknown", 504, order_id="never"), problem("internal-error", 500)]}
    result = await run(http)
    assert (len(result.answers.completed), len(shop.orders), result.agrees) == (4, 4, True)


async def test_a_checkout_that_never_gets_an_answer_is_counted_as_unknown(
    http: httpx.AsyncClient, shop: SmallShop
) -> None:
    shop.faults = {"checkout": [problem("outcome-unknown", 504)] * 100}
    result = await run(http)
    assert result.refusals == {"outcome-unknown": 4}
    assert result.agrees


async def test_a_charge_whose_answer_was_lost_is_not_charged_twice(http: httpx.AsyncClient, shop: SmallShop) -> None:
    shop.late_faults = {"charge": [problem("outcome-unknown", 504)], "adjust": [problem("outcome-unknown", 504)]}
    shop.faults = {"charge": [None, problem("outcome-unknown", 504)]}
    shop.stock = {"A": 1}
    result = await run(http)
    assert result.agrees
    assert sum(shop.charges) <= 600 + 500 + 900 + 750 + 300
    assert result.answers.stock_before["A"] == 6


async def test_money_that_goes_astray_is_found(http: httpx.AsyncClient, shop: SmallShop) -> None:
    shop.skimmed, shop.balances = 1, {"customer-2": 5000}
    result = await run(http, sales=Sales(PRODUCTS, INVOICES[1:2], 1, 1, {}))
    wrong = [check for check in result.checks if not check.agrees]
    assert [(check.what, check.expected, check.found) for check in wrong] == [
        ("revenue, by what left the balances", 900, 901)
    ]
    assert "customer-2: 900 / 901" in wrong[0].note


async def test_a_shop_that_stays_away_ends_the_run_with_its_reason(http: httpx.AsyncClient, shop: SmallShop) -> None:
    shop.faults = {"put_product": [problem("recovering", 503)] * 100}
    with pytest.raises(ReplayFailed, match="recovering"):
        await run(http)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(10, 999))
def test_parts_of_a_charge_add_up_and_keep_the_limits(amount: int, minimum: int, maximum: int) -> None:
    parts = list(charge_parts(amount, minimum, maximum))
    assert all(minimum <= part <= maximum for part in parts)
    assert sum(parts) == amount or (len(parts) == 1 and amount < minimum)


def test_a_part_of_what_is_needed_is_exact_and_rounds_up() -> None:
    assert part_of(10, Decimal("0.8")) == 8
    assert part_of(3, Decimal("0.5")) == 2
    assert part_of(2**53, Decimal(1)) == 2**53
