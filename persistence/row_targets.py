"""Where new rows go, and in which order of columns: the cells of a `RowBatch` are in the order that stands here."""

from typing import LiteralString


class Target:
    """A table that new rows are copied into, and its columns in the order of a row's cells."""

    def __init__(self, table: LiteralString, columns: LiteralString) -> None:
        self.copy: LiteralString = f"COPY {table} ({columns}) FROM STDIN"
        self._columns = columns.split(", ")

    def cell(self, column: str) -> int:
        """The place of a column's cell in a row. Raises ValueError where there is no such column."""
        return self._columns.index(column)


LEDGER = Target("ledger_entry", "partition, seq, epoch, user_id, kind, amount, balance, order_id, at")
STOCK_ITEMS = Target(
    "stock_item",
    "product_id, stock_id, partition, added_seq, added_index, option, received, available, reserved, sold",
)
STOCK_ADJUSTMENTS = Target("stock_adjustment", "partition, seq, product_id, stock_id, delta, available, reason, at")
RESERVATIONS = Target("reservation", "partition, order_id, user_id, state, lines, at, finished_at, place")
ORDERS = Target(
    "orders",
    "order_id, partition, user_id, status, failure, subtotal, discount, total, coupon_id, ordered_at, "
    "pay_before, paid_at, finished_at, place",
)
ORDER_LINES = Target(
    "order_line",
    "order_id, line_no, partition, product_id, stock_id, name, option, unit_price, quantity, amount",
)
DISCOUNTS = Target(
    "discount",
    "order_id, partition, coupon_id, user_id, campaign_id, issue_number, kind, value, minimum_order, "
    "maximum_discount, amount, state, at",
)
COUPON_ISSUES = Target(
    "coupon_issue",
    "campaign_id, user_id, partition, number, kind, value, minimum_order, maximum_discount, valid_days, issued_at",
)
COUPONS = Target(
    "coupon",
    "coupon_id, partition, user_id, campaign_id, issue_number, kind, value, minimum_order, maximum_discount, "
    "state, order_id, issued_at, valid_from, valid_until, used_at, place",
)
OUTBOX = Target("outbox", "partition, order_id, user_id, event_id, created_at, request_id")
