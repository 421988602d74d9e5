"""Find what the data platform never took, among all that it did.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index. Alarms about single dead deliveries are one about all of them from now on."""
    op.execute("CREATE INDEX outbox_dead_idx ON outbox (id) WHERE state = 'dead'")
    op.execute("UPDATE alarm SET cleared_at = now() WHERE kind = 'delivery_dead' AND cleared_at IS NULL")


def downgrade() -> None:
    """As it was."""
    op.execute("DROP INDEX outbox_dead_idx")
