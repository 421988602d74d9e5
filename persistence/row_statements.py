"""A batch's rows into the tables: COPY for what is new, one statement over arrays of columns for what changes.

Arrays, not temporary tables: PostgreSQL truncates every temporary table that empties itself at each commit that has
touched one, which costs it 5 ms for a dozen; a batch of a hundred rows is read from arrays in 0.3 ms.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from persistence.database import RowsRefused
from persistence.event_rows import RowBatch
from persistence.row_targets import (
    COUPON_ISSUES,
    COUPONS,
    DISCOUNTS,
    LEDGER,
    ORDER_LINES,
    ORDERS,
    OUTBOX,
    RESERVATIONS,
    STOCK_ADJUSTMENTS,
    STOCK_ITEMS,
    Target,
)
from persistence.row_text import Row, array_texts, copy_text


class Change:
    """A statement over rows that are given, each of which must change one row of a table."""

    def __init__(self, name: str, columns: LiteralString, apply: LiteralString) -> None:
        """``columns``: name and type of each; ``apply``: the statement, in which ``changed`` is a table of them."""
        self.name = name
        typed = [column.split() for column in columns.split(", ")]
        names = ", ".join(name for name, _ in typed)
        arrays = ", ".join(f"%s::{kind}[]" for _, kind in typed)
        self.statement = f"WITH changed ({names}) AS (SELECT * FROM unnest({arrays})) {apply}"  # noqa: S608 - literals alone


# Where a partial index has what a statement asks for (`state = 'held'`), the planner walks through it for each changed
# row, which is quick while few are held and endless when many are. `CASE` leaves it the primary key alone, and lets it
# take half of the rows for wanted: of few it believes that holding each against every changed row is cheaper.

# A wallet's cell is empty where the batch did not change it, and a row may not exist yet.
WALLETS = Change(
    "wallet",
    "user_id text, partition smallint, balance bigint, coupon_number bigint, last_order uuid, place text",
    """INSERT INTO wallet (user_id, partition, balance, coupon_number, last_order, place)
       SELECT s.user_id, s.partition, coalesce(s.balance, w.balance, 0), coalesce(s.coupon_number, w.coupon_number, 0),
              coalesce(s.last_order, w.last_order), s.place
       FROM changed s LEFT JOIN wallet w ON w.user_id = s.user_id
       ON CONFLICT (user_id) DO UPDATE
       SET balance = excluded.balance, coupon_number = excluded.coupon_number, last_order = excluded.last_order,
           place = excluded.place""",
)
PRODUCTS = Change(
    "product",
    "product_id text, partition smallint, name text, price bigint, place text",
    """INSERT INTO product (product_id, partition, name, price, place)
       SELECT product_id, partition, name, price, place FROM changed
       ON CONFLICT (product_id) DO UPDATE
       SET name = excluded.name, price = excluded.price, place = excluded.place""",
)
STOCK = Change(
    "stock_item",
    "product_id text, stock_id text, option text, received bigint, available bigint, reserved bigint, sold bigint",
    """UPDATE stock_item t
       SET option = coalesce(s.option, t.option), received = t.received + s.received,
           available = t.available + s.available, reserved = t.reserved + s.reserved, sold = t.sold + s.sold
       FROM changed s WHERE t.product_id = s.product_id AND t.stock_id = s.stock_id""",
)
# Every change of a stock item is one of its product.
PRODUCT_PLACES = Change(
    "product places",
    "product_id text, place text",
    "UPDATE product t SET place = s.place FROM changed s WHERE t.product_id = s.product_id",
)
RESERVATION_CHANGES = Change(
    "reservation",
    "partition smallint, order_id uuid, state text, finished_at timestamptz, place text",
    """UPDATE reservation t SET state = s.state, finished_at = s.finished_at, place = s.place
       FROM changed s
       WHERE t.partition = s.partition AND t.order_id = s.order_id AND CASE t.state WHEN 'held' THEN TRUE END""",
)
ADOPTIONS = Change(
    "adopted reservation",
    "partition smallint, order_id uuid, user_id text, state text, lines text, at timestamptz, finished_at timestamptz,"
    " place text",
    """INSERT INTO reservation (partition, order_id, user_id, state, lines, at, finished_at, place)
       SELECT partition, order_id, user_id, state, lines, at, finished_at, place FROM changed
       ON CONFLICT (partition, order_id) DO UPDATE
       SET state = excluded.state, lines = excluded.lines, at = excluded.at, finished_at = excluded.finished_at,
           place = excluded.place
       WHERE reservation.state = 'released'""",
)
DAILY_SALES = Change(
    "daily_sale",
    "day date, product_id text, partition smallint, quantity bigint",
    """INSERT INTO daily_sale (day, product_id, partition, quantity)
       SELECT day, product_id, partition, quantity FROM changed
       ON CONFLICT (day, product_id) DO UPDATE SET quantity = daily_sale.quantity + excluded.quantity""",
)
ORDER_CHANGES = Change(
    "orders",
    "order_id uuid, status text, failure text, paid_at timestamptz, finished_at timestamptz, place text",
    """UPDATE orders t
       SET status = s.status, failure = s.failure, paid_at = s.paid_at, finished_at = s.finished_at, place = s.place
       FROM changed s WHERE t.order_id = s.order_id AND CASE t.status WHEN 'awaiting_payment' THEN TRUE END""",
)
DISCOUNT_CHANGES = Change(
    "discount",
    "order_id uuid, state text, at timestamptz",
    """UPDATE discount t SET state = s.state, at = s.at
       FROM changed s WHERE t.order_id = s.order_id AND t.state = 'taken'""",
)
CAMPAIGNS = Change(
    "campaign",
    "campaign_id text, partition smallint, name text, kind text, value bigint, minimum_order bigint,"
    " maximum_discount bigint, quantity bigint, opens_at timestamptz, closes_at timestamptz, valid_days integer,"
    " place text",
    """INSERT INTO campaign (campaign_id, partition, name, kind, value, minimum_order, maximum_discount, quantity,
                             issued, opens_at, closes_at, valid_days, place)
       SELECT campaign_id, partition, name, kind, value, minimum_order, maximum_discount, quantity,
              0, opens_at, closes_at, valid_days, place
       FROM changed
       ON CONFLICT (campaign_id) DO UPDATE
       SET name = excluded.name, kind = excluded.kind, value = excluded.value, minimum_order = excluded.minimum_order,
           maximum_discount = excluded.maximum_discount, quantity = excluded.quantity, opens_at = excluded.opens_at,
           closes_at = excluded.closes_at, valid_days = excluded.valid_days, place = excluded.place""",
)
CAMPAIGN_ISSUES = Change(
    "campaign issues",
    "campaign_id text, issued bigint, place text",
    """UPDATE campaign t
       SET issued = s.issued, quantity = greatest(t.quantity, s.issued), place = s.place
       FROM changed s WHERE t.campaign_id = s.campaign_id""",
)
COUPON_CHANGES = Change(
    "coupon",
    "coupon_id text, state text, order_id uuid, used_at timestamptz, place text",
    """UPDATE coupon t SET state = s.state, order_id = s.order_id, used_at = s.used_at, place = s.place
       FROM changed s WHERE t.coupon_id = s.coupon_id""",
)

# A key may be used anew when a day has passed.
SPENT_KEYS = Change(
    "idempotency_key",
    "owner text, key text, partition smallint, fingerprint text, result text, place text, spent_at timestamptz",
    """INSERT INTO idempotency_key (owner, key, partition, fingerprint, result, place, spent_at)
       SELECT owner, key, partition, fingerprint, result, place, spent_at FROM changed
       ON CONFLICT (partition, owner, key) DO UPDATE
       SET fingerprint = excluded.fingerprint, result = excluded.result, place = excluded.place,
           spent_at = excluded.spent_at""",
)

# Changed rows are few and their targets found by primary key, however large those have grown: statistics, which lag
# behind a growing table, must not talk the planner into reading all of it.
_PLANNER: tuple[LiteralString, ...] = (
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
)


async def prepare(connection: AsyncConnection[TupleRow]) -> None:
    """Make a connection ready for `write_rows`."""
    for statement in _PLANNER:
        await connection.execute(statement)


async def write_rows(connection: AsyncConnection[TupleRow], batch: RowBatch) -> None:
    """Write a batch within the transaction that is open. Raises `RowsRefused` when rows are not there to be changed."""
    for target, rows in _new_rows(batch):
        await _copy(connection, target, rows)
    cursors = []
    async with connection.pipeline():
        for change, rows in _changes(batch):
            if rows:
                cursor = await connection.execute(change.statement, array_texts(rows), prepare=True)
                cursors.append((change, len(rows), cursor))
    for change, expected, cursor in cursors:
        if cursor.rowcount != expected:
            raise RowsRefused(f"{change.name}: {expected} rows to change, {cursor.rowcount} found")


async def _copy(connection: AsyncConnection[TupleRow], target: Target, rows: Sequence[Row]) -> None:
    if rows:
        async with connection.cursor().copy(target.copy) as copy:
            await copy.write(copy_text(rows))


def _new_rows(batch: RowBatch) -> Iterable[tuple[Target, Sequence[Row]]]:
    return (
        (ORDERS, list(batch.orders.values())),
        (ORDER_LINES, batch.order_lines),
        (DISCOUNTS, list(batch.discounts.values())),
        (LEDGER, batch.ledger),
        (STOCK_ITEMS, list(batch.stock_items.values())),
        (STOCK_ADJUSTMENTS, batch.stock_adjustments),
        (RESERVATIONS, list(batch.reservations.values())),
        (COUPON_ISSUES, batch.coupon_issues),
        (COUPONS, list(batch.coupons.values())),
        (OUTBOX, batch.outbox),
    )


def _changes(batch: RowBatch) -> Iterator[tuple[Change, Sequence[Row]]]:
    places = batch.product_places
    yield WALLETS, [(user, *cells) for user, cells in batch.wallets.items()]
    yield PRODUCTS, [(*cells, places[product]) for product, cells in batch.products.items()]
    yield (
        STOCK,
        [
            (
                product, stock, change.option, str(change.received), str(change.available), str(change.reserved),
                str(change.sold),
            )
            for (product, stock), change in batch.stock_changes.items()
        ],
    )  # fmt: skip
    yield PRODUCT_PLACES, [(product, places[product]) for product in {product for product, _ in batch.stock_changes}]
    yield RESERVATION_CHANGES, list(batch.reservation_changes.values())
    yield ADOPTIONS, list(batch.adoptions.values())
    yield (
        DAILY_SALES,
        [(day, product, partition, str(units)) for (day, product), (partition, units) in batch.daily_sales.items()],
    )
    yield ORDER_CHANGES, list(batch.order_changes.values())
    yield DISCOUNT_CHANGES, list(batch.discount_changes.values())
    yield CAMPAIGNS, list(batch.campaigns.values())
    yield CAMPAIGN_ISSUES, list(batch.campaign_issues.values())
    yield COUPON_CHANGES, list(batch.coupon_changes.values())
    yield SPENT_KEYS, list(batch.spent_keys.values())
