"""The states of orders, payments, coupons and reservations, and which script takes one into another.

`test_transitions` drives every script in every state and finds these transitions and no others; `tests.tidy.diagrams`
draws them.
"""

from dataclasses import dataclass

NONE = "[*]"


@dataclass(frozen=True, slots=True, order=True)
class Transition:
    """A script that ran in one state and left another; ``why`` is the status it answered."""

    before: str
    script: str
    why: str
    after: str


def _of(text: str) -> frozenset[Transition]:
    return frozenset(Transition(*line.split()) for line in text.strip().splitlines())


ORDER = _of("""
[*]               place_order     placed                 awaiting_payment
[*]               checkout_order  completed              completed
[*]               checkout_order  insufficient_balance   failed
[*]               void_order      voided                 void
awaiting_payment  pay_order       paid                   completed
awaiting_payment  pay_order       insufficient_balance   failed
awaiting_payment  pay_order       expired                failed
awaiting_payment  cancel_order    cancelled              failed
awaiting_payment  expire_order    expired                failed
awaiting_payment  fail_order      failed                 failed
""")

PAYMENT_OF_ORDER = {
    NONE: NONE, "awaiting_payment": "pending", "completed": "paid", "failed": "failed", "void": NONE,
}  # fmt: skip

COUPON = _of("""
[*]    grant_coupon    granted                free
free   place_order     placed                 taken
free   checkout_order  completed              used
taken  pay_order       paid                   used
taken  pay_order       insufficient_balance   free
taken  pay_order       expired                free
taken  cancel_order    cancelled              free
taken  expire_order    expired                free
taken  fail_order      failed                 free
""")

RESERVATION = _of("""
[*]       reserve_stock  reserved   held
[*]       adopt_stock    adopted    held
held      confirm_stock  confirmed  sold
held      release_stock  released   released
released  adopt_stock    adopted    held
""")


def payment() -> frozenset[Transition]:
    """A payment's, which follow from its order's."""
    state = PAYMENT_OF_ORDER
    moves = {Transition(state[each.before], each.script, each.why, state[each.after]) for each in ORDER}
    return frozenset(each for each in moves if each.before != each.after)
