"""What Redis and PostgreSQL hold after all is settled, read without the engine; and the laws that must hold then."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, cast

import orjson
import psycopg
import redis

from tests.servers import redis_client

SCAN_COUNT = 1000
StockKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Stock:
    """Units of one stock item."""

    available: int
    reserved: int
    sold: int


@dataclass(frozen=True, slots=True)
class OrderState:
    """What became of an order, with its units by stock item."""

    user: str
    status: str
    failure: str
    total: int
    coupon: str
    units: Mapping[StockKey, int]


@dataclass(frozen=True, slots=True)
class CouponState:
    """A user's coupon: free, taken or used, and by which order."""

    user: str
    campaign: str
    number: int
    state: str
    order: str


@dataclass(frozen=True, slots=True)
class CampaignState:
    """A campaign with the number that each user was issued."""

    quantity: int
    issued: int
    issues: Mapping[str, int]


@dataclass(slots=True)
class Books:
    """One store's account of the whole shop. Reservations are (order, product, stock) to (state, units)."""

    stock: dict[StockKey, Stock] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    orders: dict[str, OrderState] = field(default_factory=dict)
    reservations: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    campaigns: dict[str, CampaignState] = field(default_factory=dict)
    coupons: dict[str, CouponState] = field(default_factory=dict)
    sales: Counter[str] = field(default_factory=Counter)


def read_redis(url: str) -> Books:
    """The books of Redis, from its keys alone."""
    books = Books()
    with redis_client(url) as client:
        for kind, name, key in _keys(client):
            if kind == "product":
                _read_product(books, name, _hash(client, key))
            elif kind == "user":
                books.balances[name] = int(_hash(client, key).get("balance", "0"))
            elif kind == "order":
                _read_order(books, name, _hash(client, key))
            elif kind == "reservation":
                fields = _hash(client, key)
                for product, stock, units in (line.split(":") for line in fields["lines"].split(",")):
                    books.reservations[name, product, stock] = (fields["state"], int(units))
            elif kind == "campaign":
                fields = _hash(client, key)
                issues = _hash(client, key.replace(b":campaign:", b":issued:", 1))
                numbers = {user: int(issue.partition(",")[0]) for user, issue in issues.items()}
                books.campaigns[name] = CampaignState(int(fields["quantity"]), int(fields["issued"]), numbers)
            elif kind == "coupons":
                for coupon, packed in _hash(client, key).items():
                    if not coupon.startswith("campaign:"):
                        parts = packed.split(",")
                        books.coupons[coupon] = CouponState(name, parts[1], int(parts[2]), parts[0], parts[10])
            elif kind == "sales":
                ranked: list[tuple[bytes, float]] = client.zrange(key, 0, -1, withscores=True)
                for member, score in ranked:
                    books.sales[member.decode()] += int(score)
    return books


def read_postgres(url: str) -> Books:
    """The books of PostgreSQL, from its tables alone."""
    books = Books()
    with psycopg.connect(url) as connection:

        def rows(query: LiteralString) -> list[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        for product, stock, *units in rows("SELECT product_id, stock_id, available, reserved, sold FROM stock_item"):
            books.stock[product, stock] = Stock(*units)
        books.balances = dict(rows("SELECT user_id, balance FROM wallet"))
        lines: defaultdict[str, Counter[StockKey]] = defaultdict(Counter)
        for order, product, stock, units in rows(
            "SELECT order_id::text, product_id, stock_id, quantity FROM order_line"
        ):
            lines[order][product, stock] += units
        for order, user, status, failure, total, coupon in rows(
            "SELECT order_id::text, user_id, status, failure, total, coupon_id FROM orders"
        ):
            books.orders[order] = OrderState(user, status, failure or "", total, coupon or "", dict(lines[order]))
        for order, state, packed in rows("SELECT order_id::text, state, lines FROM reservation"):
            for product, stock, units in (line.split(":") for line in packed.split(",")):
                books.reservations[order, product, stock] = (state, int(units))
        issues: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for campaign, user, number in rows("SELECT campaign_id, user_id, number FROM coupon_issue"):
            issues[campaign][user] = number
        for campaign, quantity, issued in rows("SELECT campaign_id, quantity, issued FROM campaign"):
            books.campaigns[campaign] = CampaignState(quantity, issued, issues[campaign])
        for coupon, user, campaign, number, state, order in rows(
            "SELECT coupon_id, user_id, campaign_id, issue_number, state, order_id::text FROM coupon"
        ):
            books.coupons[coupon] = CouponState(user, campaign, number, state, order or "")
        books.sales = Counter(dict(rows("SELECT product_id, sum(quantity)::bigint FROM daily_sale GROUP BY 1")))
    return books


def broken_laws(books: Books) -> Iterator[str]:
    """Every law of conservation that these books break, in words. The shop must be settled."""
    held, sold = Counter[StockKey](), Counter[StockKey]()
    for (order, product, stock), (state, units) in books.reservations.items():
        status = books.orders[order].status if order in books.orders else "unknown"
        allowed = {"held": {"awaiting_payment"}, "sold": {"completed"}, "released": {"failed", "void", "unknown"}}
        if status not in allowed[state]:
            yield f"reservation of {product}/{stock} for the {status} order {order} is {state}"
        if state != "released":
            (held if state == "held" else sold)[product, stock] += units
    waiting, completed = Counter[StockKey](), Counter[StockKey]()
    for order_state in books.orders.values():
        if order_state.status in {"awaiting_payment", "completed"}:
            (waiting if order_state.status == "awaiting_payment" else completed).update(order_state.units)
    for key, item in books.stock.items():
        if min(item.available, item.reserved, item.sold) < 0:
            yield f"{key} has less than nothing: {item}"
        if not item.reserved == held[key] == waiting[key]:
            yield f"{key} reserved {item.reserved}, held {held[key]}, in unpaid orders {waiting[key]}"
        if not item.sold == sold[key] == completed[key]:
            yield f"{key} sold {item.sold}, by reservations {sold[key]}, in completed orders {completed[key]}"
    sold_of = Counter[str]()
    for (product, _), item in books.stock.items():
        sold_of[product] += item.sold
    if +sold_of != +books.sales:
        yield f"units sold {+sold_of} are not those that the days count {+books.sales}"
    yield from _broken_user_laws(books)
    yield from _broken_coupon_laws(books)


def _broken_user_laws(books: Books) -> Iterator[str]:
    for user, balance in books.balances.items():
        if balance < 0:
            yield f"{user} has a balance of {balance}"
    unpaid = Counter(order.user for order in books.orders.values() if order.status == "awaiting_payment")
    for user, count in unpaid.items():
        if count > 1:
            yield f"{user} has {count} orders in progress"


def _broken_coupon_laws(books: Books) -> Iterator[str]:
    granted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for coupon_id, coupon in books.coupons.items():
        if coupon.user in granted[coupon.campaign]:
            yield f"{coupon.user} has two coupons of {coupon.campaign}"
        granted[coupon.campaign][coupon.user] = coupon.number
        order = books.orders.get(coupon.order)
        expected = {"awaiting_payment": "taken", "completed": "used"}.get(order.status, "free") if order else "free"
        if coupon.state != expected or (order is not None and order.coupon != coupon_id):
            yield f"coupon {coupon_id} is {coupon.state}, its order {coupon.order or 'none'} says {expected}"
    takers = Counter(
        order.coupon
        for order in books.orders.values()
        if order.coupon and order.status in {"awaiting_payment", "completed"}
    )
    for coupon_id, count in takers.items():
        if count > 1 or books.coupons[coupon_id].state == "free":
            yield f"coupon {coupon_id} is {books.coupons[coupon_id].state} and {count} orders have it"
    for campaign_id, campaign in books.campaigns.items():
        if sorted(campaign.issues.values()) != list(range(1, campaign.issued + 1)):
            yield f"{campaign_id} issued {campaign.issued}, numbers {sorted(campaign.issues.values())}"
        if campaign.issued > campaign.quantity:
            yield f"{campaign_id} issued {campaign.issued} of {campaign.quantity}"
        if granted[campaign_id] != campaign.issues:
            yield f"{campaign_id}: {len(campaign.issues)} issues, {len(granted[campaign_id])} coupons, or other ones"


def broken_ledger(url: str) -> Iterator[str]:
    """What PostgreSQL alone can tell: ledgers, received units, records of discounts and deliveries."""
    laws: dict[str, LiteralString] = {
        "a balance is not the sum of its entries": """
            SELECT w.user_id, w.balance, sum(e.amount) FROM wallet w
            LEFT JOIN ledger_entry e USING (user_id) GROUP BY 1, 2 HAVING w.balance <> coalesce(sum(e.amount), 0)""",
        "an entry's balance does not follow from the one before": """
            SELECT * FROM (SELECT user_id, seq, balance, amount,
                           coalesce(lag(balance) OVER (PARTITION BY user_id ORDER BY seq), 0) AS before
                           FROM ledger_entry) e WHERE balance <> before + amount""",
        "received is not available + reserved + sold": """
            SELECT * FROM stock_item WHERE received <> available + reserved + sold""",
        "an order is not paid exactly once": """
            SELECT o.order_id, o.status, o.total, count(e.seq), sum(e.amount) FROM orders o
            LEFT JOIN ledger_entry e USING (order_id) GROUP BY 1, 2, 3
            HAVING CASE WHEN o.status = 'completed' AND o.total > 0
                   THEN count(e.seq) <> 1 OR sum(e.amount) <> -o.total ELSE count(e.seq) > 0 END""",
        "the record of a discount is not its order's": """
            SELECT o.order_id, o.status, o.discount, d.state, d.amount FROM orders o
            FULL JOIN discount d USING (order_id)
            WHERE (o.coupon_id IS NOT NULL OR d.order_id IS NOT NULL) AND
                  (d.amount, d.coupon_id, d.state) IS DISTINCT FROM (o.discount, o.coupon_id,
                   CASE o.status WHEN 'completed' THEN 'used' WHEN 'failed' THEN 'returned' ELSE 'taken' END)""",
        "a completed order has no delivery, or another has": """
            SELECT o.order_id, o.status FROM orders o FULL JOIN outbox x USING (order_id)
            WHERE (o.status = 'completed') IS DISTINCT FROM (x.order_id IS NOT NULL)""",
        "an alarm is open": "SELECT kind, partition, subject, detail FROM alarm WHERE cleared_at IS NULL",
    }
    with psycopg.connect(url) as connection:
        for law, query in laws.items():
            for row in connection.execute(query).fetchall():
                yield f"{law}: {row}"


def differences(one: Books, other: Books) -> Iterator[str]:
    """What the two books do not have in common, in words."""
    for name in Books.__dataclass_fields__:
        mine, theirs = getattr(one, name), getattr(other, name)
        if name == "balances":
            mine, theirs = +Counter(mine), +Counter(theirs)
        for key in sorted({*mine, *theirs}, key=str):
            if mine.get(key) != theirs.get(key):
                yield f"{name} {key}: {mine.get(key)} in Redis, {theirs.get(key)} in PostgreSQL"


def _keys(client: redis.Redis) -> Iterator[tuple[str, str, bytes]]:
    """Every key as kind (`user`), name (`mina`; empty for a partition's own keys) and itself."""
    keys: Iterator[bytes] = client.scan_iter(match="fc:{*", count=SCAN_COUNT)
    for key in keys:
        kind, _, name = key.decode().split("}:", 1)[1].partition(":")
        yield kind, name, key


def _hash(client: redis.Redis, key: bytes) -> dict[str, str]:
    fields = cast("dict[bytes, bytes]", client.hgetall(key))
    return {name.decode(): value.decode() for name, value in fields.items()}


def _read_product(books: Books, product: str, fields: dict[str, str]) -> None:
    for stock in fields["stocks"].split(","):
        books.stock[product, stock] = Stock(*(int(fields[f"{kind}:{stock}"]) for kind in "ars"))


def _read_order(books: Books, order: str, fields: dict[str, str]) -> None:
    units = Counter[StockKey]()
    for line in orjson.loads(fields.get("lines") or "[]"):
        units[line["product_id"], line["stock_id"]] += line["quantity"]
    books.orders[order] = OrderState(
        fields["user"],
        fields["status"],
        fields.get("failure", ""),
        int(fields.get("total", "0")),
        fields.get("coupon", ""),
        dict(units),
    )
