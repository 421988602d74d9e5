"""The route table: one `Operation` per method and path; routing, checks, specification, mock and tests come from it.

Handlers are bound to operations by `operation_id` elsewhere, so this table knows of no implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from api import problems, schemas
from api.examples import EXAMPLES, Example
from api.problems import ProblemType

Method = Literal["GET", "POST", "PUT"]
Security = Literal["user", "admin", "none"]


@dataclass(frozen=True, slots=True)
class PathParameter:
    """An id in a path: its type for the specification, and the same as characters and a length, quick to check."""

    name: str
    type: Any
    characters: str
    length_max: int

    def allows(self, value: str) -> bool:
        """Whether the type would take this value."""
        return 0 < len(value) <= self.length_max and not value.strip(self.characters) and value not in _DOT_SEGMENTS


_DOT_SEGMENTS: Final = (".", "..")
"""What clients and proxies take out of a path."""

PATH_PARAMETERS: Final[Mapping[str, PathParameter]] = MappingProxyType(
    {
        parameter.name: parameter
        for parameter in (
            PathParameter("user_id", schemas.UserId, schemas.ID_CHARACTERS, schemas.ID_LENGTH_MAX),
            PathParameter("product_id", schemas.ProductId, schemas.ID_CHARACTERS, schemas.ID_LENGTH_MAX),
            PathParameter("stock_id", schemas.StockId, schemas.ID_CHARACTERS, schemas.ID_LENGTH_MAX),
            PathParameter("campaign_id", schemas.CampaignId, schemas.ID_CHARACTERS, schemas.ID_LENGTH_MAX),
            PathParameter("order_id", schemas.OrderId, schemas.ID_CHARACTERS, schemas.MADE_ID_LENGTH_MAX),
            PathParameter("coupon_id", schemas.CouponId, schemas.ID_CHARACTERS, schemas.MADE_ID_LENGTH_MAX),
            PathParameter("position", schemas.Position, schemas.POSITION_CHARACTERS, schemas.POSITION_LENGTH_MAX),
            PathParameter("delivery_id", schemas.DeliveryId, schemas.DIGITS, schemas.DELIVERY_ID_LENGTH_MAX),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method and path.

    `answers` maps each status that is no problem to the type of its body. `own_problems` are those beyond what all such
    operations share, in the order in which they are checked. `repeatable`: sent twice, it cannot act twice,
    even without a key. `has_location`: a 201 carries `Location`. `conditional`: it is polled, so a 200 carries `ETag`,
    and a client that has that already is answered 304.
    """

    operation_id: str
    method: Method
    path: str
    tag: str
    summary: str
    description: str = ""
    security: Security = "user"
    request: type[msgspec.Struct] | None = None
    request_optional: bool = False
    query: type[msgspec.Struct] = schemas.NoQuery
    answers: Mapping[int, type[msgspec.Struct]]
    own_problems: tuple[ProblemType, ...] = ()
    repeatable: bool = True
    has_location: bool = False
    conditional: bool = False

    @property
    def changing(self) -> bool:
        """Whether it changes anything; a changing operation honours `Prefer: durable`."""
        return self.method != "GET"

    @property
    def takes_key(self) -> bool:
        """Whether it takes `Idempotency-Key`; what becomes of one is said in `api.idempotency`."""
        return self.method == "POST"

    @property
    def path_parameters(self) -> tuple[PathParameter, ...]:
        """The ids in the path, in their order."""
        return tuple(PATH_PARAMETERS[part[1:-1]] for part in self.path.split("/") if part.startswith("{"))

    @property
    def checks(self) -> tuple[ProblemType, ...]:
        """Every problem that it can answer, in the order of the checks; one that is checked twice stands twice."""
        if self.security == "none" and self.tag == HEALTH:
            return (problems.NOT_ACCEPTABLE, problems.INVALID_REQUEST, problems.INTERNAL_ERROR)
        return (
            *_RIGHTS_PROBLEMS[self.security],
            problems.TOO_MANY_REQUESTS,
            problems.NOT_ACCEPTABLE,
            problems.INVALID_REQUEST,
            *(_BODY_PROBLEMS if self.request is not None else ()),
            *self.own_problems,
            problems.OVERLOADED,
            problems.RECOVERING,
            *((problems.OUTCOME_UNKNOWN,) if self.changing else ()),
            problems.INTERNAL_ERROR,
        )

    @property
    def problems(self) -> tuple[ProblemType, ...]:
        """Every problem that it can answer, once, in the order of its first check."""
        return tuple(dict.fromkeys(self.checks))

    @property
    def examples(self) -> tuple[Example, ...]:
        """What the mock answers; the first is its default."""
        return EXAMPLES[self.operation_id]


_RIGHTS_PROBLEMS: Final[Mapping[Security, tuple[ProblemType, ...]]] = MappingProxyType(
    {
        "user": (problems.NOT_AUTHENTICATED, problems.NOT_FOUND),
        "admin": (problems.NOT_AUTHENTICATED, problems.NOT_ALLOWED),
        "none": (),
    }
)
_BODY_PROBLEMS: Final = (
    problems.BODY_TOO_LARGE,
    problems.REQUEST_TIMEOUT,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.MALFORMED_BODY,
    problems.INVALID_REQUEST,
)
_KEY_PROBLEMS: Final = (problems.IDEMPOTENCY_KEY_REUSED, problems.REQUEST_IN_PROGRESS)
_ORDER_PROBLEMS: Final = (
    problems.LINE_LIMIT,
    *_KEY_PROBLEMS,
    problems.UNKNOWN_REFERENCE,
    problems.STOCK_ID_REQUIRED,
    problems.LINE_LIMIT,
    problems.OUT_OF_STOCK,
    problems.ORDER_IN_PROGRESS,
    problems.COUPON_NOT_VALID,
    problems.PAYMENT_LIMIT,
)

BALANCE: Final = "Balance"
PRODUCTS: Final = "Products"
ORDERS: Final = "Orders and payment"
COUPONS: Final = "Coupons"
SHOP: Final = "Policies and positions"
OPERATORS: Final = "Operators"
HEALTH: Final = "Health"
TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        BALANCE: "Charging a balance and reading it.",
        PRODUCTS: "Products with their stock, and what sells best.",
        ORDERS: "An order holds stock and a coupon until it is paid, cancelled or expired.",
        COUPONS: "First come, first served: each campaign's coupons, one per user.",
        SHOP: "The limits that hold, and how safe a change is.",
        OPERATORS: "The catalogue, campaigns and the state of the system; needs the scope `admin`.",
        HEALTH: "For load balancers and supervisors.",
    }
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        operation_id="get_balance",
        method="GET",
        path="/v1/users/{user_id}/balance",
        tag=BALANCE,
        summary="Read a balance",
        description="An unknown user has balance 0.",
        answers={200: schemas.Balance},
    ),
    Operation(
        operation_id="charge_balance",
        method="POST",
        path="/v1/users/{user_id}/balance/charges",
        tag=BALANCE,
        summary="Charge a balance",
        description="Puts an amount onto the balance. The server never repeats a charge by itself. "
        "Without a key a second request is a second charge.",
        request=schemas.ChargeRequest,
        answers={201: schemas.Charge},
        own_problems=(problems.CHARGE_LIMIT, *_KEY_PROBLEMS, problems.BALANCE_LIMIT),
        repeatable=False,
    ),
    Operation(
        operation_id="list_balance_entries",
        method="GET",
        path="/v1/users/{user_id}/balance/entries",
        tag=BALANCE,
        summary="List what changed a balance",
        description="Charges and payments, newest first.",
        query=schemas.HistoryQuery,
        answers={200: schemas.LedgerPage},
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="list_products",
        method="GET",
        path="/v1/products",
        tag=PRODUCTS,
        summary="List products",
        description="`available` is as of the answer; each product is consistent in itself.",
        security="none",
        query=schemas.PageQuery,
        answers={200: schemas.ProductPage},
        conditional=True,
    ),
    Operation(
        operation_id="get_product",
        method="GET",
        path="/v1/products/{product_id}",
        tag=PRODUCTS,
        summary="Read a product with its stock",
        description="All of it is read in one instant, so an order under way is in it wholly or not at all.",
        security="none",
        answers={200: schemas.Product},
        conditional=True,
        own_problems=(problems.NOT_FOUND,),
    ),
    Operation(
        operation_id="list_best_sellers",
        method="GET",
        path="/v1/best-sellers",
        tag=PRODUCTS,
        summary="List the products sold most",
        description="Units of paid orders by the day of their payment, today and the days before it in the business "
        "time zone. Orders count as soon as they are durable.",
        security="none",
        query=schemas.BestSellersQuery,
        answers={200: schemas.BestSellers},
        conditional=True,
    ),
    Operation(
        operation_id="place_order",
        method="POST",
        path="/v1/users/{user_id}/orders",
        tag=ORDERS,
        summary="Place an order",
        description="Reserves the stock of every line, all or nothing, takes the coupon, and awaits payment until "
        "`pay_before`. `stock_id` may be left out where the product has one stock item; the same stock item given "
        "twice is added up.",
        request=schemas.OrderRequest,
        answers={201: schemas.Order},
        own_problems=_ORDER_PROBLEMS,
        repeatable=False,
        has_location=True,
    ),
    Operation(
        operation_id="get_order",
        method="GET",
        path="/v1/users/{user_id}/orders/{order_id}",
        tag=ORDERS,
        summary="Read an order",
        description="Tells what became of an order whose answer was lost, and whether it is paid. One that has left "
        "Redis is read from PostgreSQL.",
        answers={200: schemas.Order},
        own_problems=(problems.NOT_FOUND, problems.HISTORY_UNAVAILABLE),
    ),
    Operation(
        operation_id="list_orders",
        method="GET",
        path="/v1/users/{user_id}/orders",
        tag=ORDERS,
        summary="List a user's orders",
        description="Newest first; the open and the last order are always in it.",
        query=schemas.HistoryQuery,
        answers={200: schemas.OrderPage},
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="pay_order",
        method="POST",
        path="/v1/users/{user_id}/orders/{order_id}/payment",
        tag=ORDERS,
        summary="Pay an order",
        description="Takes the total from the balance and completes the order. Too small a balance fails the order and "
        "gives everything back. Paying a completed order again answers the same as the first time.",
        request=schemas.NothingRequest,
        request_optional=True,
        answers={200: schemas.Order},
        own_problems=(
            *_KEY_PROBLEMS,
            problems.NOT_FOUND,
            problems.HISTORY_UNAVAILABLE,
            problems.ORDER_NOT_PAYABLE,
            problems.INSUFFICIENT_BALANCE,
        ),
    ),
    Operation(
        operation_id="cancel_order",
        method="POST",
        path="/v1/users/{user_id}/orders/{order_id}/cancellation",
        tag=ORDERS,
        summary="Cancel an order",
        description="Fails an order that awaits its payment and gives everything back. Cancelling a cancelled order "
        "again answers the same as the first time.",
        request=schemas.NothingRequest,
        request_optional=True,
        answers={200: schemas.Order},
        own_problems=(
            *_KEY_PROBLEMS,
            problems.NOT_FOUND,
            problems.HISTORY_UNAVAILABLE,
            problems.ORDER_NOT_CANCELLABLE,
        ),
    ),
    Operation(
        operation_id="checkout",
        method="POST",
        path="/v1/users/{user_id}/checkout",
        tag=ORDERS,
        summary="Order and pay at once",
        description="Too small a balance leaves a failed order on record and nothing held.",
        request=schemas.OrderRequest,
        answers={201: schemas.Order},
        own_problems=(*_ORDER_PROBLEMS, problems.INSUFFICIENT_BALANCE),
        repeatable=False,
        has_location=True,
    ),
    Operation(
        operation_id="issue_coupon",
        method="POST",
        path="/v1/users/{user_id}/coupons",
        tag=COUPONS,
        summary="Take a first-come coupon",
        description="`issue_number` is the user's place in line. One coupon per user and campaign.",
        request=schemas.CouponRequest,
        answers={201: schemas.IssuedCoupon},
        own_problems=(
            *_KEY_PROBLEMS,
            problems.UNKNOWN_REFERENCE,
            problems.COUPON_ALREADY_ISSUED,
            problems.CAMPAIGN_NOT_OPEN,
            problems.COUPONS_EXHAUSTED,
        ),
        repeatable=False,
        has_location=True,
    ),
    Operation(
        operation_id="list_coupons",
        method="GET",
        path="/v1/users/{user_id}/coupons",
        tag=COUPONS,
        summary="List a user's coupons",
        description="A coupon is valid when a new order could take it now.",
        query=schemas.CouponsQuery,
        answers={200: schemas.CouponPage},
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="get_coupon",
        method="GET",
        path="/v1/users/{user_id}/coupons/{coupon_id}",
        tag=COUPONS,
        summary="Read a coupon",
        description="Whether a new order could take it now, and which order has taken or used it.",
        answers={200: schemas.Coupon},
        own_problems=(problems.NOT_FOUND, problems.HISTORY_UNAVAILABLE),
    ),
    Operation(
        operation_id="list_campaigns",
        method="GET",
        path="/v1/campaigns",
        tag=COUPONS,
        summary="List campaigns",
        description="By opening time; the open, the upcoming and the closed ones unless `state` says otherwise. "
        "`remaining` is as of the answer.",
        security="none",
        query=schemas.CampaignsQuery,
        answers={200: schemas.CampaignList},
        conditional=True,
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="get_campaign",
        method="GET",
        path="/v1/campaigns/{campaign_id}",
        tag=COUPONS,
        summary="Read a campaign",
        description="`remaining` is as of the answer.",
        security="none",
        answers={200: schemas.Campaign},
        conditional=True,
        own_problems=(problems.NOT_FOUND,),
    ),
    Operation(
        operation_id="get_policies",
        method="GET",
        path="/v1/policies",
        tag=SHOP,
        summary="Read every limit",
        description="What a client checks before it asks: minimum and maximum of charges, balances, payments, prices, "
        "quantities and discounts; the currency, the time zone of days, and how long an order awaits its payment.",
        security="none",
        answers={200: schemas.Policies},
    ),
    Operation(
        operation_id="get_position",
        method="GET",
        path="/v1/positions/{position}",
        tag=SHOP,
        summary="Ask how safe a change is",
        description="Accepted, then durable for ever; or lost with a Redis that failed before it was durable.",
        security="none",
        answers={200: schemas.PositionAnswer},
        own_problems=(problems.NOT_FOUND, problems.HISTORY_UNAVAILABLE),
    ),
    Operation(
        operation_id="put_product",
        method="PUT",
        path="/admin/v1/products/{product_id}",
        tag=OPERATORS,
        summary="Make or change a product",
        description="`initial_quantity` counts only when the stock item is new; a stock item left out stays.",
        security="admin",
        request=schemas.ProductRequest,
        answers={200: schemas.ChangedProduct, 201: schemas.ChangedProduct},
        has_location=True,
    ),
    Operation(
        operation_id="adjust_stock",
        method="POST",
        path="/admin/v1/products/{product_id}/stock/{stock_id}/adjustments",
        tag=OPERATORS,
        summary="Adjust a stock item",
        description="Adds units or takes them away; never below zero.",
        security="admin",
        request=schemas.AdjustmentRequest,
        answers={201: schemas.AdjustedStockItem},
        own_problems=(*_KEY_PROBLEMS, problems.NOT_FOUND, problems.STOCK_LIMIT),
        repeatable=False,
    ),
    Operation(
        operation_id="put_campaign",
        method="PUT",
        path="/admin/v1/campaigns/{campaign_id}",
        tag=OPERATORS,
        summary="Make or change a campaign",
        description="One coupon per user. What is issued keeps the rule that it was issued with.",
        security="admin",
        request=schemas.CampaignRequest,
        answers={200: schemas.ChangedCampaign, 201: schemas.ChangedCampaign},
        has_location=True,
        own_problems=(problems.QUANTITY_BELOW_ISSUED,),
    ),
    Operation(
        operation_id="get_status",
        method="GET",
        path="/admin/v1/status",
        tag=OPERATORS,
        summary="Read the state of the system",
        description="Partitions with their trust, lag and backlog; servers and versions.",
        security="admin",
        answers={200: schemas.SystemStatus},
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="list_deliveries",
        method="GET",
        path="/admin/v1/deliveries",
        tag=OPERATORS,
        summary="List deliveries to the data platform",
        description="Every paid order that was, is or will be sent to the data platform; `state=dead` are those that "
        "were given up.",
        security="admin",
        query=schemas.DeliveriesQuery,
        answers={200: schemas.DeliveryPage},
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="replay_delivery",
        method="POST",
        path="/admin/v1/deliveries/{delivery_id}/replay",
        tag=OPERATORS,
        summary="Deliver once more",
        description="Puts a delivery back in line, also one that was given up.",
        security="admin",
        request=schemas.NothingRequest,
        request_optional=True,
        answers={200: schemas.Delivery},
        own_problems=(*_KEY_PROBLEMS, problems.NOT_FOUND, problems.HISTORY_UNAVAILABLE),
    ),
    Operation(
        operation_id="list_alarms",
        method="GET",
        path="/admin/v1/alarms",
        tag=OPERATORS,
        summary="List alarms",
        description="Stopped partitions, shortages, audit mismatches.",
        security="admin",
        query=schemas.AlarmsQuery,
        answers={200: schemas.AlarmPage},
        own_problems=(problems.HISTORY_UNAVAILABLE,),
    ),
    Operation(
        operation_id="get_livez",
        method="GET",
        path="/livez",
        tag=HEALTH,
        summary="Does this process run?",
        description="200 as long as this process answers at all; a supervisor restarts one that does not.",
        security="none",
        answers={200: schemas.Liveness},
    ),
    Operation(
        operation_id="get_readyz",
        method="GET",
        path="/readyz",
        tag=HEALTH,
        summary="Can this process serve anything?",
        description="200 as long as it can serve anything, so a load balancer sends requests here; 503 when it can "
        "serve nothing, or is about to end.",
        security="none",
        answers={200: schemas.Readiness, 503: schemas.Readiness},
    ),
)
"""The whole surface."""
