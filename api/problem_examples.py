"""Named examples of every problem, from the shop of `api.examples`; made of the registry's own members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api import problems
from api.examples import COUPON_ID, ORDER_ID
from api.problems import FieldError, Problem, Reference, StockShortage
from api.request_bodies import BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class ProblemExample:
    """A problem as it may look; `name` begins with the problem's own."""

    name: str
    summary: str
    problem: Problem


_PROBLEM_EXAMPLES: Final = (
    ProblemExample(
        "malformed-body",
        "A body that is cut off",
        Problem(problems.MALFORMED_BODY, "The body is not JSON: Input data was truncated."),
    ),
    ProblemExample(
        "not-authenticated",
        "No token",
        Problem(
            problems.NOT_AUTHENTICATED,
            "A bearer token is required: send `Authorization: Bearer <JWT>`. `firstcome token` makes one for "
            "development.",
        ),
    ),
    ProblemExample(
        "not-authenticated-expired",
        "A token that has expired",
        Problem(
            problems.NOT_AUTHENTICATED,
            "The token has expired.",
            headers={
                "WWW-Authenticate": 'Bearer error="invalid_token", error_description="The token has expired"',
            },
        ),
    ),
    ProblemExample(
        "not-allowed",
        "A user's token",
        Problem(problems.NOT_ALLOWED, "This needs a token whose scope holds `admin`."),
    ),
    ProblemExample(
        "insufficient-balance",
        "The balance is 4,000 short",
        Problem(
            problems.INSUFFICIENT_BALANCE,
            "The balance is 50000, the total 54000: 4000 too little. The order is failed; what it held is given back. "
            "Charge the balance, then order again under a new key.",
            order_id=ORDER_ID,
            balance=50_000,
            total=54_000,
        ),
    ),
    ProblemExample("not-found", "An unknown id", Problem(problems.NOT_FOUND, "There is no such thing.")),
    ProblemExample(
        "method-not-allowed",
        "An address that is only read",
        Problem(problems.METHOD_NOT_ALLOWED, "This address takes GET, HEAD.", headers={"Allow": "GET, HEAD"}),
    ),
    ProblemExample(
        "not-acceptable",
        "Only XML is accepted",
        Problem(problems.NOT_ACCEPTABLE, "This address answers application/json only."),
    ),
    ProblemExample(
        "request-timeout",
        "A body that did not arrive",
        Problem(problems.REQUEST_TIMEOUT, "The body was not complete after 10 seconds."),
    ),
    ProblemExample(
        "balance-limit",
        "The balance would pass its maximum",
        Problem(
            problems.BALANCE_LIMIT,
            "The balance is 99950000 and may become 100000000 at most.",
            balance=99_950_000,
            maximum=100_000_000,
        ),
    ),
    ProblemExample(
        "out-of-stock",
        "Sold out",
        Problem(
            problems.OUT_OF_STOCK,
            "Less is available than was requested.",
            retryable=False,
            lines=[StockShortage(product_id="limited-sneakers", stock_id="260", requested=1, available=0)],
        ),
    ),
    ProblemExample(
        "out-of-stock-held",
        "The rest is held by orders not yet paid",
        Problem(
            problems.OUT_OF_STOCK,
            "Less is available than was requested; what others hold may come back.",
            retryable=True,
            lines=[StockShortage(product_id="t-shirt", stock_id="L", requested=5, available=3)],
        ),
    ),
    ProblemExample(
        "order-in-progress",
        "Another order awaits its payment",
        Problem(
            problems.ORDER_IN_PROGRESS,
            f"Order {ORDER_ID} awaits its payment until 2026-03-03T10:05:00.120Z. Pay or cancel it, then order again.",
            order_id=ORDER_ID,
            pay_before="2026-03-03T10:05:00.120Z",
        ),
    ),
    ProblemExample(
        "order-not-payable",
        "The order has expired",
        Problem(
            problems.ORDER_NOT_PAYABLE,
            f"Order {ORDER_ID} has failed: expired.",
            order_id=ORDER_ID,
            order_status="failed",
            failure="expired",
        ),
    ),
    ProblemExample(
        "order-not-cancellable",
        "The order is completed",
        Problem(
            problems.ORDER_NOT_CANCELLABLE,
            f"Order {ORDER_ID} is completed.",
            order_id=ORDER_ID,
            order_status="completed",
            failure=None,
        ),
    ),
    ProblemExample(
        "coupon-not-valid",
        "The coupon is used",
        Problem(
            problems.COUPON_NOT_VALID,
            f"Coupon {COUPON_ID} has paid for an earlier order, and one is used once. Order without it.",
            coupon_id=COUPON_ID,
            reason="used",
        ),
    ),
    ProblemExample(
        "coupon-not-valid-minimum-order",
        "The order is too small for the coupon",
        Problem(
            problems.COUPON_NOT_VALID,
            f"The subtotal of 9000 is below the `minimum_order` of coupon {COUPON_ID}, which reading the coupon "
            "tells. Order for more, or without the coupon.",
            coupon_id=COUPON_ID,
            reason="minimum_order",
        ),
    ),
    ProblemExample(
        "campaign-not-open",
        "The campaign is over",
        Problem(
            problems.CAMPAIGN_NOT_OPEN,
            "The campaign is over.",
            retryable=False,
            opens_at="2026-03-02T10:00:00.000Z",
            closes_at="2026-03-09T15:00:00.000Z",
        ),
    ),
    ProblemExample(
        "campaign-not-open-upcoming",
        "The campaign has not begun",
        Problem(
            problems.CAMPAIGN_NOT_OPEN,
            "The campaign has not begun.",
            retryable=True,
            opens_at="2026-06-01T00:00:00.000Z",
            closes_at="2026-06-30T15:00:00.000Z",
        ),
    ),
    ProblemExample(
        "coupons-exhausted",
        "All 1,000 are gone",
        Problem(problems.COUPONS_EXHAUSTED, "All coupons of this campaign are gone.", quantity=1_000),
    ),
    ProblemExample(
        "coupon-already-issued",
        "The user has one",
        Problem(problems.COUPON_ALREADY_ISSUED, "The user has a coupon of this campaign.", coupon_id=COUPON_ID),
    ),
    ProblemExample(
        "stock-limit",
        "More would go than is there",
        Problem(problems.STOCK_LIMIT, "Only 154 units can be taken away.", available=154),
    ),
    ProblemExample(
        "quantity-below-issued",
        "Seven are issued",
        Problem(problems.QUANTITY_BELOW_ISSUED, "7 coupons are issued already.", issued=7),
    ),
    ProblemExample(
        "request-in-progress",
        "The first one is not answered yet",
        Problem(problems.REQUEST_IN_PROGRESS, "The first request with this key is under way."),
    ),
    ProblemExample(
        "body-too-large",
        f"More than {BODY_BYTES_MAX // 1024} KiB",
        Problem(problems.BODY_TOO_LARGE, f"The body has more than {BODY_BYTES_MAX} bytes.", limit=BODY_BYTES_MAX),
    ),
    ProblemExample(
        "unsupported-media-type",
        "A form instead of JSON",
        Problem(
            problems.UNSUPPORTED_MEDIA_TYPE,
            "The header Content-Type is `application/x-www-form-urlencoded`; send `application/json`.",
        ),
    ),
    ProblemExample(
        "invalid-request",
        "A field of the wrong type",
        Problem(
            problems.INVALID_REQUEST,
            "body.amount: Expected `integer`, got `string`",
            errors=[FieldError(location="body.amount", message="Expected `integer`, got `string`")],
        ),
    ),
    ProblemExample(
        "unknown-reference",
        "A size that the product does not have",
        Problem(
            problems.UNKNOWN_REFERENCE,
            "There is no stock item XXL of t-shirt.",
            references=[Reference(kind="stock_item", product_id="t-shirt", stock_id="XXL", campaign_id=None)],
        ),
    ),
    ProblemExample(
        "stock-id-required",
        "No size given",
        Problem(problems.STOCK_ID_REQUIRED, "t-shirt has several stock items; name one.", product_id="t-shirt"),
    ),
    ProblemExample(
        "line-limit",
        "Too many of one",
        Problem(
            problems.LINE_LIMIT,
            "A line may have a quantity of 100000 at most.",
            limit="quantity",
            requested=100_001,
            maximum=100_000,
            product_id="t-shirt",
            stock_id="M",
        ),
    ),
    ProblemExample(
        "charge-limit",
        "A negative charge",
        Problem(problems.CHARGE_LIMIT, "A charge is from 1 to 10000000.", minimum=1, maximum=10_000_000),
    ),
    ProblemExample(
        "payment-limit",
        "More than one payment may be",
        Problem(problems.PAYMENT_LIMIT, "A payment is 50000000 at most.", total=78_000_000, maximum=50_000_000),
    ),
    ProblemExample(
        "idempotency-key-reused",
        "Another amount under the same key",
        Problem(
            problems.IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key belongs to another request. Take a new key for a new request.",
        ),
    ),
    ProblemExample(
        "too-many-requests",
        "Slow down",
        Problem(problems.TOO_MANY_REQUESTS, "This user sends more requests than are allowed."),
    ),
    ProblemExample(
        "internal-error",
        "A bug here",
        Problem(problems.INTERNAL_ERROR, "The server failed; its log has the reason under this request's id."),
    ),
    ProblemExample("overloaded", "Too much is waiting", Problem(problems.OVERLOADED, "Too much is under way.")),
    ProblemExample(
        "recovering",
        "After a failover",
        Problem(problems.RECOVERING, "This part of the shop is being recovered.", headers={"Retry-After": "2"}),
    ),
    ProblemExample(
        "history-unavailable",
        "PostgreSQL is away",
        Problem(problems.HISTORY_UNAVAILABLE, "The history cannot be read now."),
    ),
    ProblemExample(
        "outcome-unknown",
        "Redis did not answer",
        Problem(
            problems.OUTCOME_UNKNOWN,
            f"No answer came in time; the change may or may not have taken effect: reading order {ORDER_ID} tells.",
            order_id=ORDER_ID,
        ),
    ),
)


def examples_of(problem: str) -> tuple[ProblemExample, ...]:
    """The examples of a problem, by its name."""
    return tuple(example for example in _PROBLEM_EXAMPLES if example.problem.kind.name == problem)
