"""Every problem that the HTTP surface answers (RFC 9457, `application/problem+json`): one registry, and the exception.

`raise Problem(OUT_OF_STOCK, "...", retryable=True, lines=shortages)` is the only way to refuse; the members that a
problem carries, its status and whether a repetition can help come from the registry, which also makes the schemas and
the pages.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson
from msgspec import Meta

from api import schemas
from api.schemas import Body

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 1
"""What `Retry-After` says unless the refusal knows better."""


_SEND_AGAIN: Final = "Send it again, with the same Idempotency-Key if it had one."
_READ_FIRST: Final = "Sent again without an Idempotency-Key it may act twice: first read what it would have changed."
_STANDARD_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "instance", "retryable", "request_id"})


class FieldError(Body, frozen=True, kw_only=True):
    """One thing that is wrong with a request, and where: `body.lines[0].quantity`, `query.limit`, `path.user_id`,
    `header.Idempotency-Key`."""

    location: Annotated[str, Meta(description="The part of the request, as in `body.lines[0].quantity`.")]
    message: Annotated[str, Meta(description="What is wrong with it, for a person.")]


class StockShortage(Body, frozen=True, kw_only=True):
    """A stock item of which less is available than was requested."""

    product_id: schemas.ProductId
    stock_id: schemas.StockId
    requested: schemas.Quantity
    available: schemas.Available


class Reference(Body, frozen=True, kw_only=True):
    """What a request named and nobody knows; the ids that do not apply are null."""

    kind: Annotated[Literal["product", "stock_item", "campaign"], Meta(description="What it should have been.")]
    product_id: schemas.ProductId | None
    stock_id: schemas.StockId | None
    campaign_id: schemas.CampaignId | None


class Retry(enum.Enum):
    """Whether the same request, sent again unchanged, may do better."""

    NO = "no"
    YES = "yes"
    IF_REPEATABLE = (
        "yes, where a repetition cannot act twice: a read, a request that repeats by its nature, or one with a key"
    )
    CASE = "as the answer says"


@dataclass(frozen=True, slots=True, eq=False)
class ProblemType:
    """A row of the registry, alike only to itself.

    `members` maps extra members to their types, `headers` are those that every such answer has, `headers_told` those
    whose value each case says. `is_effect`: it may have changed something itself, so a key gives it again, and
    `Prefer: durable` waits for it."""

    name: str
    title: str
    status: int
    retry: Retry
    meaning: str
    remedy: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_told: tuple[str, ...] = ()
    is_effect: bool = False

    def __post_init__(self) -> None:
        if taken := _STANDARD_MEMBERS & self.members.keys():
            raise ValueError(f"{self.name}: every problem has {sorted(taken)}; name the member otherwise")

    @property
    def uri(self) -> str:
        """What `type` says: a reference to the page about it."""
        return f"/problems/{self.name}"

    @property
    def struct_name(self) -> str:
        """The name of its schema: `OutOfStockProblem`."""
        return "".join(word.capitalize() for word in self.name.split("-")) + "Problem"


class Problem(Exception):
    """A refusal on its way to the client.

    `members` must be exactly the registry's; `retryable` is given exactly where the registry leaves it to the case;
    `headers` add to the registry's. ValueError otherwise.
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        retryable: bool | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        if members.keys() != kind.members.keys():
            raise ValueError(f"{kind.name} takes the members {sorted(kind.members)}, not {sorted(members)}")
        if (retryable is None) is (kind.retry is Retry.CASE):
            raise ValueError(f"{kind.name} is retryable: {kind.retry.value}; this was made with {retryable}")
        super().__init__(kind.name, detail)
        self.kind = kind
        self.detail = detail
        self.members = members
        self.headers = {**kind.headers, **headers} if headers else kind.headers
        self._retryable = retryable

    def retryable(self, *, repeatable: bool) -> bool:
        """Whether the same request may be sent again; `repeatable`: a repetition of this request cannot act twice."""
        match self.kind.retry:
            case Retry.NO:
                return False
            case Retry.YES:
                return True
            case Retry.IF_REPEATABLE:
                return repeatable
            case Retry.CASE:
                return bool(self._retryable)

    def with_header(self, name: str, value: str) -> Problem:
        """The same refusal, made anew, with one more header."""
        headers = {**self.headers, name: value}
        return Problem(self.kind, self.detail, retryable=self._retryable, headers=headers, **self.members)

    def encode(self, *, request_id: str, repeatable: bool) -> bytes:
        """The body of the answer; where nobody knows what became of the request, it says how to find out."""
        kind = self.kind
        detail = self.detail
        if kind.retry is Retry.IF_REPEATABLE:
            detail = f"{detail} {_SEND_AGAIN if repeatable else _READ_FIRST}"
        return orjson.dumps(
            {
                "type": kind.uri,
                "title": kind.title,
                "status": kind.status,
                "detail": detail,
                "retryable": self.retryable(repeatable=repeatable),
                "request_id": request_id,
                **self.members,
            },
            default=msgspec.to_builtins,
        )


_RETRY_AFTER: Final = MappingProxyType({"Retry-After": str(RETRY_AFTER_SECONDS)})
# The rest of such a request is never read, so the connection cannot serve another one.
_CLOSE: Final = MappingProxyType({"Connection": "close"})
_NOTHING_CHANGED: Final = "Nothing was changed."
_FIND_OUT: Final = "Repeat the request with the same key; without one, first read what it would have changed."

MALFORMED_BODY: Final = ProblemType(
    "malformed-body",
    "The body is not JSON",
    400,
    Retry.NO,
    "The body is not one JSON value in UTF-8: empty, cut off, too deeply nested, with a member twice or with NaN.",
    "Send JSON as RFC 8259 has it.",
)
NOT_AUTHENTICATED: Final = ProblemType(
    "not-authenticated",
    "Authentication required",
    401,
    Retry.NO,
    "The request carries no valid bearer token; `detail` says what is wrong with the one that it carries.",
    "Send `Authorization: Bearer <JWT>` with a token that has not expired.",
    headers=MappingProxyType({"WWW-Authenticate": "Bearer"}),
)
NOT_ALLOWED: Final = ProblemType(
    "not-allowed",
    "Not with this token",
    403,
    Retry.NO,
    "The token is valid, but its scope does not hold `admin`, which this operation needs.",
    "Use a token whose scope holds `admin`.",
    headers=MappingProxyType({"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="admin"'}),
)
INSUFFICIENT_BALANCE: Final = ProblemType(
    "insufficient-balance",
    "The balance is too small",
    402,
    Retry.NO,
    "The balance does not cover the order's total. The order is failed; its stock and its coupon are given back.",
    "Charge the balance and order again, under a new key: the old one keeps giving this answer.",
    {"order_id": schemas.OrderId, "balance": schemas.Amount, "total": schemas.Amount},
    is_effect=True,
)
NOT_FOUND: Final = ProblemType(
    "not-found",
    "There is no such thing",
    404,
    Retry.NO,
    "Nothing is known under this address, or it belongs to another user than the token's.",
    "Check the address and its ids, and whose token it is.",
)
METHOD_NOT_ALLOWED: Final = ProblemType(
    "method-not-allowed",
    "Not with this method",
    405,
    Retry.NO,
    "The address exists, but not with this method.",
    "Use one of the methods that the header `Allow` lists.",
    headers_told=("Allow",),
)
NOT_ACCEPTABLE: Final = ProblemType(
    "not-acceptable",
    "Only JSON is spoken here",
    406,
    Retry.NO,
    "The header `Accept` excludes `application/json`.",
    "Accept `application/json`, or leave the header out.",
)
REQUEST_TIMEOUT: Final = ProblemType(
    "request-timeout",
    "The request did not arrive in time",
    408,
    Retry.YES,
    f"The headers or the body were not complete within the time for receiving them. {_NOTHING_CHANGED}",
    "Send the request again.",
    headers=_CLOSE,
)
BALANCE_LIMIT: Final = ProblemType(
    "balance-limit",
    "The balance would grow too large",
    409,
    Retry.NO,
    f"The charge would take the balance past the policy's maximum. {_NOTHING_CHANGED}",
    "Charge less, at most `maximum - balance`.",
    {"balance": schemas.Amount, "maximum": schemas.Amount},
)
OUT_OF_STOCK: Final = ProblemType(
    "out-of-stock",
    "Not enough is left",
    409,
    Retry.CASE,
    "Of the lines listed less is available than was requested; nothing is held. It is retryable when the rest is only "
    "held by orders that are not yet paid and may still give it back.",
    "Order no more than what is available, or the same again later where it is retryable.",
    {"lines": list[StockShortage]},
)
ORDER_IN_PROGRESS: Final = ProblemType(
    "order-in-progress",
    "One order at a time",
    409,
    Retry.NO,
    f"The user has an order that awaits its payment. {_NOTHING_CHANGED}",
    "Pay or cancel the order named, or wait until it expires at `pay_before`.",
    {"order_id": schemas.OrderId, "pay_before": schemas.Time},
)
ORDER_NOT_PAYABLE: Final = ProblemType(
    "order-not-payable",
    "The order cannot be paid any more",
    409,
    Retry.NO,
    f"The order is failed: it was cancelled, has expired or lacked balance. {_NOTHING_CHANGED}",
    "Order again.",
    {"order_id": schemas.OrderId, "order_status": schemas.OrderStatus, "failure": schemas.PaymentFailure | None},
    is_effect=True,
)
ORDER_NOT_CANCELLABLE: Final = ProblemType(
    "order-not-cancellable",
    "The order cannot be cancelled any more",
    409,
    Retry.NO,
    f"The order is completed, or it failed otherwise. {_NOTHING_CHANGED}",
    "Read the order to see what became of it.",
    {"order_id": schemas.OrderId, "order_status": schemas.OrderStatus, "failure": schemas.PaymentFailure | None},
)
COUPON_NOT_VALID: Final = ProblemType(
    "coupon-not-valid",
    "The coupon does not apply",
    409,
    Retry.NO,
    "The coupon is unknown, taken by another order, used, expired or not yet valid, or the order is too small for it, "
    f"or what it takes off is below the policy's minimum. {_NOTHING_CHANGED}",
    "Order without the coupon, or meet the condition that `reason` names.",
    {"coupon_id": schemas.CouponId, "reason": schemas.CouponRefusal},
)
CAMPAIGN_NOT_OPEN: Final = ProblemType(
    "campaign-not-open",
    "The campaign is not open",
    409,
    Retry.CASE,
    "The campaign has not begun (then it is retryable) or is over.",
    "Ask between `opens_at` and `closes_at`.",
    {"opens_at": schemas.Time, "closes_at": schemas.Time},
)
COUPONS_EXHAUSTED: Final = ProblemType(
    "coupons-exhausted",
    "All coupons are gone",
    409,
    Retry.NO,
    "As many users came first as there were coupons.",
    "Nothing: what is issued does not come back.",
    {"quantity": Annotated[schemas.Count, Meta(description="How many coupons there were.")]},
)
COUPON_ALREADY_ISSUED: Final = ProblemType(
    "coupon-already-issued",
    "One coupon per user",
    409,
    Retry.NO,
    "The user has a coupon of this campaign already.",
    "Use the coupon named.",
    {"coupon_id": schemas.CouponId},
)
STOCK_LIMIT: Final = ProblemType(
    "stock-limit",
    "The stock cannot become that",
    409,
    Retry.NO,
    f"The adjustment would take what is available below zero or past the largest count. {_NOTHING_CHANGED}",
    "Take away at most what is available.",
    {"available": schemas.Available},
)
QUANTITY_BELOW_ISSUED: Final = ProblemType(
    "quantity-below-issued",
    "More is issued already",
    409,
    Retry.NO,
    f"The campaign has issued more coupons than the quantity asked for. {_NOTHING_CHANGED}",
    "Set a quantity of at least `issued`.",
    {"issued": Annotated[schemas.Count, Meta(description="How many coupons are issued.")]},
)
REQUEST_IN_PROGRESS: Final = ProblemType(
    "request-in-progress",
    "The first request with this key is under way",
    409,
    Retry.YES,
    "A request with the same `Idempotency-Key` has not been answered yet.",
    "Send it again with the same key after `Retry-After` seconds: it gives the first one's answer.",
    headers=_RETRY_AFTER,
)
BODY_TOO_LARGE: Final = ProblemType(
    "body-too-large",
    "The body is too large",
    413,
    Retry.NO,
    "The body has more bytes than are read here.",
    "Send at most `limit` bytes.",
    {"limit": Annotated[schemas.PositiveCount, Meta(description="The most bytes that are read.")]},
    _CLOSE,
)
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(
    "unsupported-media-type",
    "Only JSON is read here",
    415,
    Retry.NO,
    "The body is not declared as `application/json` in UTF-8 without a content encoding.",
    "Send `Content-Type: application/json`.",
)
INVALID_REQUEST: Final = ProblemType(
    "invalid-request",
    "The request is not as specified",
    422,
    Retry.NO,
    "A field, a parameter, an id or a header is unknown, missing, of the wrong type or outside its limits.",
    "Fix what `errors` names and ask again: it is the first fault that was found, and more may follow. The "
    "specification is at `/openapi.json`.",
    {
        "errors": Annotated[
            list[FieldError],
            Meta(min_length=1, description="The first fault that was found; where it is mended, others may follow."),
        ]
    },
)
UNKNOWN_REFERENCE: Final = ProblemType(
    "unknown-reference",
    "The request names something unknown",
    422,
    Retry.NO,
    "A product, a stock item or a campaign that the body names does not exist.",
    "Take ids from the product list and the campaign list.",
    {"references": Annotated[list[Reference], Meta(min_length=1)]},
)
STOCK_ID_REQUIRED: Final = ProblemType(
    "stock-id-required",
    "Stock item required",
    422,
    Retry.NO,
    "A line names a product with several stock items, but none of these.",
    "Name one of the product's stock items as `stock_id`.",
    {"product_id": schemas.ProductId},
)
LINE_LIMIT: Final = ProblemType(
    "line-limit",
    "The order is too large",
    422,
    Retry.NO,
    "The order has more lines, or a line has a larger quantity (after adding up), than the policy allows.",
    "Split the order.",
    {
        "limit": Annotated[Literal["lines", "quantity"], Meta(description="Which of the two was passed.")],
        "requested": Annotated[schemas.PositiveCount, Meta(description="How much was asked for, after adding up.")],
        "maximum": Annotated[schemas.PositiveCount, Meta(description="How much there may be.")],
        "product_id": schemas.ProductId | None,
        "stock_id": schemas.StockId | None,
    },
)
CHARGE_LIMIT: Final = ProblemType(
    "charge-limit",
    "The amount is outside the limits",
    422,
    Retry.NO,
    "A charge is at least the policy's minimum and at most its maximum.",
    "Charge an amount from `minimum` to `maximum`.",
    {"minimum": schemas.Amount, "maximum": schemas.Amount},
)
PAYMENT_LIMIT: Final = ProblemType(
    "payment-limit",
    "The total is too large",
    422,
    Retry.NO,
    f"The order's total is past the policy's maximum payment. {_NOTHING_CHANGED}",
    "Split the order.",
    {"total": schemas.Amount, "maximum": schemas.Amount},
)
IDEMPOTENCY_KEY_REUSED: Final = ProblemType(
    "idempotency-key-reused",
    "The key belongs to another request",
    422,
    Retry.NO,
    "The user has sent a different request with this `Idempotency-Key` before.",
    "Make a new key for each new request.",
)
TOO_MANY_REQUESTS: Final = ProblemType(
    "too-many-requests",
    "Too many requests",
    429,
    Retry.YES,
    f"This user or address sends more requests than are allowed. {_NOTHING_CHANGED}",
    "Wait for `Retry-After` seconds.",
    headers=_RETRY_AFTER,
)
INTERNAL_ERROR: Final = ProblemType(
    "internal-error",
    "Something went wrong here",
    500,
    Retry.IF_REPEATABLE,
    "The server failed in a way that it should not. Whether a change took effect is not known.",
    f"{_FIND_OUT} Tell the operators the `request_id`.",
)
OVERLOADED: Final = ProblemType(
    "overloaded",
    "Too much is under way",
    503,
    Retry.YES,
    "More is under way than can be decided in time: more requests or events wait than are let in, or this order waited "
    "for too long. Nothing was changed, or it is given back.",
    "Wait for `Retry-After` seconds and send the request again.",
    headers=_RETRY_AFTER,
)
RECOVERING: Final = ProblemType(
    "recovering",
    "This part of the shop cannot decide now",
    503,
    Retry.YES,
    "Its Redis server does not answer, or was restarted or replaced; then what it holds is checked against PostgreSQL "
    "before it serves again. What this request had begun is finished or undone by itself.",
    "Wait for `Retry-After` seconds and send the request again.",
    headers=_RETRY_AFTER,
)
HISTORY_UNAVAILABLE: Final = ProblemType(
    "history-unavailable",
    "The history cannot be read now",
    503,
    Retry.YES,
    "PostgreSQL, where histories are read, does not answer. Ordering and paying go on.",
    "Wait for `Retry-After` seconds and send the request again.",
    headers=_RETRY_AFTER,
)
OUTCOME_UNKNOWN: Final = ProblemType(
    "outcome-unknown",
    "The outcome is not known",
    504,
    Retry.IF_REPEATABLE,
    "A server did not answer in time; the change may or may not have taken effect.",
    f"{_FIND_OUT} Where an order is named, read that.",
    {"order_id": schemas.OrderId | None},
)

_ALL: Final[Sequence[ProblemType]] = (
    MALFORMED_BODY,
    NOT_AUTHENTICATED,
    NOT_ALLOWED,
    INSUFFICIENT_BALANCE,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    REQUEST_TIMEOUT,
    BALANCE_LIMIT,
    OUT_OF_STOCK,
    ORDER_IN_PROGRESS,
    ORDER_NOT_PAYABLE,
    ORDER_NOT_CANCELLABLE,
    COUPON_NOT_VALID,
    CAMPAIGN_NOT_OPEN,
    COUPONS_EXHAUSTED,
    COUPON_ALREADY_ISSUED,
    STOCK_LIMIT,
    QUANTITY_BELOW_ISSUED,
    REQUEST_IN_PROGRESS,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    INVALID_REQUEST,
    UNKNOWN_REFERENCE,
    STOCK_ID_REQUIRED,
    LINE_LIMIT,
    CHARGE_LIMIT,
    PAYMENT_LIMIT,
    IDEMPOTENCY_KEY_REUSED,
    TOO_MANY_REQUESTS,
    INTERNAL_ERROR,
    OVERLOADED,
    RECOVERING,
    HISTORY_UNAVAILABLE,
    OUTCOME_UNKNOWN,
)
PROBLEMS: Final[Mapping[str, ProblemType]] = MappingProxyType({kind.name: kind for kind in _ALL})
"""The registry by name."""


def invalid_request(location: str, message: str) -> Problem:
    """The refusal of one wrong thing: `location` as `FieldError` has it."""
    return Problem(INVALID_REQUEST, f"{location}: {message}", errors=[FieldError(location=location, message=message)])


def body_struct(kind: ProblemType) -> type[msgspec.Struct]:
    """The schema of a problem's body as a struct; its `type` and `status` are constants."""
    fields: list[tuple[str, Any]] = [
        ("type", Annotated[Literal[kind.uri], Meta(description="Which problem: leads to the page about it.")]),
        ("title", Annotated[str, Meta(description="What it is called; the same each time.")]),
        ("status", Annotated[Literal[kind.status], Meta(description="The status of the answer.")]),
        ("detail", Annotated[str, Meta(description="What went wrong this time, for a person.")]),
        ("retryable", Annotated[bool, Meta(description=f"Whether to repeat the request: {kind.retry.value}.")]),
        ("request_id", Annotated[str, Meta(description="The request's id, as in the header `X-Request-Id`.")]),
        *kind.members.items(),
    ]
    return msgspec.defstruct(
        kind.struct_name, fields, module=__name__, namespace={"__doc__": kind.meaning}, frozen=True, kw_only=True
    )
