"""Find the coupons of the last minutes without reading all of them, when a recovery reconciles."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index: a few pages, however many coupons there are."""
    op.execute("CREATE INDEX coupon_issued_at_idx ON coupon USING brin (issued_at)")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP INDEX coupon_issued_at_idx")
