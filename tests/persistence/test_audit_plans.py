"""An audit's queries read what they are asked for, and not all there is, whatever the planner's statistics say."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, LiteralString

import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from persistence.audited import SUBJECTS, Entity, Subject, page
from persistence.auditor import PLANNER
from persistence.conservation import LAWS
from persistence.database import connect
from persistence.images import read_postgres, recorded_statement

Connection = AsyncConnection[TupleRow]

ORDERS = 6_000
ASKED = 100
ROWS_MAX = {"lately": 30 * ASKED} | dict.fromkeys(("when it was small", "never", "as it grew"), 10 * ORDERS)
"""A few rows for each that is asked for. Where the planner knows little, all there is may be read once, but never once
for each, which would be thousands times a hundred."""

AS_IF_LARGE = """SET min_parallel_index_scan_size = 0; SET min_parallel_table_scan_size = 0;
                 SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0"""
"""What is parallel in a large shop is parallel here."""

LATER_MS = 4_000_000_000_000
FEW = 100

# Each user has an order of one line, and a coupon of one campaign in twenty.
GROWN: tuple[LiteralString, ...] = (
    """CREATE TEMPORARY TABLE made ON COMMIT DROP AS
       SELECT n, n %% 64 AS partition, 'u' || n AS user_id, 'p' || n AS product_id,
              ('019ab000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS order_id
       FROM generate_series(%(first)s::int, %(last)s) n""",
    """INSERT INTO product (product_id, partition, name, price, place)
       SELECT product_id, partition, 'Tea', 10, '1-1' FROM made""",
    """INSERT INTO stock_item (product_id, stock_id, partition, option, received, available, reserved, sold, added_seq,
                               added_index)
       SELECT product_id, 's', partition, '', 9, 8, 0, 1, 1, 0 FROM made""",
    """INSERT INTO wallet (user_id, partition, balance, coupon_number, place)
       SELECT user_id, partition, 0, 1, '1-1' FROM made""",
    """INSERT INTO ledger_entry (partition, seq, epoch, user_id, kind, amount, balance, order_id, at)
       SELECT partition, n, 1, user_id, 'payment', -10, 0, order_id, now() FROM made""",
    """INSERT INTO orders (order_id, partition, user_id, status, subtotal, discount, total, ordered_at, paid_at,
                           finished_at, place)
       SELECT order_id, partition, user_id, 'completed', 11, 1, 10, now(), now(), now(), '1-1' FROM made""",
    """INSERT INTO outbox (partition, order_id, user_id, event_id, created_at)
       SELECT partition, order_id, user_id, '1:1-' || n, now() FROM made""",
    """INSERT INTO order_line (order_id, line_no, partition, product_id, stock_id, name, option, unit_price, quantity,
                               amount)
       SELECT order_id, 1, partition, product_id, 's', 'Tea', '', 11, 1, 11 FROM made""",
    """INSERT INTO reservation (partition, order_id, user_id, state, lines, at, finished_at, place)
       SELECT partition, order_id, user_id, 'sold', product_id || ':s:1', now(), now(), '1-1' FROM made""",
    """INSERT INTO coupon_issue (campaign_id, user_id, partition, number, kind, value, valid_days, issued_at)
       SELECT 'spring-' || (n % 20), user_id, 7, n, 'amount', 1, 7, now() FROM made""",
    """INSERT INTO coupon (coupon_id, partition, user_id, campaign_id, issue_number, kind, value, issued_at, valid_from,
                           valid_until, state, place)
       SELECT 'c' || n, partition, user_id, 'spring-' || (n % 20), n, 'amount', 1, now(), now(), now(), 'free', '1-1'
       FROM made""",
)


async def grow(connection: Connection, first: int, last: int, other: Connection | None = None) -> None:
    """`other` analyses meanwhile: it finds pages for rows that it does not see yet."""
    async with connection.transaction():
        await connection.execute(GROWN[0], {"first": first, "last": last})
        for statement in GROWN[1:]:
            await connection.execute(statement)
        if other is not None:
            await other.execute("ANALYZE")


def read_by(node: dict[str, Any]) -> Iterator[int]:
    """Rows that each part of a plan took into its hands, those that it put away too."""
    put_away = sum(count for name, count in node.items() if name.startswith("Rows Removed by"))
    yield round((node["Actual Rows"] + put_away) * node["Actual Loops"])
    for each in node.get("Plans", ()):
        yield from read_by(each)


async def rows_read(connection: Connection, statement: sql.Composed, values: dict[str, Any]) -> int:
    """The most that a part of the query's plan read."""
    explain = sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ") + statement
    row = await (await connection.execute(explain, values)).fetchone()
    assert row is not None
    return max(read_by(row[0][0]["Plan"]))


async def some(connection: Connection, subject: Subject) -> list[Entity]:
    """The last of a table, of which nothing was there when it was small."""
    entities: list[Entity] = []
    mark = None
    while True:
        more, mark = await page(connection, subject, mark, ORDERS // 3, LATER_MS)
        entities += more
        if mark is None:
            return entities[-ASKED:]


OF_ROWS = [subject for subject in SUBJECTS if subject != Subject.CAMPAIGN]


@pytest.mark.parametrize("analysed", list(ROWS_MAX))
async def test_an_audit_reads_the_rows_that_it_is_asked_for(
    connection: Connection, database_url: str, analysed: str
) -> None:
    await grow(connection, 1, FEW)
    if analysed == "when it was small":
        await connection.execute("ANALYZE")
    async with await connect(database_url, "test") as other:
        await grow(connection, FEW + 1, ORDERS, other if analysed == "as it grew" else None)
    if analysed == "lately":
        await connection.execute("ANALYZE")
    await connection.execute(AS_IF_LARGE)
    await connection.execute(PLANNER)

    entities = {subject: await some(connection, subject) for subject in OF_ROWS}
    queries = {f"what is recorded: {subject}": recorded_statement(subject, entities[subject]) for subject in OF_ROWS}
    for law in LAWS:
        if law.subject in OF_ROWS and not law.costly:
            queries[law.slug] = law.statement(entities[law.subject], datetime.now(UTC))
    read = {name: await rows_read(connection, *query) for name, query in queries.items()}

    assert all(len(each) == ASKED for each in entities.values())
    assert {name: rows for name, rows in read.items() if rows > ROWS_MAX[analysed]} == {}


async def test_of_issues_those_come_that_are_asked_for_however_many_campaigns_a_user_has_a_coupon_of(
    connection: Connection,
) -> None:
    await connection.execute(
        """INSERT INTO coupon_issue (campaign_id, user_id, partition, number, kind, value, valid_days, issued_at)
           SELECT 'c' || c, 'u' || u, c % 64, u, 'amount', 1, 7, now()
           FROM generate_series(1, 50) c, generate_series(1, 50) u"""
    )
    asked = [Entity(Subject.ISSUE, number % 64, f"u{number}", f"c{number}") for number in range(1, 51)]

    recorded = await read_postgres(connection, Subject.ISSUE, asked)

    assert set(recorded.images) == set(asked)
