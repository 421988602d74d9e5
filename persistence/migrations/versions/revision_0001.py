"""The first tables.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """\
CREATE TABLE installation (
    id INTEGER DEFAULT '1' NOT NULL,
    partitions INTEGER NOT NULL,
    generation BIGINT DEFAULT '1' NOT NULL,
    time_zone TEXT NOT NULL,
    currency TEXT NOT NULL,
    format INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT installation_pkey PRIMARY KEY (id),
    CONSTRAINT installation_one_row_check CHECK (id = 1)
);

CREATE TABLE partition_cursor (
    partition SMALLINT NOT NULL,
    epoch BIGINT DEFAULT '1' NOT NULL,
    seq BIGINT DEFAULT '0' NOT NULL,
    server TEXT,
    stopped TEXT,
    stopped_at TIMESTAMP(3) WITH TIME ZONE,
    updated_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT partition_cursor_pkey PRIMARY KEY (partition)
);

CREATE TABLE epoch_end (
    partition SMALLINT NOT NULL,
    epoch BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    CONSTRAINT epoch_end_pkey PRIMARY KEY (partition, epoch)
);

CREATE TABLE worker_presence (
    worker_id TEXT NOT NULL,
    seen_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT worker_presence_pkey PRIMARY KEY (worker_id)
);

CREATE TABLE wallet (
    user_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    balance BIGINT NOT NULL,
    coupon_number BIGINT NOT NULL,
    place TEXT NOT NULL,
    CONSTRAINT wallet_pkey PRIMARY KEY (user_id),
    CONSTRAINT wallet_balance_check CHECK (balance >= 0)
);

CREATE TABLE ledger_entry (
    partition SMALLINT NOT NULL,
    seq BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    amount BIGINT NOT NULL,
    balance BIGINT NOT NULL,
    order_id UUID,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    CONSTRAINT ledger_entry_pkey PRIMARY KEY (partition, seq),
    CONSTRAINT ledger_entry_kind_check CHECK (kind IN ('charge', 'payment')),
    CONSTRAINT ledger_entry_balance_check CHECK (balance >= 0)
);

CREATE INDEX ledger_entry_history_idx ON ledger_entry (user_id, seq DESC);

CREATE TABLE product (
    product_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    name TEXT NOT NULL,
    price BIGINT NOT NULL,
    place TEXT NOT NULL,
    CONSTRAINT product_pkey PRIMARY KEY (product_id),
    CONSTRAINT product_price_check CHECK (price >= 0)
);

CREATE TABLE stock_item (
    product_id TEXT NOT NULL,
    stock_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    added_seq BIGINT NOT NULL,
    added_index INTEGER NOT NULL,
    option TEXT NOT NULL,
    received BIGINT NOT NULL,
    available BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    sold BIGINT NOT NULL,
    CONSTRAINT stock_item_pkey PRIMARY KEY (product_id, stock_id),
    CONSTRAINT stock_item_available_check CHECK (available >= 0),
    CONSTRAINT stock_item_reserved_check CHECK (reserved >= 0),
    CONSTRAINT stock_item_sold_check CHECK (sold >= 0),
    CONSTRAINT stock_item_conserved_check CHECK (received = available + reserved + sold)
    ) WITH (fillfactor = 70);

CREATE TABLE stock_adjustment (
    partition SMALLINT NOT NULL,
    seq BIGINT NOT NULL,
    product_id TEXT NOT NULL,
    stock_id TEXT NOT NULL,
    delta BIGINT NOT NULL,
    available BIGINT NOT NULL,
    reason TEXT NOT NULL,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    CONSTRAINT stock_adjustment_pkey PRIMARY KEY (partition, seq)
);

CREATE TABLE reservation (
    partition SMALLINT NOT NULL,
    order_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    state TEXT NOT NULL,
    lines TEXT NOT NULL,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP(3) WITH TIME ZONE,
    place TEXT NOT NULL,
    CONSTRAINT reservation_pkey PRIMARY KEY (partition, order_id),
    CONSTRAINT reservation_state_check CHECK (state IN ('held', 'sold', 'released'))
);

CREATE INDEX reservation_held_idx ON reservation (at, partition, order_id) WHERE state = 'held';

CREATE TABLE daily_sale (
    day DATE NOT NULL,
    product_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    quantity BIGINT NOT NULL,
    CONSTRAINT daily_sale_pkey PRIMARY KEY (day, product_id),
    CONSTRAINT daily_sale_quantity_check CHECK (quantity >= 0)
);

CREATE TABLE orders (
    order_id UUID NOT NULL,
    partition SMALLINT NOT NULL,
    user_id TEXT NOT NULL,
    status TEXT NOT NULL,
    failure TEXT,
    subtotal BIGINT NOT NULL,
    discount BIGINT NOT NULL,
    total BIGINT NOT NULL,
    coupon_id TEXT,
    ordered_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    pay_before TIMESTAMP(3) WITH TIME ZONE,
    paid_at TIMESTAMP(3) WITH TIME ZONE,
    finished_at TIMESTAMP(3) WITH TIME ZONE,
    place TEXT NOT NULL,
    CONSTRAINT orders_pkey PRIMARY KEY (order_id),
    CONSTRAINT orders_status_check CHECK (status IN ('awaiting_payment', 'completed', 'failed', 'void')),
    CONSTRAINT orders_total_check CHECK (subtotal >= 0 AND discount >= 0 AND total = subtotal - discount AND total >= 0)
);

CREATE INDEX orders_due_idx ON orders (pay_before) WHERE status = 'awaiting_payment';

CREATE INDEX orders_history_idx ON orders (user_id, ordered_at DESC, order_id DESC);

CREATE TABLE order_line (
    order_id UUID NOT NULL,
    line_no SMALLINT NOT NULL,
    partition SMALLINT NOT NULL,
    product_id TEXT NOT NULL,
    stock_id TEXT NOT NULL,
    name TEXT NOT NULL,
    option TEXT NOT NULL,
    unit_price BIGINT NOT NULL,
    quantity BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    CONSTRAINT order_line_pkey PRIMARY KEY (order_id, line_no),
    CONSTRAINT order_line_quantity_check CHECK (quantity > 0),
    CONSTRAINT order_line_amount_check CHECK (amount = unit_price * quantity AND amount >= 0)
);

CREATE TABLE discount (
    order_id UUID NOT NULL,
    partition SMALLINT NOT NULL,
    coupon_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    issue_number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    value BIGINT NOT NULL,
    minimum_order BIGINT,
    maximum_discount BIGINT,
    amount BIGINT NOT NULL,
    state TEXT NOT NULL,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    CONSTRAINT discount_pkey PRIMARY KEY (order_id),
    CONSTRAINT discount_state_check CHECK (state IN ('taken', 'used', 'returned')),
    CONSTRAINT discount_amount_check CHECK (amount >= 0)
);

CREATE TABLE campaign (
    campaign_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    value BIGINT NOT NULL,
    minimum_order BIGINT,
    maximum_discount BIGINT,
    quantity BIGINT NOT NULL,
    issued BIGINT NOT NULL,
    opens_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    closes_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    valid_days INTEGER NOT NULL,
    place TEXT NOT NULL,
    CONSTRAINT campaign_pkey PRIMARY KEY (campaign_id),
    CONSTRAINT campaign_issued_check CHECK (issued >= 0 AND issued <= quantity)
);

CREATE TABLE coupon_issue (
    campaign_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    value BIGINT NOT NULL,
    minimum_order BIGINT,
    maximum_discount BIGINT,
    valid_days INTEGER NOT NULL,
    issued_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    CONSTRAINT coupon_issue_pkey PRIMARY KEY (campaign_id, user_id),
    CONSTRAINT coupon_issue_campaign_id_number_key UNIQUE (campaign_id, number),
    CONSTRAINT coupon_issue_number_check CHECK (number > 0)
);

CREATE TABLE campaign_settlement (
    campaign_id TEXT NOT NULL,
    granted_through BIGINT NOT NULL,
    CONSTRAINT campaign_settlement_pkey PRIMARY KEY (campaign_id)
);

CREATE TABLE coupon (
    coupon_id TEXT NOT NULL,
    partition SMALLINT NOT NULL,
    user_id TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    issue_number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    value BIGINT NOT NULL,
    minimum_order BIGINT,
    maximum_discount BIGINT,
    state TEXT NOT NULL,
    order_id UUID,
    issued_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    valid_from TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    valid_until TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    used_at TIMESTAMP(3) WITH TIME ZONE,
    place TEXT NOT NULL,
    CONSTRAINT coupon_pkey PRIMARY KEY (coupon_id),
    CONSTRAINT coupon_user_id_campaign_id_key UNIQUE (user_id, campaign_id),
    CONSTRAINT coupon_state_check CHECK (state IN ('free', 'taken', 'used')),
    CONSTRAINT coupon_order_check CHECK ((state = 'free') = (order_id IS NULL))
);

CREATE TABLE outbox (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    partition SMALLINT NOT NULL,
    order_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    state TEXT DEFAULT 'pending' NOT NULL,
    tries INTEGER DEFAULT '0' NOT NULL,
    next_try_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now() NOT NULL,
    last_error TEXT,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    delivered_at TIMESTAMP(3) WITH TIME ZONE,
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_state_check CHECK (state IN ('pending', 'delivered', 'dead')),
    CONSTRAINT outbox_order_id_key UNIQUE (order_id)
);

CREATE INDEX outbox_due_idx ON outbox (next_try_at, id) WHERE state = 'pending';

CREATE INDEX outbox_user_idx ON outbox (user_id, id) WHERE state = 'pending';

CREATE TABLE alarm (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY,
    kind TEXT NOT NULL,
    partition SMALLINT,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    remedy TEXT NOT NULL,
    raised_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now() NOT NULL,
    cleared_at TIMESTAMP(3) WITH TIME ZONE,
    CONSTRAINT alarm_pkey PRIMARY KEY (id)
);

CREATE UNIQUE INDEX alarm_open_idx ON alarm (kind, COALESCE(partition, '-1'::integer), subject)
    WHERE cleared_at IS NULL;
"""


def upgrade() -> None:
    """Create every table and index."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop them: all data is lost."""
    op.execute(
        "DROP TABLE "
        "installation, "
        "partition_cursor, "
        "epoch_end, "
        "worker_presence, "
        "wallet, "
        "ledger_entry, "
        "product, "
        "stock_item, "
        "stock_adjustment, "
        "reservation, "
        "daily_sale, "
        "orders, "
        "order_line, "
        "discount, "
        "campaign, "
        "coupon_issue, "
        "campaign_settlement, "
        "coupon, "
        "outbox, "
        "alarm"
    )
