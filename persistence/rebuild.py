"""Partitions of Redis made anew from their rows in PostgreSQL, field by field as the scripts write them.

Only for partitions whose cursors are fenced, so that no writer changes their rows meanwhile; then the rows are a whole
snapshot of each partition at its cursor's sequence. What is cold in PostgreSQL alone stays there.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import orjson
from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import TupleRow

from engine.claim import Claim
from engine.engine import Engine
from engine.keys import Keys
from engine.lanes import Argument
from engine.order_ids import lowest_order_id
from persistence.database import translated

FETCH_ROWS = 2_000
SCAN_COUNT = 1_000
CALL_KEYS_MAX = 250
CALL_ARGUMENTS_MAX = 4_000
"""A call of this size takes Redis well under a millisecond."""

CALLS_IN_FLIGHT_MAX = 16

SALES_DAYS = 8
"""Best sellers look back at most a week before today."""

Progress = Callable[[str, int], None]
"""Told now and then what is being loaded, and how many rows of it there were so far."""

Write = tuple[int, str, str, Sequence[Argument]]
"""Partition, key, HSET or ZADD, and its arguments."""

_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where PostgreSQL's timestamps begin


class _Milliseconds(Loader):
    """A ``timestamptz`` as ms since 1970, as the scripts write it."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return (int.from_bytes(data, "big", signed=True) + _EPOCH_US) // 1000


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of keys: the rows that make them, and how. ``rows_of`` yields what one row writes."""

    name: str
    query: LiteralString
    writes: Callable[[Keys, Sequence[TupleRow]], Iterator[Write]]


def _text(value: int | None) -> int | str:
    return "" if value is None else value


def _users(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, user_id, balance, coupon_number, place, open_order, pay_before, last_order in rows:
        fields: list[Argument] = ["balance", balance, "seq", place]
        if coupon_number:
            fields += ("coupon_number", coupon_number)
        if last_order is not None:
            fields += ("last_order", last_order)
        if open_order is not None:
            fields += ("open_order", open_order, "open_pay_before", pay_before)
        yield partition, keys.wallet(partition, user_id), "HSET", fields


USERS = Section(
    "users",
    """SELECT w.partition, w.user_id, w.balance, w.coupon_number, w.place,
               open.order_id::text, open.pay_before, latest.order_id::text
        FROM wallet w
        LEFT JOIN (SELECT user_id, order_id, pay_before FROM orders
                   WHERE partition = ANY(%(partitions)s) AND status = 'awaiting_payment') open USING (user_id)
        LEFT JOIN (SELECT DISTINCT ON (user_id) user_id, order_id FROM orders
                   WHERE partition = ANY(%(partitions)s) AND status <> 'void'
                     AND (order_id >= %(hot_from)s OR status = 'awaiting_payment')
                   ORDER BY user_id, ordered_at DESC, order_id DESC) latest USING (user_id)
        WHERE w.partition = ANY(%(partitions)s)""",
    _users,
)


def _coupons(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for row in rows:
        partition, user_id, coupon_id, state, campaign_id, number, kind, value, minimum, maximum = row[:10]
        issued_at, valid_from, valid_until, order_id, used_at, place = row[10:]
        packed = (
            f"{state},{campaign_id},{number},{kind},{value},{_text(minimum)},{_text(maximum)},{issued_at},{valid_from},"
            f"{valid_until},{order_id or ''},{_text(used_at)},{place}"
        )
        yield partition, keys.coupons(partition, user_id), "HSET", (
            coupon_id, packed, f"campaign:{campaign_id}", coupon_id,
        )  # fmt: skip


COUPONS = Section(
    "coupons",
    """SELECT partition, user_id, coupon_id, state, campaign_id, issue_number, kind, value, minimum_order,
               maximum_discount, issued_at, valid_from, valid_until, order_id::text,
               used_at, place
        FROM coupon WHERE partition = ANY(%(partitions)s)""",
    _coupons,
)


_LINE_FIELDS = ("product_id", "stock_id", "name", "option", "unit_price", "quantity", "amount")


def _orders(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for row in rows:
        partition, order_id, user_id, status, failure, subtotal, discount, total, coupon_id = row[:9]
        ordered_at, pay_before, paid_at, place, lines = row[9:]
        key = keys.order(partition, order_id)
        if status == "void":
            yield partition, key, "HSET", ("user", user_id, "status", status, "seq", place)
            continue
        lines_json = orjson.dumps([dict(zip(_LINE_FIELDS, line, strict=True)) for line in orjson.loads(lines or "[]")])
        yield partition, key, "HSET", (
            "user", user_id, "status", status, "failure", failure or "", "lines", lines_json, "subtotal", subtotal,
            "discount", discount, "total", total, "coupon", coupon_id or "", "ordered_at", ordered_at,
            "pay_before", _text(pay_before), "paid_at", _text(paid_at), "seq", place,
        )  # fmt: skip


# Open orders, and those that are recent enough to be asked for, paid again or settled; tombstones as well.
ORDERS = Section(
    "orders",
    """SELECT partition, order_id::text, user_id, status, failure, subtotal, discount, total, coupon_id,
               ordered_at, pay_before, paid_at, place,
               (SELECT json_agg(json_build_array(product_id, stock_id, name, option, unit_price, quantity, amount)
                                ORDER BY line_no)::text
                FROM order_line l WHERE l.order_id = orders.order_id)
        FROM orders
        WHERE partition = ANY(%(partitions)s) AND (order_id >= %(hot_from)s OR status = 'awaiting_payment')""",
    _orders,
)


def _products(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, product_id, name, price, place, stock_ids, options, available, reserved, sold in rows:
        fields: list[Argument] = ["name", name, "price", price, "stocks", ",".join(stock_ids), "seq", place]
        if len(stock_ids) == 1:
            fields += ("only", stock_ids[0])
        for stock_id, *values in zip(stock_ids, options, available, reserved, sold, strict=True):
            for letter, value in zip("oars", values, strict=True):
                fields += (f"{letter}:{stock_id}", value)
        yield partition, keys.product(partition, product_id), "HSET", fields
        yield partition, keys.products(partition), "ZADD", (0, product_id)


PRODUCTS = Section(
    "products",
    """SELECT p.partition, p.product_id, p.name, p.price, p.place, coalesce(s.ids, '{}'), s.options, s.available,
              s.reserved, s.sold
       FROM product p LEFT JOIN LATERAL (
           SELECT array_agg(stock_id ORDER BY added_seq, added_index) AS ids,
                  coalesce(array_agg(option ORDER BY added_seq, added_index), '{}') AS options,
                  coalesce(array_agg(available ORDER BY added_seq, added_index), '{}') AS available,
                  coalesce(array_agg(reserved ORDER BY added_seq, added_index), '{}') AS reserved,
                  coalesce(array_agg(sold ORDER BY added_seq, added_index), '{}') AS sold
           FROM stock_item i WHERE i.product_id = p.product_id) s ON true
       WHERE p.partition = ANY(%(partitions)s)""",
    _products,
)


def _reservations(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, order_id, user_id, state, lines, at, finished_at, place in rows:
        fields: list[Argument] = ["user", user_id, "state", state, "lines", lines, "at", at, "seq", place]
        if finished_at is not None:
            fields += ("finished_at", finished_at)
        yield partition, keys.reservation(partition, order_id), "HSET", fields


RESERVATIONS = Section(
    "reservations",
    """SELECT partition, order_id::text, user_id, state, lines, at, finished_at, place
        FROM reservation
        WHERE partition = ANY(%(partitions)s) AND (order_id >= %(hot_from)s OR state = 'held')""",
    _reservations,
)


def _sales(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, day, product_id, quantity in rows:
        yield partition, keys.sales(partition, day), "ZADD", (quantity, product_id)


SALES = Section(
    "sales",
    """SELECT partition, to_char(day, 'YYYYMMDD'), product_id, quantity
       FROM daily_sale WHERE partition = ANY(%(partitions)s) AND day >= %(sales_from)s""",
    _sales,
)


def _campaigns(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for row in rows:
        partition, campaign_id, name, kind, value, minimum, maximum, quantity, issued = row[:9]
        opens_at, closes_at, valid_days, place = row[9:]
        yield partition, keys.campaign(partition, campaign_id), "HSET", (
            "name", name, "kind", kind, "value", value, "minimum_order", _text(minimum), "maximum_discount",
            _text(maximum), "quantity", quantity, "issued", issued, "opens_at", opens_at, "closes_at", closes_at,
            "valid_days", valid_days, "seq", place,
        )  # fmt: skip
        yield partition, keys.campaigns(partition), "ZADD", (0, campaign_id)


CAMPAIGNS = Section(
    "campaigns",
    """SELECT partition, campaign_id, name, kind, value, minimum_order, maximum_discount, quantity, issued,
               opens_at, closes_at, valid_days, place
        FROM campaign WHERE partition = ANY(%(partitions)s)""",
    _campaigns,
)


def _issues(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, campaign_id, user_id, number, issued_at, kind, value, minimum, maximum, valid_days in rows:
        packed = f"{number},{issued_at},{kind},{value},{_text(minimum)},{_text(maximum)},{valid_days}"
        yield partition, keys.issues(partition, campaign_id), "HSET", (user_id, packed)


ISSUES = Section(
    "issues",
    """SELECT partition, campaign_id, user_id, number, issued_at, kind, value, minimum_order,
               maximum_discount, valid_days
        FROM coupon_issue WHERE partition = ANY(%(partitions)s)""",
    _issues,
)

SECTIONS = (PRODUCTS, CAMPAIGNS, SALES, ISSUES, RESERVATIONS, ORDERS, COUPONS, USERS)


class Rebuild:
    """Loads partitions under a claim that has begun to load them; the caller begins and finishes."""

    def __init__(self, engine: Engine, claim: Claim, hot_ms: int, progress: Progress) -> None:
        self._engine = engine
        self._claim = claim
        self._hot_ms = hot_ms
        self._progress = progress

    async def clear(self, partitions: Collection[int]) -> None:
        """Remove all that the partitions still hold but their meta: one scan of each server."""
        keys = self._engine.keys
        partition_of = {keys.prefix(partition).encode(): partition for partition in partitions}
        servers = {self._engine.lanes.identity(partition): partition for partition in partitions}
        removed = 0
        for partition in servers.values():
            async for found in self._engine.recovery.scan_keys(partition, SCAN_COUNT):
                groups: dict[int, list[bytes]] = {}
                for key in found:
                    # fc:{<tag>}:<rest>
                    owner = partition_of.get(key[: key.find(b"}") + 2])
                    if owner is not None:
                        groups.setdefault(owner, []).append(key)
                for owner, group in groups.items():
                    for start in range(0, len(group), CALL_KEYS_MAX):
                        await self._claim.clear(owner, group[start : start + CALL_KEYS_MAX])
                    removed += len(group)
                self._progress("keys removed", removed)

    async def load(self, connection: AsyncConnection[TupleRow], partitions: Collection[int], now_ms: int) -> None:
        """Load all that is hot, the time being ``now_ms``. Raises `DatabaseError` and `EngineError`."""
        parameters = {
            "partitions": list(partitions),
            "hot_from": lowest_order_id(now_ms - self._hot_ms),
            "sales_from": self._engine.days.last(SALES_DAYS, now_ms)[0],
        }
        with translated():
            async with connection.transaction():
                # These read whole tables; nobody waits for the rows.
                await connection.execute("SET LOCAL statement_timeout = 0")
                for section in SECTIONS:
                    await self._load_section(connection, section, parameters)

    async def _load_section(
        self, connection: AsyncConnection[TupleRow], section: Section, parameters: dict[str, Any]
    ) -> None:
        calls = _Calls(self._claim)
        loaded = 0
        async for rows in _stream(connection, section, parameters):
            for write in section.writes(self._engine.keys, rows):
                if calls.add(write):
                    await calls.make_room()
            loaded += len(rows)
            self._progress(section.name, loaded)
        await calls.finish()


async def _stream(
    connection: AsyncConnection[TupleRow], section: Section, parameters: dict[str, Any]
) -> AsyncIterator[list[TupleRow]]:
    """The rows as they come: the server keeps the rest, and fetches while what is here is sent."""
    async with connection.cursor(name=f"load_{section.name}", binary=True) as cursor:
        cursor.adapters.register_loader("timestamptz", _Milliseconds)
        await cursor.execute(section.query, parameters)
        fetching = asyncio.ensure_future(cursor.fetchmany(FETCH_ROWS))
        try:
            while rows := await fetching:
                fetching = asyncio.ensure_future(cursor.fetchmany(FETCH_ROWS))
                yield rows
        finally:
            await asyncio.wait({fetching})


class _Calls:
    """Gathers the keys of each partition into calls, and keeps some calls under way."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._keys: dict[int, list[str]] = {}
        self._content: dict[int, list[Argument]] = {}
        self._under_way: deque[Awaitable[None]] = deque()

    def add(self, write: Write) -> bool:
        """Take a key in; whether there are so many calls under way now that one should be waited for."""
        partition, key, command, arguments = write
        content = self._content.get(partition)
        if content is None:
            content = self._content[partition] = []
            self._keys[partition] = []
        keys = self._keys[partition]
        keys.append(key)
        content.append(command)
        content.append(len(arguments))
        content += arguments
        if len(keys) >= CALL_KEYS_MAX or len(content) >= CALL_ARGUMENTS_MAX:
            self._send(partition)
            return len(self._under_way) >= CALLS_IN_FLIGHT_MAX
        return False

    async def make_room(self) -> None:
        """Wait for the oldest call. Raises what it raised."""
        await self._under_way.popleft()

    async def finish(self) -> None:
        """Send what is left and wait for all."""
        for partition in list(self._keys):
            self._send(partition)
        while self._under_way:
            await self.make_room()

    def _send(self, partition: int) -> None:
        keys, content = self._keys.pop(partition), self._content.pop(partition)
        self._under_way.append(asyncio.ensure_future(self._claim.load(partition, keys, content)))
