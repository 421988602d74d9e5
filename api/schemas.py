"""Every request and answer of the HTTP surface, as msgspec structs: the types that validate, encode and describe.

Amounts are integers in the currency's minor unit, counts are integers, all under 2^53. Times are RFC 3339 in UTC with
milliseconds. Requests refuse unknown fields. In an answer an absent value is null, never left out, so no field of an
answer has a default.
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.times import TIME_PATTERN, parse_time
from engine.policy import INTEGER_MAX, Policy

DIGITS: Final = "0123456789"
_ID_MARKS: Final = "._~@|-"
ID_CHARACTERS: Final = f"{ascii_uppercase}{ascii_lowercase}{DIGITS}{_ID_MARKS}"
ID_LENGTH_MAX: Final = 64
MADE_ID_LENGTH_MAX: Final = 128
POSITION_CHARACTERS: Final = "0123456789:,-"
POSITION_LENGTH_MAX: Final = 2048
DELIVERY_ID_LENGTH_MAX: Final = 16
UNITS_MAX: Final = Policy().available_max
"""The most units that a stock item can have."""
PAGE_LIMIT_DEFAULT: Final = 20
PAGE_LIMIT_MAX: Final = 100

# `\Z` and not `$`, which in Python also matches before a line feed at the end; the published schema says `$`.
# A path segment of one dot or two leads elsewhere, so it is no id.
_ID_PATTERN: Final = rf"^(?!\.{{1,2}}\Z)[A-Za-z0-9{_ID_MARKS}]{{1,{ID_LENGTH_MAX}}}\Z"
_MADE_ID_PATTERN: Final = rf"^(?!\.{{1,2}}\Z)[A-Za-z0-9{_ID_MARKS}]{{1,{MADE_ID_LENGTH_MAX}}}\Z"
# No control characters: PostgreSQL keeps no U+0000, and nothing else in that range belongs in a name.
TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*\Z"
CURSOR_PATTERN: Final = r"^[A-Za-z0-9_=-]{1,512}\Z"

UserId = Annotated[
    str, Meta(pattern=_ID_PATTERN, description="The user, as the identity provider names them.", examples=["mina"])
]
ProductId = Annotated[str, Meta(pattern=_ID_PATTERN, description="The product.", examples=["t-shirt"])]
StockId = Annotated[
    str, Meta(pattern=_ID_PATTERN, description="The stock item, unique within its product.", examples=["M"])
]
CampaignId = Annotated[str, Meta(pattern=_ID_PATTERN, description="The coupon campaign.", examples=["welcome"])]
OrderId = Annotated[str, Meta(pattern=_MADE_ID_PATTERN, description="The order; opaque.")]
CouponId = Annotated[
    str,
    Meta(
        pattern=_MADE_ID_PATTERN,
        description="The coupon: user id, date of issue (yyyymmdd), sequence.",
        examples=["mina-20260302-1"],
    ),
]
EntryId = Annotated[str, Meta(pattern=r"^[0-9:-]{1,64}\Z", description="The ledger entry; opaque.")]
DeliveryId = Annotated[str, Meta(pattern=rf"^[0-9]{{1,{DELIVERY_ID_LENGTH_MAX}}}\Z", description="The delivery.")]
Position = Annotated[
    str,
    Meta(
        pattern=rf"^[0-9:,-]{{1,{POSITION_LENGTH_MAX}}}\Z",
        description="Where this change stands in the log; opaque. `GET /v1/positions/{position}` tells its state.",
        examples=["17:3-1042"],
    ),
]
Cursor = Annotated[
    str,
    Meta(
        pattern=CURSOR_PATTERN,
        description="Where the next page begins: the `next_cursor` of the page before; opaque.",
    ),
]
Time = Annotated[
    str,
    Meta(
        pattern=TIME_PATTERN,
        description="RFC 3339, UTC, milliseconds.",
        extra_json_schema={"format": "date-time"},
        examples=["2026-03-02T10:00:00.000Z"],
    ),
]
Date = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z",
        description="A day in the business time zone.",
        extra_json_schema={"format": "date"},
    ),
]
Currency = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z]{3}\Z", description="ISO 4217; amounts are in its minor unit (for won: won).", examples=["KRW"]
    ),
]
TimeZone = Annotated[
    str, Meta(min_length=1, max_length=64, description="IANA name of the business time zone.", examples=["Asia/Seoul"])
]
Amount = Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="In the currency's minor unit.")]
SignedAmount = Annotated[
    int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX, description="In the currency's minor unit; negative takes away.")
]
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Available = Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="Units that a new order could have now.")]
Quantity = Annotated[int, Meta(ge=1, le=INTEGER_MAX, description="Units.")]
PositiveCount = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Name = Annotated[
    str, Meta(pattern=TEXT_PATTERN, min_length=1, max_length=200, description="Without control characters.")
]
Option = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=100,
        description="What tells this stock item from its product's others, such as a size.",
    ),
]
Text = Annotated[str, Meta(max_length=2000)]
Durable = Annotated[
    bool,
    Meta(description="As of this answer: true when every change of this request is in PostgreSQL, else in Redis only."),
]
PageLimit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT_MAX, description="At most this many items.")]

PaymentFailure = Annotated[
    Literal["insufficient_balance", "expired", "cancelled", "stock_lost"],
    Meta(
        description="Why a payment failed: the balance was too small; it was not paid before `pay_before`; the user "
        "cancelled; or its stock was lost with a Redis that failed."
    ),
]
OrderStatus = Annotated[
    Literal["pending", "awaiting_payment", "completed", "failed"],
    Meta(
        description="`pending` only for a moment, between reserving and placing; `awaiting_payment` until it is paid, "
        "cancelled or `pay_before` passes; then `completed` or `failed`, for ever."
    ),
]
PaymentStatus = Annotated[
    Literal["pending", "paid", "failed"],
    Meta(description="`pending` while the order is; `failed` says why in `failure`."),
]
CouponState = Annotated[
    Literal["valid", "invalid"], Meta(description="`valid`: a new order could take it now; else `reason` says why not.")
]
CouponReason = Annotated[
    Literal["taken", "used", "expired", "not_started"],
    Meta(description="`taken` by an order that is not yet paid, `used` by a paid one, or the time is not that of it."),
]
CouponRefusal = Annotated[
    Literal["unknown", "taken", "used", "expired", "not_started", "minimum_order", "minimum_discount"],
    Meta(
        description="Why the coupon gives no discount: as the coupon's own `reason`; or the user has none of that id, "
        "the subtotal is below its `minimum_order`, or it would take off less than the policy's `minimum_discount`."
    ),
]
CampaignState = Literal["open", "upcoming", "closed"]
PositionState = Annotated[
    Literal["accepted", "durable", "lost"],
    Meta(description="In Redis; in PostgreSQL too, for ever; or lost with a Redis before it was in PostgreSQL."),
]
DeliveryState = Annotated[
    Literal["pending", "delivered", "dead"],
    Meta(description="In line, with `next_try_at`; arrived; or given up until an operator replays it."),
]
PartitionState = Annotated[
    Literal["trusted", "recovering", "stopped"],
    Meta(
        description="Served from; being checked or rebuilt; or served from while its writer stands still (`stopped`)."
    ),
]
DiscountKind = Annotated[
    Literal["amount", "percent"],
    Meta(description="Whether `value` is an amount of money or a percent of the subtotal."),
]


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer is built on."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every request body and query is built on: unknown fields are refused."""


# Users: balance


class ChargeRequest(Request, frozen=True, kw_only=True):
    """Money to put onto a balance."""

    amount: Annotated[
        int,
        Meta(
            ge=-INTEGER_MAX,
            le=INTEGER_MAX,
            description="In the currency's minor unit; outside the policy's minimum and maximum it is `charge-limit`.",
            examples=[50_000],
        ),
    ]


class Balance(Body, frozen=True, kw_only=True):
    """A user's balance; of an unknown user it is 0."""

    user_id: UserId
    balance: Annotated[Amount, Meta(description="What the user has, in the currency's minor unit.")]
    currency: Currency


class Charge(Body, frozen=True, kw_only=True):
    """A charge that took effect, with the balance it led to."""

    user_id: UserId
    amount: Annotated[Amount, Meta(description="What was put onto the balance, in the currency's minor unit.")]
    balance: Annotated[Amount, Meta(description="What it led to, in the currency's minor unit.")]
    currency: Currency
    charged_at: Annotated[Time, Meta(description="When the charge took effect.")]
    position: Position
    durable: Durable


class LedgerEntry(Body, frozen=True, kw_only=True):
    """One change of a balance; `balance` is what it led to."""

    entry_id: EntryId
    kind: Annotated[Literal["charge", "payment"], Meta(description="What changed it.")]
    amount: Annotated[
        SignedAmount, Meta(description="What it changed, in the currency's minor unit; a payment is negative.")
    ]
    balance: Annotated[Amount, Meta(description="What it led to, in the currency's minor unit.")]
    order_id: Annotated[OrderId | None, Meta(description="The order that was paid; null for a charge.")]
    at: Annotated[Time, Meta(description="When it took effect.")]


class LedgerPage(Body, frozen=True, kw_only=True):
    """Ledger entries, newest first."""

    items: Annotated[list[LedgerEntry], Meta(max_length=PAGE_LIMIT_MAX)]
    next_cursor: Cursor | None


# Products and best sellers


class StockItem(Body, frozen=True, kw_only=True):
    """What can be ordered of one option of a product, as of the answer."""

    stock_id: StockId
    product_id: ProductId
    option: Option
    available: Available


class ProductSummary(Body, frozen=True, kw_only=True):
    """A product in a list; `available` adds up its stock items."""

    product_id: ProductId
    name: Annotated[Name, Meta(description="What it is called.")]
    price: Annotated[Amount, Meta(description="Of one unit, in the currency's minor unit.")]
    currency: Currency
    available: Available


class ProductPage(Body, frozen=True, kw_only=True):
    """Products in the order of their ids, each consistent in itself."""

    items: Annotated[list[ProductSummary], Meta(max_length=PAGE_LIMIT_MAX)]
    next_cursor: Cursor | None


class Product(Body, frozen=True, kw_only=True):
    """A product with its stock items, read in one instant."""

    product_id: ProductId
    name: Annotated[Name, Meta(description="What it is called.")]
    price: Annotated[Amount, Meta(description="Of one unit, in the currency's minor unit.")]
    currency: Currency
    available: Available
    stock: list[StockItem]


class BestSeller(Body, frozen=True, kw_only=True):
    """A product among those sold most."""

    rank: Annotated[int, Meta(ge=1, le=50, description="1 was sold most.")]
    product_id: ProductId
    name: Annotated[Name, Meta(description="What the product is called.")]
    price: Annotated[Amount, Meta(description="Of one unit now, in the currency's minor unit.")]
    quantity_sold: Annotated[Quantity, Meta(description="Units of paid orders in these days.")]


class BestSellers(Body, frozen=True, kw_only=True, rename={"from_": "from"}):
    """The products sold most, by the time of payment; both dates are included."""

    from_: Annotated[Date, Meta(description="The first day that is counted.")]
    to: Annotated[Date, Meta(description="The last day that is counted: today.")]
    time_zone: TimeZone
    items: Annotated[list[BestSeller], Meta(max_length=50)]


# Orders


class OrderLineRequest(Request, frozen=True, kw_only=True):
    """What to order. `stock_id` may be left out where the product has one stock item."""

    product_id: ProductId
    stock_id: StockId | None = None
    quantity: Annotated[
        int, Meta(ge=1, le=INTEGER_MAX, description="Units; past the policy's `maximum_quantity` it is `line-limit`.")
    ]


class OrderRequest(Request, frozen=True, kw_only=True):
    """An order: its lines, and a coupon to take if there is one. The same stock item given twice is added up."""

    lines: Annotated[list[OrderLineRequest], Meta(min_length=1)]
    coupon_id: CouponId | None = None


class NothingRequest(Request, frozen=True, kw_only=True):
    """`{}`, or no body at all."""


class OrderLine(Body, frozen=True, kw_only=True):
    """A line of an order with the price that held when its stock was reserved."""

    product_id: ProductId
    stock_id: StockId
    name: Annotated[Name, Meta(description="What the product was called when it was ordered.")]
    option: Option
    unit_price: Annotated[
        Amount, Meta(description="Of one unit when its stock was reserved, in the currency's minor unit.")
    ]
    quantity: Annotated[Quantity, Meta(description="Units ordered.")]
    amount: Annotated[Amount, Meta(description="`unit_price` times `quantity`, in the currency's minor unit.")]


class Payment(Body, frozen=True, kw_only=True):
    """An order's payment; `failure` says why it failed."""

    status: PaymentStatus
    amount: Annotated[Amount, Meta(description="What is to be paid or was paid: the order's `total`.")]
    paid_at: Annotated[Time | None, Meta(description="When it was paid; null unless it was.")]
    failure: PaymentFailure | None


class Order(Body, frozen=True, kw_only=True):
    """An order. `pay_before` is when it expires unless paid."""

    order_id: OrderId
    user_id: UserId
    status: OrderStatus
    payment: Payment
    lines: list[OrderLine]
    subtotal: Annotated[Amount, Meta(description="What the lines add up to, in the currency's minor unit.")]
    discount: Annotated[
        Amount, Meta(description="What the coupon takes off, in the currency's minor unit; 0 without one.")
    ]
    total: Annotated[Amount, Meta(description="`subtotal` less `discount`: what is paid.")]
    currency: Currency
    coupon_id: Annotated[CouponId | None, Meta(description="The coupon that it has taken, if any.")]
    ordered_at: Annotated[Time, Meta(description="When it was placed.")]
    pay_before: Annotated[
        Time | None,
        Meta(
            description="When it expires unless it is paid or cancelled by then; null while it is `pending`, and for "
            "one that was paid at once."
        ),
    ]
    position: Position
    durable: Durable


class OrderPage(Body, frozen=True, kw_only=True):
    """Orders, newest first; the user's open and last order are always in the first page."""

    items: Annotated[list[Order], Meta(max_length=PAGE_LIMIT_MAX)]
    next_cursor: Cursor | None


# Coupons and campaigns


class Discount(Body, frozen=True, kw_only=True):
    """A discount's rule. A percent rounds down; then `maximum_discount` and the subtotal cap it."""

    kind: DiscountKind
    value: Annotated[
        int,
        Meta(ge=1, le=INTEGER_MAX, description="An amount in the currency's minor unit, or a percent from 1 to 100."),
    ]
    minimum_order: (
        Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="The smallest subtotal that it applies to.")] | None
    )
    maximum_discount: (
        Annotated[
            int,
            Meta(ge=1, le=INTEGER_MAX, description="The most that it takes off; the policy's maximum holds besides."),
        ]
        | None
    )


class DiscountRequest(Request, frozen=True, kw_only=True):
    """A discount's rule, as `Discount`; the two limits may be left out."""

    kind: DiscountKind
    value: Annotated[
        int,
        Meta(ge=1, le=INTEGER_MAX, description="An amount in the currency's minor unit, or a percent from 1 to 100."),
    ]
    minimum_order: (
        Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="The smallest subtotal that it applies to.")] | None
    ) = None
    maximum_discount: (
        Annotated[
            int,
            Meta(ge=1, le=INTEGER_MAX, description="The most that it takes off; the policy's maximum holds besides."),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        if self.kind == "percent" and self.value > 100:
            raise ValueError("Expected a percent from 1 to 100 as `value`")


class CouponRequest(Request, frozen=True, kw_only=True):
    """The campaign to take a coupon of."""

    campaign_id: CampaignId


class Coupon(Body, frozen=True, kw_only=True):
    """A user's coupon: `valid` when a new order could take it now, else `invalid` with the reason."""

    coupon_id: CouponId
    campaign_id: CampaignId
    issue_number: Annotated[int, Meta(ge=1, le=INTEGER_MAX, description="The user's place in line: 1 came first.")]
    state: CouponState
    reason: CouponReason | None
    discount: Discount
    issued_at: Annotated[Time, Meta(description="When the user took it.")]
    valid_from: Annotated[Time, Meta(description="From when an order can take it.")]
    valid_until: Annotated[Time, Meta(description="Until when an order can take it.")]
    order_id: Annotated[OrderId | None, Meta(description="The order that has taken or used it.")]
    used_at: Annotated[Time | None, Meta(description="When the order that took it was paid.")]


class IssuedCoupon(Coupon, frozen=True, kw_only=True):
    """A coupon just issued, with how safe that is."""

    position: Position
    durable: Durable


class CouponPage(Body, frozen=True, kw_only=True):
    """A user's coupons, newest first."""

    items: Annotated[list[Coupon], Meta(max_length=PAGE_LIMIT_MAX)]
    next_cursor: Cursor | None


class Campaign(Body, frozen=True, kw_only=True):
    """A first-come coupon campaign; it issues from `opens_at` until before `closes_at`, one coupon per user."""

    campaign_id: CampaignId
    name: Annotated[Name, Meta(description="What it is called.")]
    discount: Discount
    quantity: Annotated[int, Meta(ge=1, le=INTEGER_MAX, description="How many coupons there are in all.")]
    remaining: Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="How many are not issued yet.")]
    opens_at: Annotated[Time, Meta(description="From when it issues coupons.")]
    closes_at: Annotated[Time, Meta(description="Until before when it issues coupons.")]
    valid_days: Annotated[int, Meta(ge=1, le=3650, description="A coupon is valid for so many days from its issue.")]


class CampaignList(Body, frozen=True, kw_only=True):
    """Campaigns, by opening time."""

    items: list[Campaign]


# Policies and positions


class Policies(Body, frozen=True, kw_only=True):
    """Every limit that holds here. Amounts are in the currency's minor unit."""

    currency: Currency
    time_zone: TimeZone
    minimum_charge: Annotated[Amount, Meta(description="The least that one charge may be.")]
    maximum_charge: Annotated[Amount, Meta(description="The most that one charge may be.")]
    maximum_balance: Annotated[Amount, Meta(description="The most that a balance may become by a charge.")]
    maximum_payment: Annotated[Amount, Meta(description="The most that one order may come to.")]
    maximum_unit_price: Annotated[Amount, Meta(description="The most that a product may cost.")]
    maximum_quantity: Annotated[
        int, Meta(ge=1, le=INTEGER_MAX, description="Of one line of an order, after adding up.")
    ]
    maximum_lines: Annotated[int, Meta(ge=1, le=INTEGER_MAX, description="Of one order.")]
    minimum_discount: Annotated[
        Amount, Meta(description="The least that a coupon may take off; below it the coupon is refused.")
    ]
    maximum_discount: Annotated[Amount, Meta(description="The most that a coupon may take off.")]
    payment_deadline_seconds: Annotated[
        int,
        Meta(ge=1, le=INTEGER_MAX, description="How long an order awaits its payment before it expires, in seconds."),
    ]


class PositionAnswer(Body, frozen=True, kw_only=True):
    """Whether the change at a position is safe: in Redis, in PostgreSQL too, or lost with a Redis."""

    position: Position
    state: PositionState


# Operators


class StockItemRequest(Request, frozen=True, kw_only=True):
    """A stock item of a product. `initial_quantity` counts only when the stock item is new."""

    stock_id: StockId
    option: Option
    initial_quantity: Annotated[
        int, Meta(ge=0, le=UNITS_MAX, description="Units; ignored where the stock item is known.")
    ]


class ProductRequest(Request, frozen=True, kw_only=True):
    """A product as it shall be. A stock item left out stays as it is."""

    name: Annotated[Name, Meta(description="What it is called, without control characters.")]
    price: Annotated[
        Amount,
        Meta(description="Of one unit, in the currency's minor unit; at most the policy's `maximum_unit_price`."),
    ]
    stock: Annotated[list[StockItemRequest], Meta(min_length=1, max_length=200)]

    def __post_init__(self) -> None:
        if len({item.stock_id for item in self.stock}) != len(self.stock):
            raise ValueError("Expected each `stock_id` once in `stock`")


class ChangedProduct(Product, frozen=True, kw_only=True):
    """A product just made or changed, with how safe that is."""

    position: Position
    durable: Durable


class AdjustmentRequest(Request, frozen=True, kw_only=True):
    """Units that came (positive) or went (negative), and why."""

    delta: Annotated[
        int,
        Meta(
            ge=-INTEGER_MAX,
            le=INTEGER_MAX,
            description="Units: positive came, negative went; not 0.",
            extra_json_schema={"not": {"const": 0}},
        ),
    ]
    reason: Annotated[Name, Meta(description="Why, for the record; without control characters.")]

    def __post_init__(self) -> None:
        if self.delta == 0:
            raise ValueError("Expected a `delta` other than 0")


class AdjustedStockItem(StockItem, frozen=True, kw_only=True):
    """A stock item just adjusted, with how safe that is."""

    position: Position
    durable: Durable


class CampaignRequest(Request, frozen=True, kw_only=True):
    """A campaign as it shall be. The quantity may not fall below what is issued."""

    name: Annotated[Name, Meta(description="What it is called.")]
    discount: DiscountRequest
    quantity: Annotated[int, Meta(ge=1, le=INTEGER_MAX, description="How many coupons there are in all.")]
    opens_at: Annotated[Time, Meta(description="From when it issues coupons.")]
    closes_at: Annotated[Time, Meta(description="Until before when it issues coupons; after `opens_at`.")]
    valid_days: Annotated[int, Meta(ge=1, le=3650, description="A coupon is valid for so many days from its issue.")]

    def __post_init__(self) -> None:
        if parse_time(self.opens_at) >= parse_time(self.closes_at):
            raise ValueError("Expected `closes_at` after `opens_at`")


class ChangedCampaign(Campaign, frozen=True, kw_only=True):
    """A campaign just made or changed, with how safe that is."""

    position: Position
    durable: Durable


class PartitionStatus(Body, frozen=True, kw_only=True):
    """One partition: whether it is trusted, and how far PostgreSQL has followed."""

    partition: Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="Its number.")]
    state: PartitionState
    epoch: Annotated[Count | None, Meta(description="The stretch of its log, on one trusted server.")]
    sequence: Annotated[Count | None, Meta(description="The last event in Redis; null when it cannot be read.")]
    durable_sequence: Annotated[Count | None, Meta(description="The last event in PostgreSQL.")]
    backlog: Annotated[Count | None, Meta(description="Events not yet in PostgreSQL.")]
    lag_ms: Annotated[Count | None, Meta(description="Age of its oldest event not yet in PostgreSQL, in milliseconds.")]
    server: Annotated[str | None, Meta(description="The identity of the Redis server that it is trusted on.")]
    stopped: Annotated[str | None, Meta(description="Why its writer stopped.")]


class ServerStatus(Body, frozen=True, kw_only=True):
    """A server that this deployment stands on."""

    kind: Annotated[Literal["redis", "postgresql"], Meta(description="What it is.")]
    address: Annotated[str, Meta(description="Host and port, without any secret.")]
    version: Annotated[str | None, Meta(description="The server's own; null when it cannot be asked.")]
    identity: Annotated[str | None, Meta(description="Of a Redis server: what it is trusted as, `run_id:replid`.")]
    reachable: Annotated[bool, Meta(description="Whether it answered just now.")]


class Versions(Body, frozen=True, kw_only=True):
    """What runs here."""

    firstcome: Annotated[str, Meta(description="Of this program.")]
    python: Annotated[str, Meta(description="Of the Python that runs it.")]
    schema: Annotated[str | None, Meta(description="The revision of the PostgreSQL schema.")]


class DeliveryStatus(Body, frozen=True, kw_only=True):
    """What the data platform has not yet."""

    waiting: Annotated[Count, Meta(description="Paid orders that are not delivered yet.")]
    lag_ms: Annotated[Count, Meta(description="How long the oldest has waited, in milliseconds.")]
    dead: Annotated[Count, Meta(description="Given up until they are replayed.")]


class SystemStatus(Body, frozen=True, kw_only=True):
    """The whole deployment at a glance."""

    generation: Annotated[Count | None, Meta(description="How many recoveries there were; null when not known.")]
    trusted: Annotated[Count, Meta(description="Partitions that are trusted.")]
    backlog: Annotated[Count | None, Meta(description="Events not yet in PostgreSQL, over all partitions.")]
    lag_ms: Annotated[Count | None, Meta(description="Age of the oldest event not yet in PostgreSQL, in milliseconds.")]
    workers: Annotated[Count, Meta(description="Workers that have been there within the last seconds.")]
    alarms_open: Annotated[Count, Meta(description="Alarms that are not over.")]
    deliveries: Annotated[DeliveryStatus, Meta(description="What the data platform has not yet.")]
    partitions: list[PartitionStatus]
    servers: list[ServerStatus]
    versions: Versions


class Delivery(Body, frozen=True, kw_only=True):
    """A paid order on its way to the data platform."""

    delivery_id: DeliveryId
    order_id: OrderId
    user_id: UserId
    state: DeliveryState
    tries: Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="How often it was sent since it was put in line.")]
    created_at: Annotated[Time, Meta(description="When it was put in line.")]
    next_try_at: Annotated[Time | None, Meta(description="When it is tried next; null unless `pending`.")]
    delivered_at: Annotated[Time | None, Meta(description="When it arrived; null unless it did.")]
    last_error: Annotated[Text | None, Meta(description="Why the last try failed.")]


class DeliveryPage(Body, frozen=True, kw_only=True):
    """Deliveries, newest first."""

    items: Annotated[list[Delivery], Meta(max_length=PAGE_LIMIT_MAX)]
    next_cursor: Cursor | None


class Alarm(Body, frozen=True, kw_only=True):
    """What needs an operator: a stopped partition, a shortage, a mismatch that the audit found."""

    alarm_id: Annotated[str, Meta(pattern=rf"^[0-9]{{1,{DELIVERY_ID_LENGTH_MAX}}}\Z", description="The alarm; opaque.")]
    kind: Annotated[
        str,
        Meta(min_length=1, max_length=64, description="What happened, for programs.", examples=["partition_stopped"]),
    ]
    partition: Annotated[Count | None, Meta(description="The partition that it is about, if it is about one.")]
    subject: Annotated[Text, Meta(description="What it is about, such as an order or a stock item.")]
    detail: Annotated[Text, Meta(description="What was found.")]
    remedy: Annotated[Text, Meta(description="What an operator does about it.")]
    runbook: Annotated[Text, Meta(description="Where this server says more.")]
    raised_at: Annotated[Time, Meta(description="When it was raised.")]
    cleared_at: Annotated[Time | None, Meta(description="When it was over; null while it is open.")]


class AlarmPage(Body, frozen=True, kw_only=True):
    """Alarms, newest first."""

    items: Annotated[list[Alarm], Meta(max_length=PAGE_LIMIT_MAX)]
    next_cursor: Cursor | None


# Health


class Liveness(Body, frozen=True, kw_only=True):
    """This process runs."""

    alive: Annotated[Literal[True], Meta(description="It answers, so it is.")]


class Readiness(Body, frozen=True, kw_only=True):
    """Whether this process can serve anything; partitions in recovery answer 503 `recovering` for a while."""

    ready: Annotated[bool, Meta(description="Whether it can serve anything.")]
    reason: Annotated[str | None, Meta(description="Why it is not ready.")]
    recovering_partitions: Annotated[
        list[Count], Meta(description="Partitions that are being recovered, and answer 503 meanwhile.")
    ]


# Queries


class NoQuery(Request, frozen=True, kw_only=True):
    """No query parameters."""


class PageQuery(Request, frozen=True, kw_only=True):
    """A page of a list."""

    limit: PageLimit = PAGE_LIMIT_DEFAULT
    cursor: Cursor | None = None


class HistoryQuery(Request, frozen=True, kw_only=True):
    """A page of a history, waiting for a change of one's own to be in it."""

    limit: PageLimit = PAGE_LIMIT_DEFAULT
    cursor: Cursor | None = None
    after: (
        Annotated[
            Position, Meta(description="Wait up to a second until this user's change at this position is included.")
        ]
        | None
    ) = None


class CouponsQuery(Request, frozen=True, kw_only=True):
    """Which of a user's coupons."""

    state: Annotated[CouponState | None, Meta(description="Only those in this state.")] = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    cursor: Cursor | None = None


class CampaignsQuery(Request, frozen=True, kw_only=True):
    """Which campaigns."""

    state: Annotated[CampaignState | None, Meta(description="Only those in this state.")] = None


class BestSellersQuery(Request, frozen=True, kw_only=True):
    """How many days, today included, and how many products."""

    days: Annotated[int, Meta(ge=1, le=7, description="Calendar days in the business time zone, today included.")] = 3
    limit: Annotated[int, Meta(ge=1, le=50, description="At most this many products.")] = 5


class DeliveriesQuery(Request, frozen=True, kw_only=True):
    """Which deliveries."""

    state: Annotated[DeliveryState | None, Meta(description="Only those in this state.")] = None
    user_id: Annotated[UserId | None, Meta(description="Only this user's.")] = None
    order_id: Annotated[OrderId | None, Meta(description="Only this order's.")] = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    cursor: Cursor | None = None


class AlarmsQuery(Request, frozen=True, kw_only=True):
    """Which alarms."""

    state: Annotated[Literal["open", "cleared"] | None, Meta(description="Only those in this state.")] = None
    limit: PageLimit = PAGE_LIMIT_DEFAULT
    cursor: Cursor | None = None


# The data platform


class OrderPaid(Body, frozen=True, kw_only=True):
    """A CloudEvent (version 1.0, in JSON): an order was paid. At least once; `id` tells repetitions."""

    specversion: Annotated[Literal["1.0"], Meta(description="Of CloudEvents.")]
    id: Annotated[str, Meta(min_length=1, max_length=128, description="The same in every repetition of this event.")]
    source: Annotated[str, Meta(min_length=1, description="URI of this shop.")]
    type: Annotated[Literal["order.paid"], Meta(description="What happened.")]
    subject: Annotated[OrderId, Meta(description="The order that was paid.")]
    time: Annotated[Time, Meta(description="When it was paid.")]
    datacontenttype: Annotated[Literal["application/json"], Meta(description="Of `data`.")]
    data: Order
    requestid: (
        Annotated[str, Meta(min_length=1, max_length=128, description="`X-Request-Id` of the request that paid it.")]
        | UnsetType
    ) = UNSET
