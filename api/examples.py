"""Named examples of every operation: the shop of the demo's catalogue, as `firstcome up` makes it.

They are made of the surface's own types, so they fit the specification. The specification shows them, `/docs` asks a
running shop what they ask, the mock answers them, the tests check them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from api import schemas

KRW: Final = "KRW"
SEOUL: Final = "Asia/Seoul"
ORDER_ID: Final = "0195586e-9c40-7000-8000-4d1f3a2b5c6d"
PAID_ORDER_ID: Final = "01955870-1a00-7000-8000-9e8d7c6b5a49"
COUPON_ID: Final = "mina-20260302-1"
POSITION: Final = "17:3-1042"


@dataclass(frozen=True, slots=True)
class Example:
    """One exchange: what is asked (query without the question mark, body) and what is answered.

    `name` is unique within an operation and is none of a problem's."""

    name: str
    summary: str
    answer: msgspec.Struct
    status: int = 200
    path_params: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    body: msgspec.Struct | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


_MINA: Final = {"user_id": "mina"}

_SHIRT: Final = schemas.Product(
    product_id="t-shirt",
    name="오가닉 코튼 티셔츠 · Organic cotton T-shirt",
    price=19_000,
    currency=KRW,
    available=557,
    stock=[
        schemas.StockItem(stock_id="S", product_id="t-shirt", option="S", available=200),
        schemas.StockItem(stock_id="M", product_id="t-shirt", option="M", available=154),
        schemas.StockItem(stock_id="L", product_id="t-shirt", option="L", available=3),
        schemas.StockItem(stock_id="XL", product_id="t-shirt", option="XL", available=200),
    ],
)
_CAP: Final = schemas.Product(
    product_id="cap",
    name="볼캡 · Baseball cap",
    price=22_000,
    currency=KRW,
    available=231,
    stock=[schemas.StockItem(stock_id="one-size", product_id="cap", option="one-size", available=231)],
)
_SNEAKERS: Final = schemas.Product(
    product_id="limited-sneakers",
    name="한정판 운동화 · Limited sneakers",
    price=159_000,
    currency=KRW,
    available=0,
    stock=[
        schemas.StockItem(stock_id="250", product_id="limited-sneakers", option="250", available=0),
        schemas.StockItem(stock_id="260", product_id="limited-sneakers", option="260", available=0),
        schemas.StockItem(stock_id="270", product_id="limited-sneakers", option="270", available=0),
    ],
)
_NEW_BEANIE: Final = schemas.ChangedProduct(
    product_id="wool-beanie",
    name="울 비니 · Wool beanie",
    price=18_000,
    currency=KRW,
    available=25,
    stock=[schemas.StockItem(stock_id="one-size", product_id="wool-beanie", option="one-size", available=25)],
    position="40:1-2",
    durable=False,
)
_BEANIE_PUT: Final = schemas.ProductRequest(
    name=_NEW_BEANIE.name,
    price=18_000,
    stock=[schemas.StockItemRequest(stock_id="one-size", option="one-size", initial_quantity=25)],
)
_CHANGED_SHIRT: Final = schemas.ChangedProduct(**msgspec.structs.asdict(_SHIRT), position="5:3-88", durable=False)
_SHIRT_REQUEST: Final = schemas.ProductRequest(
    name=_SHIRT.name,
    price=19_000,
    stock=[
        schemas.StockItemRequest(stock_id=size, option=size, initial_quantity=200) for size in ("S", "M", "L", "XL")
    ],
)


def _summary(product: schemas.Product) -> schemas.ProductSummary:
    fields = msgspec.structs.asdict(product)
    del fields["stock"]
    return schemas.ProductSummary(**fields)


_PERCENT_OFF: Final = schemas.Discount(kind="percent", value=10, minimum_order=10_000, maximum_discount=20_000)
_AMOUNT_OFF: Final = schemas.Discount(kind="amount", value=5_000, minimum_order=30_000, maximum_discount=None)

_SHIRT_LINE: Final = schemas.OrderLine(
    product_id="t-shirt",
    stock_id="M",
    name=_SHIRT.name,
    option="M",
    unit_price=19_000,
    quantity=2,
    amount=38_000,
)
_CAP_LINE: Final = schemas.OrderLine(
    product_id="cap",
    stock_id="one-size",
    name=_CAP.name,
    option="one-size",
    unit_price=22_000,
    quantity=1,
    amount=22_000,
)
_AWAITING: Final = schemas.Order(
    order_id=ORDER_ID,
    user_id="mina",
    status="awaiting_payment",
    payment=schemas.Payment(status="pending", amount=54_000, paid_at=None, failure=None),
    lines=[_SHIRT_LINE, _CAP_LINE],
    subtotal=60_000,
    discount=6_000,
    total=54_000,
    currency=KRW,
    coupon_id=COUPON_ID,
    ordered_at="2026-03-02T10:05:00.120Z",
    pay_before="2026-03-03T10:05:00.120Z",
    position=POSITION,
    durable=False,
)
_COMPLETED: Final = msgspec.structs.replace(
    _AWAITING,
    status="completed",
    payment=schemas.Payment(status="paid", amount=54_000, paid_at="2026-03-02T10:06:30.004Z", failure=None),
    position="17:3-1043",
)
_CANCELLED: Final = msgspec.structs.replace(
    _AWAITING,
    status="failed",
    payment=schemas.Payment(status="failed", amount=54_000, paid_at=None, failure="cancelled"),
    position="17:3-1044",
)
_EXPIRED: Final = msgspec.structs.replace(
    _AWAITING,
    status="failed",
    payment=schemas.Payment(status="failed", amount=54_000, paid_at=None, failure="expired"),
    position="17:3-1090",
    durable=True,
)
_CHECKED_OUT: Final = schemas.Order(
    order_id=PAID_ORDER_ID,
    user_id="mina",
    status="completed",
    payment=schemas.Payment(status="paid", amount=22_000, paid_at="2026-03-02T10:07:00.500Z", failure=None),
    lines=[_CAP_LINE],
    subtotal=22_000,
    discount=0,
    total=22_000,
    currency=KRW,
    coupon_id=None,
    ordered_at="2026-03-02T10:07:00.500Z",
    pay_before=None,
    position="17:3-1050,40:1-7",
    durable=False,
)
_DURABLE: Final = {"Preference-Applied": "durable"}


def _replayed(answer: msgspec.Struct, *, body: msgspec.Struct, headers: Mapping[str, str] | None = None) -> Example:
    """The first answer once more, for a repeated key."""
    headers = {**(headers or {}), "Idempotent-Replayed": "true"}
    return Example("replayed", "The same key again: the first answer", answer, 201, _MINA, body=body, headers=headers)


def _order_location(order_id: str) -> dict[str, str]:
    return {"Location": f"/v1/users/mina/orders/{order_id}"}


_COUPON: Final = schemas.Coupon(
    coupon_id=COUPON_ID,
    campaign_id="welcome",
    issue_number=7,
    state="valid",
    reason=None,
    discount=_PERCENT_OFF,
    issued_at="2026-03-02T10:00:00.031Z",
    valid_from="2026-03-02T10:00:00.031Z",
    valid_until="2026-04-01T10:00:00.031Z",
    order_id=None,
    used_at=None,
)
_TAKEN: Final = msgspec.structs.replace(_COUPON, state="invalid", reason="taken", order_id=ORDER_ID)
_USED: Final = msgspec.structs.replace(
    _COUPON, state="invalid", reason="used", order_id=ORDER_ID, used_at="2026-03-02T10:06:30.004Z"
)
_ISSUED: Final = schemas.IssuedCoupon(**msgspec.structs.asdict(_COUPON), position="17:3-1039", durable=False)
_COUPON_LOCATION: Final = {"Location": f"/v1/users/mina/coupons/{COUPON_ID}"}

_CAMPAIGN: Final = schemas.Campaign(
    campaign_id="welcome",
    name="첫 구매 10% 쿠폰 · 10 % off the first order",
    discount=_PERCENT_OFF,
    quantity=1_000,
    remaining=993,
    opens_at="2026-03-02T10:00:00.000Z",
    closes_at="2027-03-02T10:00:00.000Z",
    valid_days=30,
)
_UPCOMING: Final = schemas.Campaign(
    campaign_id="summer-2026",
    name="여름 세일 · Summer sale",
    discount=_AMOUNT_OFF,
    quantity=100,
    remaining=100,
    opens_at="2026-06-01T00:00:00.000Z",
    closes_at="2026-06-30T15:00:00.000Z",
    valid_days=14,
)
_AUTUMN: Final = schemas.Campaign(
    campaign_id="autumn-2026",
    name="가을 세일 · Autumn sale",
    discount=schemas.Discount(kind="percent", value=15, minimum_order=None, maximum_discount=30_000),
    quantity=500,
    remaining=500,
    opens_at="2026-10-01T00:00:00.000Z",
    closes_at="2026-10-31T15:00:00.000Z",
    valid_days=14,
)
_CHANGED_CAMPAIGN: Final = schemas.ChangedCampaign(
    **msgspec.structs.asdict(_UPCOMING), position="44:3-12", durable=False
)
_SUMMER_REQUEST: Final = schemas.CampaignRequest(
    name=_UPCOMING.name,
    discount=schemas.DiscountRequest(kind="amount", value=5_000, minimum_order=30_000),
    quantity=100,
    opens_at=_UPCOMING.opens_at,
    closes_at=_UPCOMING.closes_at,
    valid_days=14,
)
_AUTUMN_REQUEST: Final = schemas.CampaignRequest(
    name=_AUTUMN.name,
    discount=schemas.DiscountRequest(kind="percent", value=15, maximum_discount=30_000),
    quantity=500,
    opens_at=_AUTUMN.opens_at,
    closes_at=_AUTUMN.closes_at,
    valid_days=14,
)
_CHARGE: Final = schemas.Charge(
    user_id="mina",
    amount=100_000,
    balance=150_000,
    currency=KRW,
    charged_at="2026-03-02T10:01:00.250Z",
    position="17:3-1041",
    durable=False,
)
_ADJUSTED: Final = schemas.AdjustedStockItem(
    stock_id="M", product_id="t-shirt", option="M", available=204, position="5:3-90", durable=False
)
_DELIVERY: Final = schemas.Delivery(
    delivery_id="812",
    order_id=ORDER_ID,
    user_id="mina",
    state="delivered",
    tries=1,
    created_at="2026-03-02T10:06:30.040Z",
    next_try_at=None,
    delivered_at="2026-03-02T10:06:30.310Z",
    last_error=None,
)
_DEAD: Final = schemas.Delivery(
    delivery_id="813",
    order_id=PAID_ORDER_ID,
    user_id="mina",
    state="dead",
    tries=12,
    created_at="2026-03-02T10:07:00.560Z",
    next_try_at=None,
    delivered_at=None,
    last_error="The data platform answered 500.",
)
_AGAIN: Final = msgspec.structs.replace(
    _DEAD, state="pending", tries=0, next_try_at="2026-03-02T11:00:00.000Z", last_error=None
)
_STATUS: Final = schemas.SystemStatus(
    generation=3,
    trusted=1,
    backlog=12,
    lag_ms=18,
    workers=2,
    alarms_open=1,
    deliveries=schemas.DeliveryStatus(waiting=3, lag_ms=240, dead=0),
    partitions=[
        schemas.PartitionStatus(
            partition=17,
            state="trusted",
            epoch=3,
            sequence=1_054,
            durable_sequence=1_042,
            backlog=12,
            lag_ms=18,
            server="5f0c9f6f:8371b4fb",
            stopped=None,
        ),
        schemas.PartitionStatus(
            partition=18,
            state="recovering",
            epoch=3,
            sequence=None,
            durable_sequence=977,
            backlog=None,
            lag_ms=None,
            server=None,
            stopped=None,
        ),
    ],
    servers=[
        schemas.ServerStatus(
            kind="redis", address="127.0.0.1:6379", version="9.1.2", identity="5f0c9f6f:8371b4fb", reachable=True
        ),
        schemas.ServerStatus(
            kind="postgresql", address="127.0.0.1:5432", version="18.1", identity=None, reachable=True
        ),
    ],
    versions=schemas.Versions(firstcome="0.1.0", python="3.11.7", schema="0001"),
)
_ALL_TRUSTED: Final = msgspec.structs.replace(
    _STATUS,
    backlog=0,
    lag_ms=0,
    partitions=[msgspec.structs.replace(_STATUS.partitions[0], durable_sequence=1_054, backlog=0)],
)
_POLICIES: Final = schemas.Policies(
    currency=KRW,
    time_zone=SEOUL,
    minimum_charge=1,
    maximum_charge=10_000_000,
    maximum_balance=100_000_000,
    maximum_payment=50_000_000,
    maximum_unit_price=100_000_000,
    maximum_quantity=100_000,
    maximum_lines=500,
    minimum_discount=1,
    maximum_discount=1_000_000,
    payment_deadline_seconds=86_400,
)
_ORDER_REQUEST: Final = schemas.OrderRequest(
    lines=[
        schemas.OrderLineRequest(product_id="t-shirt", stock_id="M", quantity=2),
        schemas.OrderLineRequest(product_id="cap", quantity=1),
    ],
    coupon_id=COUPON_ID,
)
_CAP_REQUEST: Final = schemas.OrderRequest(lines=[schemas.OrderLineRequest(product_id="cap", quantity=1)])
_MINA_ORDER: Final = {"user_id": "mina", "order_id": ORDER_ID}
_MINA_COUPON: Final = {"user_id": "mina", "coupon_id": COUPON_ID}
_SHIRT_PATH: Final = {"product_id": "t-shirt"}
_WELCOME_PATH: Final = {"campaign_id": "welcome"}
_SUMMER_PATH: Final = {"campaign_id": "summer-2026"}

EXAMPLES: Final[Mapping[str, tuple[Example, ...]]] = {
    "get_balance": (
        Example(
            "charged",
            "A user with a balance",
            schemas.Balance(user_id="mina", balance=150_000, currency=KRW),
            path_params=_MINA,
        ),
        Example(
            "unknown-user",
            "An unknown user has balance 0",
            schemas.Balance(user_id="jun", balance=0, currency=KRW),
            path_params={"user_id": "jun"},
        ),
    ),
    "charge_balance": (
        Example(
            "charged",
            "A charge",
            _CHARGE,
            201,
            _MINA,
            body=schemas.ChargeRequest(amount=100_000),
        ),
        Example(
            "durable",
            "A charge that waited until it was in PostgreSQL (`Prefer: durable`)",
            msgspec.structs.replace(_CHARGE, durable=True),
            201,
            _MINA,
            body=schemas.ChargeRequest(amount=100_000),
            headers=_DURABLE,
        ),
        _replayed(
            msgspec.structs.replace(_CHARGE, durable=True),
            body=schemas.ChargeRequest(amount=100_000),
        ),
    ),
    "list_balance_entries": (
        Example(
            "two-entries",
            "A payment and the charge before it",
            schemas.LedgerPage(
                items=[
                    schemas.LedgerEntry(
                        entry_id="17:3-1043",
                        kind="payment",
                        amount=-54_000,
                        balance=96_000,
                        order_id=ORDER_ID,
                        at="2026-03-02T10:06:30.004Z",
                    ),
                    schemas.LedgerEntry(
                        entry_id="17:3-1041",
                        kind="charge",
                        amount=100_000,
                        balance=150_000,
                        order_id=None,
                        at="2026-03-02T10:01:00.250Z",
                    ),
                ],
                next_cursor="MTc6My0xMDQx",
            ),
            path_params=_MINA,
            query="limit=2",
        ),
        Example(
            "none", "No entries yet", schemas.LedgerPage(items=[], next_cursor=None), path_params={"user_id": "jun"}
        ),
    ),
    "list_products": (
        Example(
            "first-page",
            "Two products, and more to come",
            schemas.ProductPage(
                items=[_summary(_CAP), _summary(_SHIRT)],
                next_cursor="dC1zaGlydA",
            ),
            query="limit=2",
        ),
        Example("empty-shop", "No products yet", schemas.ProductPage(items=[], next_cursor=None)),
    ),
    "get_product": (
        Example("sizes", "A product with a stock item per size", _SHIRT, path_params=_SHIRT_PATH),
        Example("sold-out", "A product that is sold out", _SNEAKERS, path_params={"product_id": "limited-sneakers"}),
    ),
    "list_best_sellers": (
        Example(
            "three-days",
            "The two products sold most in the last three days",
            schemas.BestSellers(
                from_="2026-02-28",
                to="2026-03-02",
                time_zone=SEOUL,
                items=[
                    schemas.BestSeller(rank=1, product_id="t-shirt", name=_SHIRT.name, price=19_000, quantity_sold=412),
                    schemas.BestSeller(rank=2, product_id="cap", name=_CAP.name, price=22_000, quantity_sold=230),
                ],
            ),
            query="days=3&limit=5",
        ),
        Example(
            "nothing-sold",
            "Nothing was sold today",
            schemas.BestSellers(from_="2026-03-02", to="2026-03-02", time_zone=SEOUL, items=[]),
            query="days=1",
        ),
    ),
    "place_order": (
        Example(
            "with-coupon",
            "An order that awaits its payment and has taken a coupon",
            _AWAITING,
            201,
            _MINA,
            body=_ORDER_REQUEST,
            headers=_order_location(ORDER_ID),
        ),
        Example(
            "one-product",
            "An order of one product of one stock item, without a coupon",
            msgspec.structs.replace(
                _AWAITING,
                payment=msgspec.structs.replace(_AWAITING.payment, amount=22_000),
                lines=[_CAP_LINE],
                subtotal=22_000,
                discount=0,
                total=22_000,
                coupon_id=None,
            ),
            201,
            _MINA,
            body=_CAP_REQUEST,
            headers=_order_location(ORDER_ID),
        ),
        Example(
            "durable",
            "An order that waited until it was in PostgreSQL (`Prefer: durable`)",
            msgspec.structs.replace(_AWAITING, durable=True),
            201,
            _MINA,
            body=_ORDER_REQUEST,
            headers={**_order_location(ORDER_ID), **_DURABLE},
        ),
    ),
    "get_order": (
        Example("awaiting-payment", "보류: awaiting its payment", _AWAITING, path_params=_MINA_ORDER),
        Example("completed", "주문 완료: paid", _COMPLETED, path_params=_MINA_ORDER),
        Example("expired", "주문 실패: not paid in time", _EXPIRED, path_params=_MINA_ORDER),
        Example(
            "pending",
            "주문 대기: between reserving and placing",
            msgspec.structs.replace(_AWAITING, status="pending", pay_before=None),
            path_params=_MINA_ORDER,
        ),
    ),
    "list_orders": (
        Example(
            "newest-first",
            "A completed order and a cancelled one",
            schemas.OrderPage(items=[_CHECKED_OUT, _CANCELLED], next_cursor=None),
            path_params=_MINA,
            query="limit=20",
        ),
        Example("none", "No orders yet", schemas.OrderPage(items=[], next_cursor=None), path_params={"user_id": "jun"}),
    ),
    "pay_order": (
        Example("completed", "Paid", _COMPLETED, path_params=_MINA_ORDER, body=schemas.NothingRequest()),
        Example(
            "durable",
            "Paid, and in PostgreSQL (`Prefer: durable`)",
            msgspec.structs.replace(_COMPLETED, durable=True),
            path_params=_MINA_ORDER,
            headers=_DURABLE,
        ),
    ),
    "cancel_order": (
        Example("cancelled", "Cancelled; stock and coupon are back", _CANCELLED, path_params=_MINA_ORDER),
        Example(
            "durable",
            "Cancelled, and in PostgreSQL (`Prefer: durable`)",
            msgspec.structs.replace(_CANCELLED, durable=True),
            path_params=_MINA_ORDER,
            body=schemas.NothingRequest(),
            headers=_DURABLE,
        ),
    ),
    "checkout": (
        Example(
            "completed",
            "Ordered and paid in one request",
            _CHECKED_OUT,
            201,
            _MINA,
            body=_CAP_REQUEST,
            headers=_order_location(PAID_ORDER_ID),
        ),
        Example(
            "two-lines",
            "Two products and a coupon, ordered and paid at once",
            msgspec.structs.replace(_COMPLETED, pay_before=None),
            201,
            _MINA,
            body=_ORDER_REQUEST,
            headers=_order_location(ORDER_ID),
        ),
        _replayed(
            msgspec.structs.replace(_CHECKED_OUT, durable=True),
            body=_CAP_REQUEST,
            headers=_order_location(PAID_ORDER_ID),
        ),
    ),
    "issue_coupon": (
        Example(
            "issued",
            "The seventh in line",
            _ISSUED,
            201,
            _MINA,
            body=schemas.CouponRequest(campaign_id="welcome"),
            headers=_COUPON_LOCATION,
        ),
        Example(
            "durable",
            "A coupon that waited until it was in PostgreSQL (`Prefer: durable`)",
            msgspec.structs.replace(_ISSUED, durable=True),
            201,
            _MINA,
            body=schemas.CouponRequest(campaign_id="welcome"),
            headers={**_COUPON_LOCATION, **_DURABLE},
        ),
    ),
    "list_coupons": (
        Example(
            "valid",
            "A coupon that a new order could take",
            schemas.CouponPage(items=[_COUPON], next_cursor=None),
            path_params=_MINA,
            query="state=valid",
        ),
        Example(
            "used",
            "A used coupon",
            schemas.CouponPage(items=[_USED], next_cursor=None),
            path_params=_MINA,
            query="state=invalid",
        ),
    ),
    "get_coupon": (
        Example("valid", "A coupon that a new order could take", _COUPON, path_params=_MINA_COUPON),
        Example("taken", "Taken by an order in progress", _TAKEN, path_params=_MINA_COUPON),
        Example("used", "Used by a completed order", _USED, path_params=_MINA_COUPON),
    ),
    "list_campaigns": (
        Example("all", "An open campaign and an upcoming one", schemas.CampaignList(items=[_CAMPAIGN, _UPCOMING])),
        Example("open", "The open ones", schemas.CampaignList(items=[_CAMPAIGN]), query="state=open"),
    ),
    "get_campaign": (
        Example("open", "A campaign of which 993 of 1,000 coupons remain", _CAMPAIGN, path_params=_WELCOME_PATH),
        Example(
            "exhausted",
            "A campaign whose coupons are gone",
            msgspec.structs.replace(_CAMPAIGN, remaining=0),
            path_params=_WELCOME_PATH,
        ),
    ),
    "get_policies": (
        Example("defaults", "The limits as they come", _POLICIES),
        Example(
            "small-shop",
            "A shop with lower limits and an hour to pay",
            msgspec.structs.replace(
                _POLICIES, maximum_charge=500_000, maximum_payment=1_000_000, payment_deadline_seconds=3_600
            ),
        ),
    ),
    "get_position": (
        Example(
            "durable",
            "In PostgreSQL",
            schemas.PositionAnswer(position=POSITION, state="durable"),
            path_params={"position": POSITION},
        ),
        Example(
            "accepted",
            "In Redis, soon in PostgreSQL",
            schemas.PositionAnswer(position=POSITION, state="accepted"),
            path_params={"position": POSITION},
        ),
        Example(
            "lost",
            "Lost with a failed Redis before it was durable",
            schemas.PositionAnswer(position=POSITION, state="lost"),
            path_params={"position": POSITION},
        ),
    ),
    "put_product": (
        Example("changed", "A product changed", _CHANGED_SHIRT, 200, _SHIRT_PATH, body=_SHIRT_REQUEST),
        Example(
            "made",
            "A new product",
            _CHANGED_SHIRT,
            201,
            _SHIRT_PATH,
            body=_SHIRT_REQUEST,
            headers={"Location": "/v1/products/t-shirt"},
        ),
        Example(
            "one-size",
            "A new product of one stock item",
            _NEW_BEANIE,
            201,
            {"product_id": "wool-beanie"},
            body=_BEANIE_PUT,
            headers={"Location": "/v1/products/wool-beanie"},
        ),
    ),
    "adjust_stock": (
        Example(
            "received",
            "Fifty more came",
            _ADJUSTED,
            201,
            {"product_id": "t-shirt", "stock_id": "M"},
            body=schemas.AdjustmentRequest(delta=50, reason="delivery 2026-03-02"),
        ),
        Example(
            "taken-away",
            "Two were found damaged",
            msgspec.structs.replace(_ADJUSTED, available=202, position="5:3-91"),
            201,
            {"product_id": "t-shirt", "stock_id": "M"},
            body=schemas.AdjustmentRequest(delta=-2, reason="damaged"),
        ),
    ),
    "put_campaign": (
        Example("changed", "A campaign changed", _CHANGED_CAMPAIGN, 200, _SUMMER_PATH, body=_SUMMER_REQUEST),
        Example(
            "made",
            "A new campaign",
            _CHANGED_CAMPAIGN,
            201,
            _SUMMER_PATH,
            body=_SUMMER_REQUEST,
            headers={"Location": "/v1/campaigns/summer-2026"},
        ),
        Example(
            "percent",
            "A new campaign that takes off a percent",
            schemas.ChangedCampaign(**msgspec.structs.asdict(_AUTUMN), position="31:3-5", durable=False),
            201,
            {"campaign_id": "autumn-2026"},
            body=_AUTUMN_REQUEST,
            headers={"Location": "/v1/campaigns/autumn-2026"},
        ),
    ),
    "get_status": (
        Example("one-recovering", "One partition trusted, one in recovery", _STATUS),
        Example("all-well", "Everything trusted and in PostgreSQL", _ALL_TRUSTED),
    ),
    "list_deliveries": (
        Example(
            "delivered-and-dead",
            "One delivered, one given up",
            schemas.DeliveryPage(items=[_DEAD, _DELIVERY], next_cursor=None),
        ),
        Example(
            "dead",
            "What was given up",
            schemas.DeliveryPage(items=[_DEAD], next_cursor=None),
            query="state=dead",
        ),
    ),
    "replay_delivery": (
        Example("pending-again", "It will be tried again at once", _AGAIN, path_params={"delivery_id": "813"}),
        Example(
            "replayed",
            "The same key again: the first answer",
            _AGAIN,
            path_params={"delivery_id": "813"},
            body=schemas.NothingRequest(),
            headers={"Idempotent-Replayed": "true"},
        ),
    ),
    "list_alarms": (
        Example(
            "shortage",
            "A unit that was sold is not there",
            schemas.AlarmPage(
                items=[
                    schemas.Alarm(
                        alarm_id="4",
                        kind="stock_short",
                        partition=5,
                        subject="t-shirt/L",
                        detail="An order holds 1 unit more than there is.",
                        remedy="Restock the item or refund the order named.",
                        runbook="/runbook#stock_short",
                        raised_at="2026-03-02T10:30:00.000Z",
                        cleared_at=None,
                    )
                ],
                next_cursor=None,
            ),
        ),
        Example("quiet", "Nothing needs an operator", schemas.AlarmPage(items=[], next_cursor=None)),
    ),
    "get_livez": (Example("alive", "This process runs", schemas.Liveness(alive=True)),),
    "get_readyz": (
        Example("ready", "Ready", schemas.Readiness(ready=True, reason=None, recovering_partitions=[])),
        Example(
            "recovering",
            "Ready, but for what two partitions hold",
            schemas.Readiness(ready=True, reason=None, recovering_partitions=[17, 18]),
        ),
        Example(
            "not-ready",
            "No Redis can be reached",
            schemas.Readiness(ready=False, reason="No Redis server can be reached.", recovering_partitions=[]),
            503,
        ),
    ),
}
"""By operation id; the first is what the mock answers unless it is told otherwise."""

ORDER_PAID: Final = schemas.OrderPaid(
    specversion="1.0",
    id="17:3-1043",
    source="/firstcome",
    type="order.paid",
    subject=ORDER_ID,
    time="2026-03-02T10:06:30.004Z",
    datacontenttype="application/json",
    data=msgspec.structs.replace(_COMPLETED, durable=True),
    requestid="3f2a9c0d71be-1a",
)
"""What the data platform gets when an order is paid."""
