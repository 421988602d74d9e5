"""Find what is settled in the order in which it ended, to let it leave Redis; vacuum what grows little by little.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CHANGING = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05"
_ADDED_TO = "autovacuum_vacuum_insert_scale_factor = 0.05"
_OPTIONS = {
    "wallet": "fillfactor = 85",
    "stock_item": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05",
    "coupon": f"fillfactor = 85, {_CHANGING}",
    "discount": f"fillfactor = 85, {_CHANGING}",
    "orders": _CHANGING,
    "reservation": _CHANGING,
    "outbox": _CHANGING,
    "ledger_entry": _ADDED_TO,
    "order_line": _ADDED_TO,
    "coupon_issue": _ADDED_TO,
}
_BEFORE = {"stock_item": "fillfactor = 70"}


def upgrade() -> None:
    """Make the indexes, and set how full pages are filled and when vacuum comes."""
    # An order's reservations are looked for in every partition; and ids come in the order of time, so that new ones
    # stand at one edge of the index.
    op.execute("ALTER TABLE reservation DROP CONSTRAINT reservation_pkey, ADD PRIMARY KEY (order_id, partition)")
    op.execute(
        "CREATE INDEX reservation_finished_idx ON reservation (partition, finished_at, order_id) WHERE state <> 'held'"
    )
    op.execute("CREATE INDEX coupon_valid_until_idx ON coupon (partition, valid_until, coupon_id)")
    for table, options in _OPTIONS.items():
        op.execute(f"ALTER TABLE {table} SET ({options})")


def downgrade() -> None:
    """As it was."""
    for table, options in _OPTIONS.items():
        names = ", ".join(option.partition(" = ")[0] for option in options.split(", "))
        op.execute(f"ALTER TABLE {table} RESET ({names})")
    for table, options in _BEFORE.items():
        op.execute(f"ALTER TABLE {table} SET ({options})")
    op.execute("DROP INDEX coupon_valid_until_idx")
    op.execute("DROP INDEX reservation_finished_idx")
    op.execute("ALTER TABLE reservation DROP CONSTRAINT reservation_pkey, ADD PRIMARY KEY (partition, order_id)")
