"""What the tables cost that grow for ever: their size for each order, and what a write, a read and a vacuum take as
they grow. Run it with `python -m loadtests.table_growth --orders 250000 --rounds 8`; it brings a PostgreSQL of its own.

Rows are made by SQL in the shapes that the writer leaves behind, in the order of time, as a shop has them: order ids
are made of the time. Each round adds as many orders as the one before, then measures.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import LiteralString

import click
import psycopg

from api.commands.embedded_postgres import EmbeddedPostgres
from persistence.migrations import upgrade

# A completed order of two lines in two partitions, with a coupon every fifth time: what is in PostgreSQL for good.
_FILL: tuple[LiteralString, ...] = (
    """CREATE TEMPORARY TABLE filled ON COMMIT DROP AS
       SELECT n, (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
                  || substr(md5(n::text), 4, 15))::uuid AS order_id,
              'user-' || (hashint8(n) & 2147483647) %% %(users)s AS user_id, (hashint8(n) & 2147483647) %% 64 AS home,
              to_timestamp(1700000000 + n / 1000.0) AS at
       FROM generate_series(%(first)s::bigint, %(last)s) n""",
    """INSERT INTO orders (order_id, partition, user_id, status, subtotal, discount, total, coupon_id, ordered_at,
                            pay_before, paid_at, finished_at, place)
       SELECT order_id, home, user_id, 'completed', 3000, CASE WHEN n %% 5 = 0 THEN 300 ELSE 0 END,
              CASE WHEN n %% 5 = 0 THEN 2700 ELSE 3000 END, CASE WHEN n %% 5 = 0 THEN user_id || '-20261101-' || n END,
              at, at + interval '10 minutes', at, at, '1-' || n FROM filled""",
    """INSERT INTO order_line (order_id, line_no, partition, product_id, stock_id, name, option, unit_price, quantity,
                                amount)
       SELECT order_id, l, home, 'product-' || (n + l) %% 1000, 'M', 'Mug of clay', 'medium', 1500, 1, 1500
       FROM filled, generate_series(1, 2) l""",
    """INSERT INTO reservation (partition, order_id, user_id, state, lines, at, finished_at, place)
       SELECT (n + 31 * l) %% 64, order_id, user_id, 'sold', 'product-' || (n + l) %% 1000 || ':M:1', at,
              at + interval '50 ms', '1-' || n FROM filled, generate_series(1, 2) l""",
    """INSERT INTO ledger_entry (partition, seq, epoch, user_id, kind, amount, balance, order_id, at)
       SELECT home, n, 1, user_id, 'payment', -3000, 100000, order_id, at FROM filled""",
    """INSERT INTO coupon (coupon_id, partition, user_id, campaign_id, issue_number, kind, value, issued_at, valid_from,
                           valid_until, state, order_id, used_at, place)
       SELECT user_id || '-20261101-' || n, home, user_id, 'campaign-' || n, n, 'amount', 300, at, at,
              at + interval '7 days', 'used', order_id, at, '1-' || n FROM filled WHERE n %% 5 = 0""",
)

_HISTORY: LiteralString = (
    "SELECT order_id, total FROM orders WHERE user_id = %s ORDER BY user_id, ordered_at DESC, order_id DESC LIMIT 20"
)
_LEDGER: LiteralString = "SELECT seq, amount FROM ledger_entry WHERE user_id = %s ORDER BY user_id, seq DESC LIMIT 20"
_SIZES: LiteralString = """
SELECT relname, pg_table_size(oid) AS rows, pg_indexes_size(oid) AS indexes
FROM pg_class WHERE relkind = 'r' AND relname = ANY(%s) ORDER BY pg_total_relation_size(oid) DESC"""
TABLES = ("orders", "order_line", "reservation", "ledger_entry", "coupon")
BATCH = 1_000
"""Orders of one transaction of a busy writer."""


@click.command(help=__doc__)
@click.option("--orders", default=250_000, show_default=True, help="Orders of each round.")
@click.option("--rounds", default=8, show_default=True)
@click.option("--shared-buffers", default="128MB", show_default=True, help="PostgreSQL's own cache.")
def main(orders: int, rounds: int, shared_buffers: str) -> None:
    """Fill and measure, round by round."""
    with (
        tempfile.TemporaryDirectory(prefix="firstcome-growth-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres", settings={"shared_buffers": shared_buffers}) as server,
    ):
        upgrade(server.url)
        with psycopg.connect(server.url, autocommit=True) as connection:
            _run(connection, orders, rounds)


def _run(connection: psycopg.Connection, orders: int, rounds: int) -> None:
    click.echo("orders     1,000 more: fastest, median   a user's orders    ledger   vacuum after 2 % changed")
    filled = 0
    for _ in range(rounds):
        _fill(connection, filled, filled + orders, orders)
        filled += orders
        connection.execute("ANALYZE")
        batches = []
        for _ in range(20):
            batches.append(_timed(partial(_fill, connection, filled, filled + BATCH, orders)))
            filled += BATCH
        history = median(_timed(partial(_read, connection, _HISTORY, user)) for user in range(200))
        ledger = median(_timed(partial(_read, connection, _LEDGER, user)) for user in range(200))
        connection.execute("UPDATE orders SET finished_at = finished_at WHERE order_id IN (SELECT order_id FROM orders"
                           " TABLESAMPLE SYSTEM (2))")  # fmt: skip
        vacuum = _timed(lambda: connection.execute("VACUUM orders"))
        times = [f"{each * 1e3:.2f} ms" for each in (min(batches), median(batches), history, ledger, vacuum)]
        click.echo(f"{filled:<10,}" + "".join(f"{each:>15}" for each in times))
    click.echo("\ntable          rows, bytes/order   indexes, bytes/order")
    for name, rows, indexes in connection.execute(_SIZES, (list(TABLES),)):
        click.echo(f"{name:<15}{rows / filled:>12,.0f}{indexes / filled:>20,.0f}")


def _fill(connection: psycopg.Connection, first: int, last: int, users: int) -> None:
    with connection.transaction():
        for statement in _FILL:
            connection.execute(statement, {"first": first + 1, "last": last, "users": users})


def _read(connection: psycopg.Connection, query: LiteralString, user: int) -> None:
    connection.execute(query, (f"user-{user}",)).fetchall()


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
