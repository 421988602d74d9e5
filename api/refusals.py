"""From what the engine and the history raise to the problem that the client gets: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from api import problems
from api.problems import Problem, Reference, StockShortage
from api.request_faults import CURSOR_EXPECTED
from api.times import format_time
from engine import errors
from engine.policy import INTEGER_MAX
from persistence.history import HistoryUnavailable, InvalidCursor


def translate(error: Exception) -> Problem | None:
    """The problem for an error of the layers below; ``None`` for one that nobody foresaw (500)."""
    for kind in type(error).__mro__:
        make = _TABLE.get(kind)
        if make is not None:
            problem: Problem = make(error)
            return problem
    return None


def _not_found(error: errors.NotFound) -> Problem:
    # An error's reason goes on from its class's sentence; here it is one of its own.
    reason = error.reason or "There is no such thing"
    return Problem(problems.NOT_FOUND, f"{reason[0].upper()}{reason[1:]}.")


def _charge_limit(error: errors.ChargeLimit) -> Problem:
    return Problem(
        problems.CHARGE_LIMIT,
        f"A charge is from {error.minimum} to {error.maximum}.",
        minimum=error.minimum,
        maximum=error.maximum,
    )


def _balance_limit(error: errors.BalanceLimit) -> Problem:
    return Problem(
        problems.BALANCE_LIMIT,
        f"The balance is {error.balance} and may be at most {error.maximum}.",
        balance=error.balance,
        maximum=error.maximum,
    )


def _unit_price_limit(error: errors.UnitPriceLimit) -> Problem:
    return problems.invalid_request("body.price", f"Expected a price of at most {error.maximum}")


def _too_many_stock_items(error: errors.TooManyStockItems) -> Problem:
    message = f"The product would have {error.stock_items} stock items; {error.maximum} is the most"
    return problems.invalid_request("body.stock", message)


def _stock_limit(error: errors.StockLimit) -> Problem:
    return Problem(
        problems.STOCK_LIMIT,
        f"{error.available} units are available; the result would be below zero or too large.",
        available=error.available,
    )


def _unknown_reference(error: errors.UnknownReference) -> Problem:
    kind: Any = "stock_item" if error.stock_id else "product"
    named = (
        f"stock item {error.stock_id} of product {error.product_id}"
        if error.stock_id
        else f"product {error.product_id}"
    )
    reference = Reference(kind=kind, product_id=error.product_id, stock_id=error.stock_id, campaign_id=None)
    return Problem(problems.UNKNOWN_REFERENCE, f"There is no {named}.", references=[reference])


def _unknown_campaign(error: errors.UnknownCampaign) -> Problem:
    reference = Reference(kind="campaign", product_id=None, stock_id=None, campaign_id=error.campaign_id)
    return Problem(problems.UNKNOWN_REFERENCE, f"There is no campaign {error.campaign_id}.", references=[reference])


def _stock_id_required(error: errors.StockIdRequired) -> Problem:
    return Problem(
        problems.STOCK_ID_REQUIRED,
        f"Product {error.product_id} has several stock items; name one as `stock_id`.",
        product_id=error.product_id,
    )


def _line_limit(error: errors.LineLimit) -> Problem:
    if error.product_id is None:
        detail = f"The order has {error.requested} lines; {error.maximum} is the most."
    else:
        detail = f"{error.requested} units of product {error.product_id} are asked for; {error.maximum} is the most."
    return Problem(
        problems.LINE_LIMIT,
        detail,
        limit="lines" if error.product_id is None else "quantity",
        # Lines of one stock item add up, and their sum may be more than every JSON reader keeps exact.
        requested=min(error.requested, INTEGER_MAX),
        maximum=error.maximum,
        product_id=error.product_id,
        stock_id=error.stock_id,
    )


def _out_of_stock(error: errors.OutOfStock) -> Problem:
    shortages = [
        StockShortage(
            product_id=line.product_id, stock_id=line.stock_id, requested=line.requested, available=line.available
        )
        for line in error.lines
    ]
    held = " Orders in progress hold the rest, and may give it back." if error.only_held_by_others else ""
    return Problem(
        problems.OUT_OF_STOCK,
        f"{len(shortages)} of the lines cannot be had in full; nothing is held.{held}",
        retryable=error.only_held_by_others,
        lines=shortages,
    )


def _order_in_progress(error: errors.OrderInProgress) -> Problem:
    pay_before = format_time(error.pay_before_ms)
    return Problem(
        problems.ORDER_IN_PROGRESS,
        f"Order {error.order_id} awaits its payment until {pay_before}. Pay or cancel it, then order again.",
        order_id=error.order_id,
        pay_before=pay_before,
    )


_COUPON_REFUSALS: Final[Mapping[str, str]] = {
    "unknown": "This user has no coupon {id}. Name one that the user's list of coupons has, or order without one.",
    "taken": "Another order has taken coupon {id} and is not paid. Cancel that order, or order without the coupon.",
    "used": "Coupon {id} has paid for an earlier order, and one is used once. Order without it.",
    "expired": "Coupon {id} is past its `valid_until`. Order without it.",
    "not_started": "Coupon {id} is not valid yet. Order from its `valid_from` on, or without it.",
    "minimum_order": "The subtotal of {subtotal} is below the `minimum_order` of coupon {id}, which reading the coupon "
    "tells. Order for more, or without the coupon.",
    "minimum_discount": "Of a subtotal of {subtotal} coupon {id} takes off less than {least}, the least that a coupon "
    "may. Order for more, or without the coupon.",
}


def _coupon_not_valid(error: errors.CouponNotValid) -> Problem:
    return Problem(
        problems.COUPON_NOT_VALID,
        _COUPON_REFUSALS[error.why].format(id=error.coupon_id, subtotal=error.subtotal, least=error.discount_min),
        coupon_id=error.coupon_id,
        reason=error.why,
    )


def _payment_limit(error: errors.PaymentLimit) -> Problem:
    return Problem(
        problems.PAYMENT_LIMIT,
        f"The total is {error.total}; one payment may be at most {error.maximum}.",
        total=error.total,
        maximum=error.maximum,
    )


def _key_reused(_: errors.IdempotencyKeyReused) -> Problem:
    return Problem(
        problems.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key belongs to another request. Take a new key for a new request.",
    )


def _request_in_progress(_: errors.RequestInProgress) -> Problem:
    return Problem(problems.REQUEST_IN_PROGRESS, "The first request with this Idempotency-Key is under way.")


def _as_before(replayed: bool) -> Mapping[str, str]:
    return {"Idempotent-Replayed": "true"} if replayed else {}


def _insufficient_balance(error: errors.InsufficientBalance) -> Problem:
    # The balance may be one that was read later, when it had been charged already.
    missing = error.total - error.balance
    short = f": {missing} too little" if missing > 0 else ""
    return Problem(
        problems.INSUFFICIENT_BALANCE,
        f"The balance is {error.balance}, the total {error.total}{short}. The order is failed; what it held is given "
        "back. Charge the balance, then order again under a new key.",
        headers=_as_before(error.replayed),
        order_id=error.order_id,
        balance=error.balance,
        total=error.total,
    )


def _fate(error: errors.OrderNotPayable) -> str:
    became = f"has failed: {error.failure}" if error.failure else f"is {error.status}"
    return f"Order {error.order_id} {became}."


def _order_not_payable(error: errors.OrderNotPayable) -> Problem:
    return Problem(
        problems.ORDER_NOT_PAYABLE,
        _fate(error),
        headers=_as_before(error.replayed),
        order_id=error.order_id,
        order_status=error.status,
        failure=error.failure,
    )


def _order_not_cancellable(error: errors.OrderNotCancellable) -> Problem:
    return Problem(
        problems.ORDER_NOT_CANCELLABLE,
        _fate(error),
        order_id=error.order_id,
        order_status=error.status,
        failure=error.failure,
    )


def _campaign_not_open(error: errors.CampaignNotOpen) -> Problem:
    opens_at, closes_at = format_time(error.opens_at_ms), format_time(error.closes_at_ms)
    when = f"opens at {opens_at}" if error.upcoming else f"closed at {closes_at}"
    return Problem(
        problems.CAMPAIGN_NOT_OPEN,
        f"The campaign {when}.",
        retryable=error.upcoming,
        opens_at=opens_at,
        closes_at=closes_at,
    )


def _coupons_exhausted(error: errors.CouponsExhausted) -> Problem:
    return Problem(problems.COUPONS_EXHAUSTED, f"All {error.quantity} coupons are issued.", quantity=error.quantity)


def _coupon_already_issued(error: errors.CouponAlreadyIssued) -> Problem:
    return Problem(
        problems.COUPON_ALREADY_ISSUED,
        f"This user has coupon {error.coupon_id} of this campaign.",
        coupon_id=error.coupon_id,
    )


def _quantity_below_issued(error: errors.QuantityBelowIssued) -> Problem:
    return Problem(problems.QUANTITY_BELOW_ISSUED, f"{error.issued} coupons are issued already.", issued=error.issued)


def _overloaded(_: Exception) -> Problem:
    return Problem(problems.OVERLOADED, "More is waiting than is let in. Nothing was changed.")


def _took_too_long(_: Exception) -> Problem:
    return Problem(problems.OVERLOADED, "The order was not decided in time; nothing is on record, and nothing is held.")


def _recovering(error: errors.Recovering) -> Problem:
    why = f": {error.reason}" if error.reason else ""
    return Problem(problems.RECOVERING, f"This part of the shop cannot decide now{why}. Try again shortly.")


def _unavailable(_: errors.Unavailable) -> Problem:
    # The reason names addresses and settings; it is in the log, where the lane has put it.
    return Problem(problems.RECOVERING, "Redis does not answer now.")


def _outcome_unknown(error: errors.OutcomeUnknown) -> Problem:
    tells = f": reading order {error.order_id} tells" if error.order_id else ""
    return Problem(
        problems.OUTCOME_UNKNOWN,
        f"No answer came in time; the change may or may not have taken effect{tells}.",
        order_id=error.order_id,
    )


def _history_unavailable(_: Exception) -> Problem:
    return Problem(problems.HISTORY_UNAVAILABLE, "PostgreSQL does not answer; histories cannot be read now.")


def _invalid_cursor(_: Exception) -> Problem:
    return problems.invalid_request("query.cursor", CURSOR_EXPECTED)


_TABLE: Final[dict[type[BaseException], Callable[[Any], Problem]]] = {
    errors.NotFound: _not_found,
    errors.ChargeLimit: _charge_limit,
    errors.BalanceLimit: _balance_limit,
    errors.UnitPriceLimit: _unit_price_limit,
    errors.TooManyStockItems: _too_many_stock_items,
    errors.StockLimit: _stock_limit,
    errors.UnknownReference: _unknown_reference,
    errors.UnknownCampaign: _unknown_campaign,
    errors.StockIdRequired: _stock_id_required,
    errors.LineLimit: _line_limit,
    errors.OutOfStock: _out_of_stock,
    errors.OrderInProgress: _order_in_progress,
    errors.CouponNotValid: _coupon_not_valid,
    errors.PaymentLimit: _payment_limit,
    errors.IdempotencyKeyReused: _key_reused,
    errors.RequestInProgress: _request_in_progress,
    errors.InsufficientBalance: _insufficient_balance,
    errors.OrderNotPayable: _order_not_payable,
    errors.OrderNotCancellable: _order_not_cancellable,
    errors.CampaignNotOpen: _campaign_not_open,
    errors.CouponsExhausted: _coupons_exhausted,
    errors.CouponAlreadyIssued: _coupon_already_issued,
    errors.QuantityBelowIssued: _quantity_below_issued,
    errors.Overloaded: _overloaded,
    errors.WriterBehind: _overloaded,
    errors.TookTooLong: _took_too_long,
    errors.Unavailable: _unavailable,
    errors.Recovering: _recovering,
    errors.OutcomeUnknown: _outcome_unknown,
    HistoryUnavailable: _history_unavailable,
    InvalidCursor: _invalid_cursor,
}
