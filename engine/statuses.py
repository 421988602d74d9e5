"""Every status that a script answers with."""

from enum import StrEnum


class Status(StrEnum):
    """First element of each script's reply. The head of the script says what follows it, and their precedence."""

    # The guard's, before anything else.
    UNVERIFIED = "unverified"
    STALE = "stale"
    OVERLOADED = "overloaded"

    # Idempotency keys.
    KEY_REUSED = "key_reused"
    REPLAYED = "replayed"
    KEY_IN_PROGRESS = "key_in_progress"
    RESUMED = "resumed"
    CLAIMED = "claimed"
    FREED = "freed"

    # Reads.
    READ = "read"

    # Wallet.
    BALANCE_LIMIT = "balance_limit"
    CHARGED = "charged"

    # Catalogue and stock.
    TOO_MANY_ITEMS = "too_many_items"
    CREATED = "created"
    UPDATED = "updated"
    UNKNOWN = "unknown"
    STOCK_LIMIT = "stock_limit"
    ADJUSTED = "adjusted"
    FINISHED = "finished"
    TOO_OLD = "too_old"
    UNKNOWN_REFERENCE = "unknown_reference"
    STOCK_ID_REQUIRED = "stock_id_required"
    QUANTITY_LIMIT = "quantity_limit"
    OUT_OF_STOCK = "out_of_stock"
    AVAILABLE = "available"
    RESERVED = "reserved"
    MISSING = "missing"
    SOLD = "sold"
    RELEASED = "released"
    CONFIRMED = "confirmed"

    # Orders and payments.
    EXISTS = "exists"
    ORDER_IN_PROGRESS = "order_in_progress"
    COUPON_NOT_VALID = "coupon_not_valid"
    PAYMENT_LIMIT = "payment_limit"
    PLACED = "placed"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    PAID = "paid"
    CANCELLED = "cancelled"
    NOT_DUE = "not_due"
    VOIDED = "voided"

    # Campaigns and coupons.
    QUANTITY_BELOW_ISSUED = "quantity_below_issued"
    ANSWERED = "answered"
    ALREADY_ISSUED = "already_issued"
    NOT_OPEN = "not_open"
    EXHAUSTED = "exhausted"
    ISSUED = "issued"
    ALREADY_GRANTED = "already_granted"
    GRANTED = "granted"

    # Eviction.
    EVICTED = "evicted"
    COLD = "cold"

    # Trust and durability.
    TRUSTED = "trusted"
    CHANGED = "changed"
    RAISED = "raised"
    MARKED = "marked"

    # Recovery.
    HELD = "held"
    BEGUN = "begun"
    LOADING = "loading"
    CLEARED = "cleared"
    LOADED = "loaded"
    ADOPTED = "adopted"


_BY_TEXT = {status.encode(): status for status in Status}


def status_of(text: bytes) -> Status:
    """The first element of a script's reply. Raises ``ValueError`` when no script answers so."""
    status = _BY_TEXT.get(text)
    if status is None:
        raise ValueError(f"{text!r} is no status of a script")
    return status
