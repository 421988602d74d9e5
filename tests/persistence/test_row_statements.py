"""How the writer's statements find their rows: not by what the planner believes of how many there are."""

from typing import LiteralString

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from persistence.row_statements import ORDER_CHANGES, RESERVATION_CHANGES, Change, prepare

# All have finished when the planner's statistics are made; soon thereafter thousands may not have.
FINISHED_RESERVATIONS: LiteralString = """
    INSERT INTO reservation (partition, order_id, user_id, state, lines, at, finished_at, place)
    SELECT n % 64, md5(n::text)::uuid, 'ann', 'sold', 'tea:s:1', now(), now(), '1-1' FROM generate_series(1, 5000) n"""
FINISHED_ORDERS: LiteralString = """
    INSERT INTO orders (order_id, partition, user_id, status, subtotal, discount, total, ordered_at, paid_at,
                        finished_at, place)
    SELECT md5(n::text)::uuid, n % 64, 'u' || n, 'completed', 1, 0, 1, now(), now(), now(), '1-1'
    FROM generate_series(1, 5000) n"""


@pytest.mark.parametrize(
    ("rows", "change", "key"),
    [
        (FINISHED_RESERVATIONS, RESERVATION_CHANGES, "reservation_pkey"),
        (FINISHED_ORDERS, ORDER_CHANGES, "orders_pkey"),
    ],
)
async def test_a_changed_row_is_found_by_its_key_alone(
    connection: AsyncConnection[TupleRow], rows: LiteralString, change: Change, key: str
) -> None:
    await connection.execute(rows)
    await connection.execute("ANALYZE")
    await prepare(connection)

    nothing = ["{}"] * change.statement.count("%s")
    cursor = await connection.execute(f"EXPLAIN {change.statement}", nothing)

    plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert f"Index Scan using {key}" in plan, plan
    assert plan.count("Index") == plan.count(f"Index Scan using {key}") + plan.count("Index Cond"), plan
