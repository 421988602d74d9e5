"""Three hundred buyers race for a hundred units of one size, while three hundred others buy something else with it."""

import httpx
import pytest

from tests.books import Stock
from tests.running_shop import problem, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

UNITS = 100
BUYERS = [f"hot{number}" for number in range(300)]
OTHERS = [f"cool{number}" for number in range(300)]


@pytest.mark.requirement("R0.3", "R0.4", "R0.5", "R2.2", "R2.4", "R3.11", "R3.16")
async def test_exactly_the_units_there_are_get_sold_and_a_refused_order_holds_nothing(databases: Databases) -> None:
    with opened_shop(databases, api_count=2, worker_count=2) as shop:
        client = shop.client()
        put_product(client, "shirt", price=1000, S=UNITS, M=1000, L=1000)
        put_product(client, "socks", price=100, one=1000)
        put_product(client, "ribbon", price=1, one=1000)
        async with shop.crowd() as crowd:

            def buy(user: str, number: int) -> tuple[str, dict[str, object]]:
                size = "S" if user in hot else ("M", "L")[number % 2]
                lines = [
                    {"product_id": "socks", "quantity": 1},
                    {"product_id": "shirt", "stock_id": size, "quantity": 1},
                    {"product_id": "ribbon", "stock_id": "one", "quantity": 2},
                ]
                at = "checkout" if number % 3 else "orders"
                return f"/v1/users/{user}/{at}", {"lines": lines}

            hot = set(BUYERS)
            everybody = [user for pair in zip(BUYERS, OTHERS, strict=True) for user in pair]
            charges = [crowd.post(f"/v1/users/{user}/balance/charges", {"amount": 1102}) for user in everybody]
            assert {answer.status_code for answer in await crowd.all(charges)} == {201}
            orders = await crowd.all([crowd.post(*buy(user, number)) for number, user in enumerate(everybody)])
            by_user = dict(zip(everybody, orders, strict=True))
            placed = [answer.json() for answer in orders if answer.status_code == 201]
            waiting = [order for order in placed if order["status"] == "awaiting_payment"]
            paid = await crowd.all(
                [crowd.post(f"/v1/users/{order['user_id']}/orders/{order['order_id']}/payment") for order in waiting]
            )
            assert {answer.status_code for answer in paid} == {200}

        assert [user for user in OTHERS if by_user[user].status_code != 201] == []
        winners = [user for user in BUYERS if by_user[user].status_code == 201]
        assert len(winners) == UNITS
        for user in hot - set(winners):
            _assert_short_of_the_size(by_user[user])

        books = shop.assert_conserved()
        assert books.stock["shirt", "S"] == Stock(available=0, reserved=0, sold=UNITS)
        sold = UNITS + len(OTHERS)
        assert books.stock["socks", "one"].available == 1000 - sold
        assert books.stock["ribbon", "one"].sold == 2 * sold
        assert books.sales == {"shirt": sold, "socks": sold, "ribbon": 2 * sold}
        assert [books.balances[user] for user in everybody if user in winners or user in OTHERS] == [0] * sold
        assert {books.balances[user] for user in hot - set(winners)} == {1102}
        assert sum(order.status == "completed" for order in books.orders.values()) == sold
        assert shop.errors_logged() == []


def _assert_short_of_the_size(answer: httpx.Response) -> None:
    lines = problem(answer, 409, "out-of-stock")["lines"]
    assert [(line["product_id"], line["stock_id"], line["available"]) for line in lines] == [("shirt", "S", 0)]
