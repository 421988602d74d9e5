"""How the writer's statements find their rows: not by what the planner believes of how many there are."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from persistence.row_statements import (
    ORDER_CHANGES,
    PRODUCT_PLACES,
    RESERVATION_CHANGES,
    STOCK,
    WALLETS,
    Change,
    prepare,
)
from persistence.row_text import NULL, Row, array_texts

CHANGED = 900
MANY = 2_300

# All have finished when the planner's statistics are made, if ever; soon thereafter thousands may not have.
FINISHED_RESERVATIONS: LiteralString = """
    INSERT INTO reservation (partition, order_id, user_id, state, lines, at, finished_at, place)
    SELECT n %% 64, md5(n::text)::uuid, 'ann', 'sold', 'tea:s:1', now(), now(), '1-1'
    FROM generate_series(1, %s) n"""
FINISHED_ORDERS: LiteralString = """
    INSERT INTO orders (order_id, partition, user_id, status, subtotal, discount, total, ordered_at, paid_at,
                        finished_at, place)
    SELECT md5(n::text)::uuid, n %% 64, 'u' || n, 'completed', 1, 0, 1, now(), now(), now(), '1-1'
    FROM generate_series(1, %s) n"""

WALLETS_OF_MANY: LiteralString = """
    INSERT INTO wallet (user_id, partition, balance, coupon_number, place)
    SELECT 'u' || n, n %% 64, 1, 0, '1-1' FROM generate_series(1, %s) n"""
PRODUCTS_OF_MANY: LiteralString = """
    INSERT INTO product (product_id, partition, name, price, place)
    SELECT 'p' || n, n %% 64, 'Tea', 1, '1-1' FROM generate_series(1, %s) n"""
ITEMS: LiteralString = """
    WITH products AS (
        INSERT INTO product (product_id, partition, name, price, place)
        SELECT 'p' || n, n %% 64, 'Tea', 1, '1-1' FROM generate_series(1, %s) n RETURNING product_id, partition)
    INSERT INTO stock_item (product_id, stock_id, partition, added_seq, added_index, option, received, available,
                            reserved, sold)
    SELECT product_id, 's', partition, 1, 0, '', 1, 1, 0, 0 FROM products"""


def order_id(n: int) -> str:
    """As `md5` makes it of a number."""
    return hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Case:
    """What makes the rows that are there, the statement, a row that it is given, and the key by which it finds them."""

    rows: LiteralString
    change: Change
    changed: Callable[[int], Row]
    key: str


CASES = [
    Case(
        FINISHED_RESERVATIONS,
        RESERVATION_CHANGES,
        lambda n: (str(n % 64), order_id(n), "sold", "2026-01-01", "1-2"),
        "reservation_pkey",
    ),
    Case(
        FINISHED_ORDERS,
        ORDER_CHANGES,
        lambda n: (order_id(n), "failed", "late", NULL, "2026-01-01", "1-2"),
        "orders_pkey",
    ),
    Case(WALLETS_OF_MANY, WALLETS, lambda n: (f"u{n}", str(n % 64), "1", NULL, NULL, "1-2"), "wallet_pkey"),
    Case(ITEMS, STOCK, lambda n: (f"p{n}", "s", NULL, "0", "0", "0", "0"), "stock_item_pkey"),
    Case(PRODUCTS_OF_MANY, PRODUCT_PLACES, lambda n: (f"p{n}", "1-2"), "product_pkey"),
]


OF_A_STATE = ("reservation_pkey", "orders_pkey")
"""What a partial index would find too. Of a table that was never analysed the planner knows nothing but its size."""


@pytest.mark.parametrize(
    ("case", "analysed"),
    [(case, analysed) for case in CASES for analysed in (True, False) if analysed or case.key in OF_A_STATE],
    ids=lambda value: value.key if isinstance(value, Case) else ("never-analysed", "analysed")[value],
)
async def test_a_changed_row_is_found_by_its_key_alone(
    connection: AsyncConnection[TupleRow], case: Case, analysed: bool
) -> None:
    await connection.execute("TRUNCATE reservation, orders, wallet, product CASCADE")
    await prepare(connection)
    await connection.execute(case.rows, (MANY,))
    if analysed:
        await connection.execute("ANALYZE")

    cells = array_texts([case.changed(n) for n in range(1, CHANGED + 1)])
    cursor = await connection.execute(f"EXPLAIN {case.change.statement}", cells)

    plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "Join Filter" not in plan, plan
    assert "Seq Scan" not in plan, plan
    assert plan.count(f" {case.key} ") == plan.count("Index Cond") == 1, plan
