"""Which request a paid order is of.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column; orders that were paid before have none."""
    op.execute("ALTER TABLE outbox ADD COLUMN request_id text")


def downgrade() -> None:
    """As it was."""
    op.execute("ALTER TABLE outbox DROP COLUMN request_id")
