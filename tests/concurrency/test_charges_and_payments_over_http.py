"""A thousand charges and payments of one user at once end in the exact balance."""

from collections import Counter

import psycopg
import pytest

from tests.running_shop import put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

CHARGES, PURCHASES = 500, 500
AMOUNT, PRICE = 700, 500


@pytest.mark.requirement("R0.4", "R0.5", "R1.6", "R1.7", "R3.3", "R3.14")
async def test_a_thousand_charges_and_payments_of_one_user_end_in_the_exact_balance(databases: Databases) -> None:
    with opened_shop(databases, api_count=2, worker_count=2) as shop:
        put_product(shop.client(), "tea", price=PRICE, one=PURCHASES)
        lines = [{"product_id": "tea", "quantity": 1}]
        async with shop.crowd() as crowd:
            requests = []
            for _ in range(PURCHASES):
                requests.append(crowd.post("/v1/users/mina/balance/charges", {"amount": AMOUNT}))
                requests.append(crowd.post("/v1/users/mina/checkout", {"lines": lines}))
            answers = await crowd.all(requests)
        outcomes = Counter(answer.status_code for answer in answers[1::2])
        assert {answer.status_code for answer in answers[::2]} == {201}
        assert outcomes.keys() <= {201, 402}
        balance = CHARGES * AMOUNT - outcomes[201] * PRICE
        assert [shop.client(number).get("/v1/users/mina/balance").json()["balance"] for number in (0, 1)] == [
            balance
        ] * 2

        books = shop.assert_conserved()
        assert books.balances["mina"] == balance
        assert books.stock["tea", "one"].sold == outcomes[201]
        with psycopg.connect(shop.database_url) as connection:
            entries = connection.execute(
                "SELECT kind, count(*), sum(amount)::bigint FROM ledger_entry GROUP BY 1 ORDER BY 1"
            ).fetchall()
        assert entries == [
            ("charge", CHARGES, CHARGES * AMOUNT),
            ("payment", outcomes[201], -outcomes[201] * PRICE),
        ]
        # Every answer told the balance that its own change led to, so no two charges told the same sum of changes.
        assert len({answer.json()["position"] for answer in answers[::2]}) == CHARGES
        assert shop.errors_logged() == []


@pytest.mark.requirement("R0.4", "R1.7", "R3.8", "R3.14")
async def test_one_order_paid_by_many_at_once_is_paid_once(databases: Databases) -> None:
    with opened_shop(databases, api_count=2) as shop:
        put_product(shop.client(), "tea", price=PRICE)
        lines = [{"product_id": "tea", "quantity": 1}]
        async with shop.crowd() as crowd:
            await crowd.post("/v1/users/mina/balance/charges", {"amount": 10 * PRICE})
            placed = await crowd.all([crowd.post("/v1/users/mina/orders", {"lines": lines}) for _ in range(50)])
            (order,) = [answer.json() for answer in placed if answer.status_code == 201]
            assert {answer.json()["order_id"] for answer in placed} == {order["order_id"]}
            path = f"/v1/users/mina/orders/{order['order_id']}/payment"
            paid = await crowd.all([crowd.post(path) for _ in range(50)])
        assert {answer.status_code for answer in paid} == {200}
        assert len({answer.json()["payment"]["paid_at"] for answer in paid}) == 1
        books = shop.assert_conserved()
        assert books.balances["mina"] == 9 * PRICE
        assert shop.errors_logged() == []
