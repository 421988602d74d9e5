"""Which keys a partition has in Redis, made of its rows: field by field as the scripts write them.

What is cold is left out: settled orders and finished reservations some days old, coupons that are used or expired for
as long, sales before the best sellers' days.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

import orjson
from psycopg.rows import TupleRow

from engine.idempotency import KEPT_MS
from engine.keys import Keys
from engine.lanes import Argument

SALES_KEPT_DAYS = 8
"""Days of sales that are in Redis, today's among them: best sellers look back at most a week before today."""

Shape = tuple[str, ...]
"""The field names of a hash, so that they are sent once for many; or one of the two below."""

FIELDS: Shape = ("HSET",)
"""A hash whose values come with their names."""

MEMBERS: Shape = ("ZADD",)
"""A sorted set: scores with their members."""

Write = tuple[int, str, Shape, Sequence[Argument]]
"""Partition, key, shape, values."""


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
        shape: Shape = ("balance", "seq")
        values: list[Argument] = [balance, place]
        if coupon_number:
            shape += ("coupon_number",)
            values.append(coupon_number)
        if last_order is not None:
            shape += ("last_order",)
            values.append(last_order)
        if open_order is not None:
            shape += ("open_order", "open_pay_before")
            values += (open_order, pay_before)
        yield partition, keys.wallet(partition, user_id), shape, values


USERS = Section(
    "users",
    """SELECT w.partition, w.user_id, w.balance, w.coupon_number, w.place,
               open.order_id::text, open.pay_before,
               CASE WHEN w.last_order >= %(hot_from)s OR w.last_order = open.order_id THEN w.last_order::text END
        FROM wallet w
        LEFT JOIN (SELECT user_id, order_id, pay_before FROM orders
                   WHERE partition = ANY(%(partitions)s) AND status = 'awaiting_payment') open USING (user_id)
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
        yield partition, keys.coupons(partition, user_id), FIELDS, (
            coupon_id, packed, f"campaign:{campaign_id}", coupon_id,
        )  # fmt: skip


COUPONS = Section(
    "coupons",
    """SELECT partition, user_id, coupon_id, state, campaign_id, issue_number, kind, value, minimum_order,
               maximum_discount, issued_at, valid_from, valid_until, order_id::text,
               used_at, place
        FROM coupon
        WHERE partition = ANY(%(partitions)s)
          AND (state = 'taken' OR used_at >= %(hot_from_at)s OR (state = 'free' AND valid_until >= %(hot_from_at)s))""",
    _coupons,
)


_VOID_SHAPE = ("user", "status", "seq")
_ORDER_SHAPE = (
    "user", "status", "failure", "lines", "subtotal", "discount", "total", "coupon", "ordered_at", "pay_before",
    "paid_at", "seq",
)  # fmt: skip
_LINE_FIELDS = ("product_id", "stock_id", "name", "option", "unit_price", "quantity", "amount")


def _orders(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for row in rows:
        partition, order_id, user_id, status, failure, subtotal, discount, total, coupon_id = row[:9]
        ordered_at, pay_before, paid_at, place, lines = row[9:]
        key = keys.order(partition, order_id)
        if status == "void":
            yield partition, key, _VOID_SHAPE, (user_id, status, place)
            continue
        lines_json = orjson.dumps([dict(zip(_LINE_FIELDS, line, strict=True)) for line in orjson.loads(lines or "[]")])
        yield partition, key, _ORDER_SHAPE, (
            user_id, status, failure or "", lines_json, subtotal, discount, total, coupon_id or "", ordered_at,
            _text(pay_before), _text(paid_at), place,
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
        yield partition, keys.product(partition, product_id), FIELDS, fields
        yield partition, keys.products(partition), MEMBERS, (0, product_id)


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


_HELD_SHAPE = ("user", "state", "lines", "at", "seq")
_FINISHED_SHAPE = (*_HELD_SHAPE, "finished_at")


def _reservations(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, order_id, user_id, state, lines, at, finished_at, place in rows:
        key, values = keys.reservation(partition, order_id), (user_id, state, lines, at, place)
        if finished_at is None:
            yield partition, key, _HELD_SHAPE, values
        else:
            yield partition, key, _FINISHED_SHAPE, (*values, finished_at)


RESERVATIONS = Section(
    "reservations",
    """SELECT partition, order_id::text, user_id, state, lines, at, finished_at, place
        FROM reservation
        WHERE partition = ANY(%(partitions)s) AND (order_id >= %(hot_from)s OR state = 'held')""",
    _reservations,
)


def _sales(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, day, product_id, quantity in rows:
        yield partition, keys.sales(partition, day), MEMBERS, (quantity, product_id)


SALES = Section(
    "sales",
    """SELECT partition, to_char(day, 'YYYYMMDD'), product_id, quantity
       FROM daily_sale WHERE partition = ANY(%(partitions)s) AND day >= %(sales_from)s""",
    _sales,
)


_CAMPAIGN_SHAPE = (
    "name", "kind", "value", "minimum_order", "maximum_discount", "quantity", "issued", "opens_at", "closes_at",
    "valid_days", "seq",
)  # fmt: skip


def _campaigns(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for row in rows:
        partition, campaign_id, name, kind, value, minimum, maximum, quantity, issued = row[:9]
        opens_at, closes_at, valid_days, place = row[9:]
        yield partition, keys.campaign(partition, campaign_id), _CAMPAIGN_SHAPE, (
            name, kind, value, _text(minimum), _text(maximum), quantity, issued, opens_at, closes_at, valid_days, place,
        )  # fmt: skip
        yield partition, keys.campaigns(partition), MEMBERS, (0, campaign_id)


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
        yield partition, keys.issues(partition, campaign_id), FIELDS, (user_id, packed)


ISSUES = Section(
    "issues",
    """SELECT partition, campaign_id, user_id, number, issued_at, kind, value, minimum_order,
               maximum_discount, valid_days
        FROM coupon_issue WHERE partition = ANY(%(partitions)s)""",
    _issues,
)

_KEY_SHAPE = ("fingerprint", "place", "result", "expires_at")


def _request_keys(keys: Keys, rows: Sequence[TupleRow]) -> Iterator[Write]:
    for partition, owner, key, fingerprint, place, result, spent_at in rows:
        yield partition, keys.request_key(partition, owner, key), _KEY_SHAPE, (
            fingerprint, place, result, spent_at + KEPT_MS,
        )  # fmt: skip


REQUEST_KEYS = Section(
    "idempotency keys",
    """SELECT partition, owner, key, fingerprint, place, result, spent_at
        FROM idempotency_key
        WHERE partition = ANY(%(partitions)s) AND spent_at > to_timestamp(%(keys_from)s / 1000.0)""",
    _request_keys,
)

SECTIONS = (PRODUCTS, CAMPAIGNS, SALES, ISSUES, RESERVATIONS, ORDERS, COUPONS, USERS, REQUEST_KEYS)
