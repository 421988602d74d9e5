"""The laws of conservation, as SQL over PostgreSQL: each query finds what breaks its law, and none may find a row.

A law within one partition holds at every moment, because PostgreSQL at any sequence is a complete snapshot of that
partition. A law across partitions holds for what happened before a horizon: see `Law.across`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from persistence.audited import SCOPES, Entity, Subject, scope_values
from persistence.database import translated


@dataclass(frozen=True, slots=True)
class Law:
    """A law about entities of one subject. Its query selects id, owner and a text for each that breaks it.

    ``{scope}`` in the query stands for the entities that are looked at. ``across``: it joins rows of several
    partitions, and uses ``%(before)s``, the time before which everything is in PostgreSQL and has had time to settle.
    ``costly``: its cost grows with all that was ever sold.
    """

    slug: str
    title: str
    subject: Subject
    query: LiteralString
    across: bool = False
    costly: bool = False

    def statement(self, entities: Sequence[Entity] | None, before: datetime) -> tuple[sql.Composed, dict[str, Any]]:
        """The query for these entities, or for all, and its values: for any driver's connection."""
        scope: LiteralString = "TRUE" if entities is None else SCOPES[self.subject]
        values = {**scope_values(entities or ()), "before": before}
        return sql.SQL(self.query).format(scope=sql.SQL(scope)), values


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that breaks a law: which, and how."""

    id: str
    owner: str
    detail: str


async def breaches(
    connection: AsyncConnection[TupleRow], law: Law, entities: Sequence[Entity] | None, before: datetime
) -> list[Breach]:
    """What breaks the law among these entities, or anywhere. Raises `DatabaseError`."""
    statement, values = law.statement(entities, before)
    with translated():
        return [Breach(*row) for row in await (await connection.execute(statement, values)).fetchall()]


_USERS = (
    Law(
        "balance-is-ledger",
        "a balance is the sum of its ledger",
        Subject.WALLET,
        """SELECT user_id, '', coalesce(balance, 0) || ', its ledger has ' || coalesce(total, 0)
           FROM (SELECT user_id, balance FROM wallet WHERE {scope}) w
           FULL JOIN (SELECT user_id, sum(amount) AS total FROM ledger_entry WHERE {scope} GROUP BY user_id) l
           USING (user_id) WHERE coalesce(balance, 0) <> coalesce(total, 0)""",
    ),
    Law(
        "ledger-follows",
        "each ledger entry follows from the one before",
        Subject.WALLET,
        """SELECT user_id, '', 'entry ' || seq || ': ' || before || ' and ' || amount || ' make ' || balance
           FROM (SELECT user_id, seq, amount, balance,
                        coalesce(lag(balance) OVER (PARTITION BY user_id ORDER BY seq), 0) AS before
                 FROM ledger_entry WHERE {scope}) e
           WHERE balance <> before + amount""",
    ),
    Law(
        "paid-once",
        "a completed order is paid by one ledger entry",
        Subject.WALLET,
        """SELECT coalesce(o.user_id, e.user_id), '',
                  'order ' || coalesce(o.order_id, e.order_id) || ' of ' || coalesce(o.total, 0) || ' is paid '
                  || coalesce(e.times, 0) || ' times, ' || coalesce(e.paid, 0) || ' in all'
           FROM (SELECT order_id, user_id, total FROM orders
                 WHERE {scope} AND status = 'completed' AND total > 0) o
           FULL JOIN (SELECT order_id, min(user_id) AS user_id, count(*) AS times, -sum(amount) AS paid
                      FROM ledger_entry WHERE {scope} AND kind = 'payment' GROUP BY order_id) e USING (order_id)
           WHERE o.total IS DISTINCT FROM e.paid OR e.times IS DISTINCT FROM 1""",
    ),
    Law(
        "one-in-progress",
        "a user has one order in progress",
        Subject.WALLET,
        """SELECT user_id, '', count(*) || ' orders await payment' FROM orders
           WHERE {scope} AND status = 'awaiting_payment' GROUP BY user_id HAVING count(*) > 1""",
    ),
)

_STOCK = (
    Law(
        "stock-conserved",
        "received = available + reserved + sold",
        Subject.PRODUCT,
        """SELECT product_id, '', stock_id || ': ' || received || ' received, ' || available || ' available, '
                  || reserved || ' reserved, ' || sold || ' sold'
           FROM stock_item WHERE {scope} AND (received <> available + reserved + sold
                                              OR least(available, reserved, sold) < 0)""",
    ),
    Law(
        "reserved-is-held",
        "reserved units are those that reservations hold",
        Subject.PARTITION,
        """SELECT partition::text, '', product_id || ' ' || stock_id || ': ' || coalesce(reserved, 0) || ' reserved, '
                  || coalesce(units, 0) || ' held'
           FROM (SELECT partition, product_id, stock_id, reserved FROM stock_item WHERE {scope}) s
           FULL JOIN (SELECT partition, split_part(line, ':', 1) AS product_id, split_part(line, ':', 2) AS stock_id,
                             sum(substring(line FROM ':([0-9]{{1,18}})$')::bigint) AS units
                      FROM reservation, unnest(string_to_array(lines, ',')) AS line
                      WHERE state = 'held' AND {scope} GROUP BY 1, 2, 3) r
           USING (partition, product_id, stock_id) WHERE coalesce(reserved, 0) <> coalesce(units, 0)""",
    ),
    Law(
        "sold-is-confirmed",
        "sold units are those of sold reservations",
        Subject.PARTITION,
        """SELECT partition::text, '', product_id || ' ' || stock_id || ': ' || coalesce(sold, 0) || ' sold, '
                  || coalesce(units, 0) || ' confirmed'
           FROM (SELECT partition, product_id, stock_id, sold FROM stock_item WHERE {scope}) s
           FULL JOIN (SELECT partition, split_part(line, ':', 1) AS product_id, split_part(line, ':', 2) AS stock_id,
                             sum(substring(line FROM ':([0-9]{{1,18}})$')::bigint) AS units
                      FROM reservation, unnest(string_to_array(lines, ',')) AS line
                      WHERE state = 'sold' AND {scope} GROUP BY 1, 2, 3) r
           USING (partition, product_id, stock_id) WHERE coalesce(sold, 0) <> coalesce(units, 0)""",
        costly=True,
    ),
    Law(
        "sold-is-counted",
        "sold units are those that the days count",
        Subject.PARTITION,
        """SELECT partition::text, '', product_id || ': ' || coalesce(sold, 0) || ' sold, ' || coalesce(counted, 0)
                  || ' counted'
           FROM (SELECT partition, product_id, sum(sold) AS sold FROM stock_item WHERE {scope} GROUP BY 1, 2) s
           FULL JOIN (SELECT partition, product_id, sum(quantity) AS counted FROM daily_sale
                      WHERE {scope} GROUP BY 1, 2) d
           USING (partition, product_id) WHERE coalesce(sold, 0) <> coalesce(counted, 0)""",
        costly=True,
    ),
)

_ORDERS = (
    Law(
        "order-adds-up",
        "an order's subtotal is that of its lines",
        Subject.ORDER,
        """SELECT order_id::text, '', o.subtotal || ', its lines ' || coalesce(l.amount, 0)
           FROM (SELECT order_id, subtotal FROM orders WHERE {scope}) o
           FULL JOIN (SELECT order_id, sum(amount) AS amount FROM order_line WHERE {scope} GROUP BY order_id) l
           USING (order_id) WHERE o.subtotal IS DISTINCT FROM coalesce(l.amount, 0)""",
    ),
    Law(
        "sale-is-told",
        "each completed order, and no other, has a message to the data platform",
        Subject.ORDER,
        """SELECT order_id::text, '', coalesce('a ' || o.status || ' order', 'no order') || ' has '
                  || CASE WHEN x.order_id IS NULL THEN 'no message' ELSE 'a message' END
           FROM (SELECT order_id, status FROM orders WHERE {scope}) o
           FULL JOIN (SELECT order_id FROM outbox WHERE {scope}) x USING (order_id)
           WHERE (o.status = 'completed') IS DISTINCT FROM (x.order_id IS NOT NULL)""",
    ),
    Law(
        "discount-is-recorded",
        "the record of a discount is its order's",
        Subject.ORDER,
        """SELECT order_id::text, '', 'a discount of ' || o.discount || ' on a ' || o.status || ' order, on record '
                  || coalesce(d.amount || ', ' || d.state, 'nothing')
           FROM (SELECT order_id, status, discount, coupon_id FROM orders WHERE {scope}) o
           FULL JOIN (SELECT order_id, amount, state, coupon_id FROM discount WHERE {scope}) d USING (order_id)
           WHERE (o.coupon_id IS NOT NULL OR d.order_id IS NOT NULL)
             AND (d.amount, d.coupon_id, d.state) IS DISTINCT FROM
                 (o.discount, o.coupon_id,
                  CASE o.status WHEN 'completed' THEN 'used' WHEN 'failed' THEN 'returned' ELSE 'taken' END)""",
    ),
    Law(
        "order-has-its-coupon",
        "an order in progress or completed has its coupon",
        Subject.ORDER,
        """SELECT o.order_id::text, '', 'coupon ' || o.coupon_id || ' is ' || coalesce(k.state, 'not there')
           FROM (SELECT order_id, status, coupon_id FROM orders
                 WHERE {scope} AND coupon_id IS NOT NULL AND status IN ('awaiting_payment', 'completed')) o
           LEFT JOIN coupon k ON k.coupon_id = o.coupon_id
           WHERE k.order_id IS DISTINCT FROM o.order_id
              OR k.state <> CASE o.status WHEN 'completed' THEN 'used' ELSE 'taken' END""",
    ),
    Law(
        "order-has-its-stock",
        "the units of live and completed orders are reserved or sold",
        Subject.ORDER,
        """SELECT o.order_id::text, '', l.product_id || ' ' || l.stock_id || ': ' || l.quantity || ' units, '
                  || 'reservation ' || coalesce(r.state || ' ' || r.lines, 'not there')
           FROM (SELECT order_id FROM orders
                 WHERE {scope} AND status IN ('awaiting_payment', 'completed') AND ordered_at < %(before)s) o
           JOIN order_line l ON l.order_id = o.order_id
           LEFT JOIN product p ON p.product_id = l.product_id
           LEFT JOIN reservation r ON r.partition = p.partition AND r.order_id = o.order_id
           WHERE r.state IS NULL OR r.state = 'released'
              OR position(',' || l.product_id || ':' || l.stock_id || ':' || l.quantity || ','
                          IN ',' || r.lines || ',') = 0""",
        across=True,
    ),
    Law(
        "reservation-has-its-order",
        "what is reserved or sold is so for its order",
        Subject.RESERVATION,
        """SELECT r.order_id::text, r.partition::text, r.state || ', its order is ' || coalesce(o.status, 'not there')
           FROM (SELECT * FROM reservation WHERE {scope} AND coalesce(finished_at, at) < %(before)s) r
           LEFT JOIN orders o ON o.order_id = r.order_id
           WHERE CASE r.state WHEN 'sold' THEN o.status IS DISTINCT FROM 'completed'
                              WHEN 'released' THEN o.status IN ('awaiting_payment', 'completed')
                              ELSE o.order_id IS NULL
                                   OR o.status IN ('failed', 'void') AND o.finished_at < %(before)s END""",
        across=True,
    ),
    Law(
        "reservation-is-ordered",
        "what is reserved or sold was ordered",
        Subject.RESERVATION,
        """SELECT r.order_id::text, r.partition::text, r.state || ' ' || line || ', which its order has not'
           FROM (SELECT * FROM reservation WHERE {scope} AND state <> 'released') r
           JOIN orders o ON o.order_id = r.order_id AND o.status <> 'void'
           CROSS JOIN unnest(string_to_array(r.lines, ',')) AS line
           WHERE NOT EXISTS (SELECT FROM order_line l WHERE l.order_id = r.order_id
                             AND l.product_id || ':' || l.stock_id || ':' || l.quantity = line)""",
        across=True,
    ),
)

_COUPONS = (
    Law(
        "coupon-has-its-order",
        "a coupon taken or used is that of its order",
        Subject.COUPON,
        """SELECT k.coupon_id, k.user_id, k.state || ' by order ' || k.order_id || ', which is '
                  || coalesce(o.status, 'not there')
           FROM (SELECT * FROM coupon WHERE {scope} AND state <> 'free') k
           LEFT JOIN orders o ON o.order_id = k.order_id
           WHERE o.coupon_id IS DISTINCT FROM k.coupon_id
              OR o.status <> CASE k.state WHEN 'used' THEN 'completed' ELSE 'awaiting_payment' END""",
    ),
    Law(
        "issued-within-quantity",
        "issues <= issued <= quantity",
        Subject.CAMPAIGN,
        """SELECT c.campaign_id, '', coalesce(i.issues, 0) || ' issues up to number ' || coalesce(i.highest, 0) || ', '
                  || c.issued || ' issued of ' || c.quantity
           FROM (SELECT campaign_id, issued, quantity FROM campaign WHERE {scope}) c
           LEFT JOIN (SELECT campaign_id, count(*) AS issues, max(number) AS highest FROM coupon_issue
                      WHERE {scope} GROUP BY campaign_id) i USING (campaign_id)
           WHERE greatest(i.issues, i.highest, 0) > c.issued OR c.issued > c.quantity""",
    ),
    Law(
        "issue-is-granted",
        "every issue has its coupon",
        Subject.ISSUE,
        """SELECT i.user_id, i.campaign_id, 'number ' || i.number || ', its coupon '
                  || coalesce('has number ' || k.issue_number, 'is not there')
           FROM (SELECT * FROM coupon_issue WHERE {scope} AND issued_at < %(before)s) i
           LEFT JOIN coupon k ON k.user_id = i.user_id AND k.campaign_id = i.campaign_id
           WHERE k.issue_number IS DISTINCT FROM i.number""",
        across=True,
    ),
    Law(
        "coupon-was-issued",
        "every coupon was issued",
        Subject.COUPON,
        """SELECT k.coupon_id, k.user_id, 'number ' || k.issue_number || ', its issue '
                  || coalesce('has number ' || i.number, 'is not there')
           FROM (SELECT * FROM coupon WHERE {scope} AND issued_at < %(before)s) k
           LEFT JOIN coupon_issue i ON i.campaign_id = k.campaign_id AND i.user_id = k.user_id
           WHERE i.number IS DISTINCT FROM k.issue_number""",
        across=True,
    ),
)

LAWS = (*_USERS, *_STOCK, *_ORDERS, *_COUPONS)
"""Every law, in the order of a report."""
