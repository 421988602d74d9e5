"""A user's last order beside the balance: which of two orders of one millisecond came last is known when it is placed.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, filled from the orders there are."""
    op.execute("ALTER TABLE wallet ADD COLUMN last_order UUID")
    op.execute(
        """
        UPDATE wallet SET last_order = latest.order_id
        FROM (SELECT DISTINCT ON (user_id) user_id, order_id FROM orders
              WHERE status <> 'void' ORDER BY user_id, ordered_at DESC, order_id DESC) latest
        WHERE wallet.user_id = latest.user_id
        """
    )


def downgrade() -> None:
    """Drop the column: it can be made of the orders."""
    op.execute("ALTER TABLE wallet DROP COLUMN last_order")
