"""Events that an operator has set aside.

Written as SQL, and never changed again: what `persistence.tables` says later is reached by later revisions.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE set_aside_event (
            partition SMALLINT NOT NULL,
            epoch BIGINT NOT NULL,
            seq BIGINT NOT NULL,
            fields TEXT NOT NULL,
            stopped TEXT NOT NULL,
            reason TEXT NOT NULL,
            set_aside_by TEXT NOT NULL,
            set_aside_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT set_aside_event_pkey PRIMARY KEY (partition, epoch, seq)
        )
        """
    )


def downgrade() -> None:
    """Drop it: what was set aside is lost for good."""
    op.execute("DROP TABLE set_aside_event")
