"""Idempotency keys that were spent, for a day, so that a rebuilt Redis knows them.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE idempotency_key (
            partition SMALLINT NOT NULL,
            owner TEXT NOT NULL,
            key TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            result TEXT NOT NULL,
            place TEXT NOT NULL,
            spent_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
            CONSTRAINT idempotency_key_pkey PRIMARY KEY (partition, owner, key)
        )
        """
    )
    op.execute("CREATE INDEX idempotency_key_spent_idx ON idempotency_key (spent_at)")
    op.execute("ALTER TABLE outbox ADD COLUMN replay_key TEXT")


def downgrade() -> None:
    """Drop it: keys that are not spent in Redis too act anew."""
    op.execute("ALTER TABLE outbox DROP COLUMN replay_key")
    op.execute("DROP TABLE idempotency_key")
