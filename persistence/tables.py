"""The tables. Only a partition's own writer writes its rows, and no foreign key crosses partitions.

Times are ``timestamptz(3)``, amounts whole minor units, ``place`` the ``<epoch>-<seq>`` of an entity's last change (the
same text that Redis keeps), so that the two can be compared where they are equal.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _moment(name: str, *, nullable: bool = False, **options: Any) -> Column[Any]:
    return Column(name, TIMESTAMP(timezone=True, precision=3), nullable=nullable, **options)


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=nullable, primary_key=primary_key)


def _amount(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=nullable)


def _count(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False)


def _partition(*, primary_key: bool = False) -> Column[Any]:
    return Column("partition", SmallInteger, nullable=False, primary_key=primary_key, autoincrement=False)


def _order_id(*, primary_key: bool = False, nullable: bool = False) -> Column[Any]:
    return Column("order_id", Uuid(as_uuid=False), nullable=nullable, primary_key=primary_key)


def _rule() -> tuple[Column[Any], ...]:
    return (
        _text("kind"),
        Column("value", BigInteger, nullable=False),
        _amount("minimum_order", nullable=True),
        _amount("maximum_discount", nullable=True),
    )


_NOW = func.now()

# How tables are filled and vacuumed; the reasons and the measurements stand in docs/decisions/0008-hot-and-cold.md.
_ADDED_TO = {"autovacuum_vacuum_insert_scale_factor": "0.05"}
_CHANGING = {"autovacuum_vacuum_scale_factor": "0.02", **_ADDED_TO}
_ROOM_TO_CHANGE = {"fillfactor": "85"}

# --- The installation and the writer's place in each partition ---

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, server_default="1"),
    Column("partitions", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default="1"),
    _text("time_zone"),
    _text("currency"),
    Column("format", Integer, nullable=False),
    _moment("created_at", server_default=_NOW),
    CheckConstraint("id = 1", name="one_row"),
)

partition_cursor = Table(
    "partition_cursor",
    metadata,
    _partition(primary_key=True),
    Column("epoch", BigInteger, nullable=False, server_default="1"),
    Column("seq", BigInteger, nullable=False, server_default="0"),
    # The identity of the only Redis server whose events may be taken; nothing while none was ever trusted.
    _text("server", nullable=True),
    # Why the writer of this partition stands still until an operator decides.
    _text("stopped", nullable=True),
    _moment("stopped_at", nullable=True),
    # All that happened in the partition before this, by its own clock, is here.
    _moment("updated_at", server_default=_NOW),
)

epoch_end = Table(
    "epoch_end",
    metadata,
    _partition(primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
)

# An event that an operator has let the writer pass over, as it stood in the stream: what it said is in no other table.
set_aside_event = Table(
    "set_aside_event",
    metadata,
    _partition(primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    # The fields as a JSON array of pairs: text, because a field may hold what jsonb does not take.
    _text("fields"),
    # Why the writer had stopped, and why the operator passed over it.
    _text("stopped"),
    _text("reason"),
    _text("set_aside_by"),
    _moment("set_aside_at", server_default=_NOW),
)

worker_presence = Table(
    "worker_presence",
    metadata,
    _text("worker_id", primary_key=True),
    _moment("seen_at", server_default=_NOW),
)

# --- Users ---

wallet = Table(
    "wallet",
    metadata,
    _text("user_id", primary_key=True),
    _partition(),
    _amount("balance"),
    _count("coupon_number"),
    Column("last_order", Uuid(as_uuid=False)),
    _text("place"),
    CheckConstraint("balance >= 0", name="balance"),
    postgresql_with=_ROOM_TO_CHANGE,
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    _partition(primary_key=True),
    _text("owner", primary_key=True),
    _text("key", primary_key=True),
    _text("fingerprint"),
    _text("result"),
    _text("place"),
    _moment("spent_at"),
    Index("idempotency_key_spent_idx", "spent_at"),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    _partition(primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    _text("user_id"),
    _text("kind"),
    _amount("amount"),
    _amount("balance"),
    _order_id(nullable=True),
    _moment("at"),
    CheckConstraint("kind IN ('charge', 'payment')", name="kind"),
    CheckConstraint("balance >= 0", name="balance"),
    Index("ledger_entry_history_idx", "user_id", text("seq DESC")),
    postgresql_with=_ADDED_TO,
)

# --- Catalogue and stock ---

product = Table(
    "product",
    metadata,
    _text("product_id", primary_key=True),
    _partition(),
    _text("name"),
    _amount("price"),
    _text("place"),
    CheckConstraint("price >= 0", name="price"),
)

stock_item = Table(
    "stock_item",
    metadata,
    _text("product_id", primary_key=True),
    _text("stock_id", primary_key=True),
    _partition(),
    # A product's stock items stand in the order they were added: by event, then by their place in it.
    Column("added_seq", BigInteger, nullable=False),
    Column("added_index", Integer, nullable=False),
    _text("option"),
    _count("received"),
    _count("available"),
    _count("reserved"),
    _count("sold"),
    CheckConstraint("available >= 0", name="available"),
    CheckConstraint("reserved >= 0", name="reserved"),
    CheckConstraint("sold >= 0", name="sold"),
    CheckConstraint("received = available + reserved + sold", name="conserved"),
    # Hot rows change in place instead of moving to another page.
    postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"},
)

stock_adjustment = Table(
    "stock_adjustment",
    metadata,
    _partition(primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("product_id"),
    _text("stock_id"),
    Column("delta", BigInteger, nullable=False),
    _count("available"),
    _text("reason"),
    _moment("at"),
)

reservation = Table(
    "reservation",
    metadata,
    # By order first: its reservations are looked for in every partition.
    _order_id(primary_key=True),
    _partition(primary_key=True),
    _text("user_id"),
    _text("state"),
    # product:stock:quantity, joined by commas
    _text("lines"),
    _moment("at"),
    _moment("finished_at", nullable=True),
    _text("place"),
    CheckConstraint("state IN ('held', 'sold', 'released')", name="state"),
    Index("reservation_held_idx", "at", "partition", "order_id", postgresql_where=text("state = 'held'")),
    # What may leave Redis, in the order in which it ended.
    Index(
        "reservation_finished_idx",
        "partition",
        "finished_at",
        "order_id",
        postgresql_where=text("state <> 'held'"),
    ),
    postgresql_with=_CHANGING,
)

daily_sale = Table(
    "daily_sale",
    metadata,
    Column("day", Date, primary_key=True),
    _text("product_id", primary_key=True),
    _partition(),
    _count("quantity"),
    CheckConstraint("quantity >= 0", name="quantity"),
)

# --- Orders ---

orders = Table(
    "orders",
    metadata,
    _order_id(primary_key=True),
    _partition(),
    _text("user_id"),
    _text("status"),
    _text("failure", nullable=True),
    _amount("subtotal"),
    _amount("discount"),
    _amount("total"),
    _text("coupon_id", nullable=True),
    _moment("ordered_at"),
    _moment("pay_before", nullable=True),
    _moment("paid_at", nullable=True),
    _moment("finished_at", nullable=True),
    _text("place"),
    CheckConstraint("status IN ('awaiting_payment', 'completed', 'failed', 'void')", name="status"),
    CheckConstraint("subtotal >= 0 AND discount >= 0 AND total = subtotal - discount AND total >= 0", name="total"),
    Index("orders_history_idx", "user_id", text("ordered_at DESC"), text("order_id DESC")),
    Index("orders_due_idx", "pay_before", postgresql_where=text("status = 'awaiting_payment'")),
    postgresql_with=_CHANGING,
)

order_line = Table(
    "order_line",
    metadata,
    _order_id(primary_key=True),
    Column("line_no", SmallInteger, primary_key=True, autoincrement=False),
    _partition(),
    _text("product_id"),
    _text("stock_id"),
    _text("name"),
    _text("option"),
    _amount("unit_price"),
    Column("quantity", BigInteger, nullable=False),
    _amount("amount"),
    CheckConstraint("quantity > 0", name="quantity"),
    CheckConstraint("amount = unit_price * quantity AND amount >= 0", name="amount"),
    postgresql_with=_ADDED_TO,
)

discount = Table(
    "discount",
    metadata,
    _order_id(primary_key=True),
    _partition(),
    _text("coupon_id"),
    _text("user_id"),
    _text("campaign_id"),
    Column("issue_number", BigInteger, nullable=False),
    *_rule(),
    _amount("amount"),
    _text("state"),
    _moment("at"),
    CheckConstraint("state IN ('taken', 'used', 'returned')", name="state"),
    CheckConstraint("amount >= 0", name="amount"),
    postgresql_with={**_ROOM_TO_CHANGE, **_CHANGING},
)

# --- Coupons ---

campaign = Table(
    "campaign",
    metadata,
    _text("campaign_id", primary_key=True),
    _partition(),
    _text("name"),
    *_rule(),
    _count("quantity"),
    _count("issued"),
    _moment("opens_at"),
    _moment("closes_at"),
    Column("valid_days", Integer, nullable=False),
    _text("place"),
    CheckConstraint("issued >= 0 AND issued <= quantity", name="issued"),
)

coupon_issue = Table(
    "coupon_issue",
    metadata,
    _text("campaign_id", primary_key=True),
    _text("user_id", primary_key=True),
    _partition(),
    Column("number", BigInteger, nullable=False),
    # The campaign's rule at that moment: what is issued stays what it was.
    *_rule(),
    Column("valid_days", Integer, nullable=False),
    _moment("issued_at"),
    UniqueConstraint("campaign_id", "number"),
    CheckConstraint("number > 0", name="number"),
    postgresql_with=_ADDED_TO,
)

# Owned by the settler, not by a writer: every issue up to this number has its coupon.
campaign_settlement = Table(
    "campaign_settlement",
    metadata,
    _text("campaign_id", primary_key=True),
    Column("granted_through", BigInteger, nullable=False),
)

coupon = Table(
    "coupon",
    metadata,
    _text("coupon_id", primary_key=True),
    _partition(),
    _text("user_id"),
    _text("campaign_id"),
    Column("issue_number", BigInteger, nullable=False),
    *_rule(),
    _text("state"),
    _order_id(nullable=True),
    _moment("issued_at"),
    _moment("valid_from"),
    _moment("valid_until"),
    _moment("used_at", nullable=True),
    _text("place"),
    UniqueConstraint("user_id", "campaign_id"),
    CheckConstraint("state IN ('free', 'taken', 'used')", name="state"),
    CheckConstraint("(state = 'free') = (order_id IS NULL)", name="order"),
    # Reconciling looks at the coupons of the last minutes; they lie together at the table's end.
    Index("coupon_issued_at_idx", "issued_at", postgresql_using="brin"),
    # What may leave Redis, in the order in which it expires; of no column that changes, so that rows change in place.
    Index("coupon_valid_until_idx", "partition", "valid_until", "coupon_id"),
    postgresql_with={**_ROOM_TO_CHANGE, **_CHANGING},
)

# --- The data platform and the operator ---

# A paid order to be told to the data platform. What is sent is built from the order's rows, which never change again;
# the event's id, `<partition>:<epoch>-<seq>`, is that of the change that paid the order.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    _partition(),
    Column("order_id", Uuid(as_uuid=False), nullable=False, unique=True),
    _text("user_id"),
    _text("event_id"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("tries", Integer, nullable=False, server_default="0"),
    _moment("next_try_at", server_default=_NOW),
    _text("last_error", nullable=True),
    _moment("created_at"),
    _moment("delivered_at", nullable=True),
    _text("replay_key", nullable=True),
    _text("request_id", nullable=True),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    Index("outbox_due_idx", "next_try_at", "id", postgresql_where=text("state = 'pending'")),
    Index("outbox_user_idx", "user_id", "id", postgresql_where=text("state = 'pending'")),
    Index("outbox_dead_idx", "id", postgresql_where=text("state = 'dead'")),
    postgresql_with=_CHANGING,
)

alarm = Table(
    "alarm",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    _text("kind"),
    Column("partition", SmallInteger, nullable=True),
    _text("subject"),
    _text("detail"),
    _text("remedy"),
    _moment("raised_at", server_default=_NOW),
    _moment("cleared_at", nullable=True),
    Index(
        "alarm_open_idx",
        "kind",
        text("COALESCE(partition, '-1'::integer)"),
        "subject",
        unique=True,
        postgresql_where=text("cleared_at IS NULL"),
    ),
)
