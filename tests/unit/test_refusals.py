from typing import get_args

import pytest

from api.refusals import translate
from api.schemas import CouponRefusal
from engine import errors


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errors.Unavailable("redis://10.0.0.7:6379: connection refused. Check FIRSTCOME_REDIS_URL."), "recovering"),
        (errors.Recovering("the partition is not trusted yet"), "recovering"),
        (errors.Overloaded(), "overloaded"),
        (errors.WriterBehind(), "overloaded"),
        (errors.TookTooLong(), "overloaded"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_cannot_be_decided_now_may_be_asked_again(error: Exception, name: str) -> None:
    problem = translate(error)
    assert problem is not None
    assert (problem.kind.name, problem.kind.status) == (name, 503)
    assert problem.retryable(repeatable=False)
    assert problem.headers["Retry-After"]


def test_clients_are_told_neither_addresses_nor_settings() -> None:
    problem = translate(errors.Unavailable("redis://10.0.0.7:6379: connection refused. Check FIRSTCOME_REDIS_URL."))
    assert problem is not None
    assert problem.detail == "Redis does not answer now."


def test_an_order_that_took_too_long_is_not_blamed_on_a_recovery() -> None:
    problem = translate(errors.TookTooLong())
    assert problem is not None
    assert "in time" in problem.detail


def test_what_nobody_foresaw_has_no_problem_of_its_own() -> None:
    assert translate(ZeroDivisionError()) is None


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (errors.NotFound(), "There is no such thing."),
        (errors.NotFound("there is no product tea"), "There is no product tea."),
        (errors.NotFound("user zoe has no order o-1"), "User zoe has no order o-1."),
        (errors.OrderNotPayable("o-1", "failed", "expired"), "Order o-1 has failed: expired."),
        (errors.OrderNotCancellable("o-1", "failed", "stock_lost"), "Order o-1 has failed: stock_lost."),
        (errors.OrderNotCancellable("o-1", "completed", None), "Order o-1 is completed."),
        (
            errors.OrderInProgress("o-1", 1_772_445_600_000),
            "Order o-1 awaits its payment until 2026-03-02T10:00:00.000Z. Pay or cancel it, then order again.",
        ),
        (
            errors.IdempotencyKeyReused(),
            "This Idempotency-Key belongs to another request. Take a new key for a new request.",
        ),
        (
            errors.InsufficientBalance("o-1", 50, 91, positions=()),
            "The balance is 50, the total 91: 41 too little. The order is failed; what it held is given back. "
            "Charge the balance, then order again under a new key.",
        ),
        # Charged between the refusal and the reading of the balance.
        (
            errors.InsufficientBalance("o-1", 95, 91, positions=()),
            "The balance is 95, the total 91. The order is failed; what it held is given back. "
            "Charge the balance, then order again under a new key.",
        ),
    ],
)
def test_a_refusal_is_a_sentence_and_says_what_to_do(error: Exception, detail: str) -> None:
    problem = translate(error)
    assert problem is not None
    assert problem.detail == detail


@pytest.mark.parametrize(
    ("order_id", "detail"),
    [
        (None, "No answer came in time; the change may or may not have taken effect."),
        ("o-1", "No answer came in time; the change may or may not have taken effect: reading order o-1 tells."),
    ],
)
def test_an_unknown_outcome_names_the_order_that_tells(order_id: str | None, detail: str) -> None:
    error = errors.OutcomeUnknown("no reply")
    error.order_id = order_id
    problem = translate(error)
    assert problem is not None
    assert problem.detail == detail


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        (
            "unknown",
            "This user has no coupon kim-1. Name one that the user's list of coupons has, or order without one.",
        ),
        (
            "taken",
            "Another order has taken coupon kim-1 and is not paid. Cancel that order, or order without the coupon.",
        ),
        ("used", "Coupon kim-1 has paid for an earlier order, and one is used once. Order without it."),
        ("expired", "Coupon kim-1 is past its `valid_until`. Order without it."),
        ("not_started", "Coupon kim-1 is not valid yet. Order from its `valid_from` on, or without it."),
        (
            "minimum_order",
            "The subtotal of 900 is below the `minimum_order` of coupon kim-1, which reading the coupon tells. "
            "Order for more, or without the coupon.",
        ),
        (
            "minimum_discount",
            "Of a subtotal of 900 coupon kim-1 takes off less than 10, the least that a coupon may. "
            "Order for more, or without the coupon.",
        ),
    ],
)
def test_each_reason_why_a_coupon_is_refused_says_what_to_do(reason: str, detail: str) -> None:
    problem = translate(errors.CouponNotValid("kim-1", reason, subtotal=900, discount_min=10))
    assert problem is not None
    assert problem.detail == detail
    assert problem.members == {"coupon_id": "kim-1", "reason": reason}


def test_every_reason_why_a_coupon_is_refused_has_its_sentence() -> None:
    reasons = get_args(get_args(CouponRefusal)[0])
    assert len(reasons) == 7
    for reason in reasons:
        assert translate(errors.CouponNotValid("kim-1", reason, subtotal=900, discount_min=10)) is not None
