"""What the engine raises. A class's docstring is its message."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.positions import Position


class EngineError(Exception):
    """The engine could not do what it was asked."""

    def __init__(self, reason: str = "") -> None:
        message = (self.__doc__ or "").strip()
        super().__init__(f"{message} {reason}".strip() if reason else message)
        self.reason = reason


class Unavailable(EngineError):
    """Redis cannot be asked now; nothing was executed."""


class OutcomeUnknown(EngineError):
    """The command was sent and no reply came; it may have been executed, or may be yet."""

    order_id: str | None = None
    """The order that it was about, where there is one; set by the flow."""


@contextmanager
def about_order(order_id: str) -> Iterator[None]:
    """Within it, an outcome that is unknown is that of this order."""
    try:
        yield
    except OutcomeUnknown as error:
        error.order_id = order_id
        raise


class Overloaded(EngineError):
    """Too many calls are under way; nothing was sent."""


class ServerError(EngineError):
    """Redis answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


class WriterBehind(EngineError):
    """Too many changes wait to become durable; new work is refused until the writer has caught up."""


class Recovering(EngineError):
    """This part of the shop is not trusted yet, or a recovery came between; nothing can be said now."""


class TookTooLong(EngineError):
    """The order was not decided in the time that one may take. It never will be, and what it held is given back."""


class MayBeCold(EngineError):
    """It may have left Redis, so PostgreSQL has to be asked before this can be decided."""

    def __init__(self, asked: str) -> None:
        super().__init__()
        self.asked = asked
        """What to say when PostgreSQL was asked after this, and does not have it."""


class StaleGeneration(EngineError):
    """A recovery came between the beginning of this flow and this step. Flows catch it; it never leaves the engine."""


class ClaimLost(EngineError):
    """Another recovery or another server has come between; what this one does there has no effect any more."""


class Refusal(EngineError):
    """The rules say no. Nothing is changed but what the class says; asking the same again gives the same answer."""


class IdempotencyKeyReused(Refusal):
    """The idempotency key belongs to another request."""


class RequestInProgress(Refusal):
    """A request with this idempotency key is under way."""


class NotFound(Refusal):
    """There is no such thing, or it belongs to another user."""


class ChargeLimit(Refusal):
    """The amount is outside of what one charge may be."""

    def __init__(self, minimum: int, maximum: int) -> None:
        super().__init__()
        self.minimum = minimum
        self.maximum = maximum


class BalanceLimit(Refusal):
    """The balance would pass the highest one allowed."""

    def __init__(self, balance: int, maximum: int) -> None:
        super().__init__()
        self.balance = balance
        self.maximum = maximum


class UnitPriceLimit(Refusal):
    """The price is outside of what a product may cost."""

    def __init__(self, maximum: int) -> None:
        super().__init__()
        self.maximum = maximum


class TooManyStockItems(Refusal):
    """The product would have more stock items than one may have."""

    def __init__(self, stock_items: int, maximum: int) -> None:
        super().__init__()
        self.stock_items = stock_items
        self.maximum = maximum


class StockLimit(Refusal):
    """The available quantity would fall below zero or pass the highest one allowed."""

    def __init__(self, available: int) -> None:
        super().__init__()
        self.available = available


class UnknownReference(Refusal):
    """The order names a product or a stock item that there is not."""

    def __init__(self, product_id: str, stock_id: str | None) -> None:
        super().__init__()
        self.product_id = product_id
        self.stock_id = stock_id


class UnknownCampaign(Refusal):
    """The request names a campaign that there is not."""

    def __init__(self, campaign_id: str) -> None:
        super().__init__()
        self.campaign_id = campaign_id


class StockIdRequired(Refusal):
    """The product has several stock items, so the order must name one."""

    def __init__(self, product_id: str) -> None:
        super().__init__()
        self.product_id = product_id


class LineLimit(Refusal):
    """The order has too many lines, or too many units of one stock item."""

    def __init__(
        self, requested: int, maximum: int, *, product_id: str | None = None, stock_id: str | None = None
    ) -> None:
        super().__init__()
        self.requested = requested
        self.maximum = maximum
        self.product_id = product_id
        self.stock_id = stock_id


@dataclass(frozen=True, slots=True)
class ShortLine:
    """A line that cannot be had: units asked for, units available, and units that orders in progress hold."""

    product_id: str
    stock_id: str
    requested: int
    available: int
    reserved: int

    @property
    def is_sold_out(self) -> bool:
        """Whether none is left, and none would be if the orders in progress gave theirs back."""
        return self.available == 0 and self.reserved < self.requested


class OutOfStock(Refusal):
    """Some lines cannot be had in full; nothing is held."""

    def __init__(self, lines: tuple[ShortLine, ...]) -> None:
        super().__init__()
        self.lines = lines

    @property
    def only_held_by_others(self) -> bool:
        """Whether every line could be had if the orders in progress gave theirs back."""
        return all(line.available + line.reserved >= line.requested for line in self.lines)


class OrderInProgress(Refusal):
    """The user has an order that awaits payment, and one is the most."""

    def __init__(self, order_id: str, pay_before_ms: int) -> None:
        super().__init__()
        self.order_id = order_id
        self.pay_before_ms = pay_before_ms


class CouponNotValid(Refusal):
    """The coupon gives this order no discount now."""

    def __init__(self, coupon_id: str, why: str, *, subtotal: int, discount_min: int) -> None:
        super().__init__()
        self.coupon_id = coupon_id
        self.why = why
        self.subtotal = subtotal
        self.discount_min = discount_min


class PaymentLimit(Refusal):
    """The total is more than one payment may be."""

    def __init__(self, total: int, maximum: int) -> None:
        super().__init__()
        self.total = total
        self.maximum = maximum


class InsufficientBalance(Refusal):
    """The balance does not pay the order. It is failed and on record; all that it held is given back."""

    def __init__(
        self,
        order_id: str,
        balance: int,
        total: int,
        *,
        positions: tuple[Position, ...],
        replayed: bool = False,
    ) -> None:
        super().__init__()
        self.order_id = order_id
        self.balance = balance
        self.total = total
        self.positions = positions
        """Where the order failed, and where what it held was given back."""
        self.replayed = replayed


class OrderNotPayable(Refusal):
    """The order has failed, and a failed order stays failed."""

    def __init__(
        self,
        order_id: str,
        status: str,
        failure: str | None,
        *,
        positions: tuple[Position, ...] = (),
        replayed: bool = False,
    ) -> None:
        super().__init__()
        self.order_id = order_id
        self.status = status
        self.failure = failure
        self.positions = positions
        """What this request has changed: it has found the order's deadline passed, and failed it."""
        self.replayed = replayed


class OrderNotCancellable(OrderNotPayable):
    """The order is completed, or has failed for another reason."""


class CampaignNotOpen(Refusal):
    """The campaign gives no coupons at this time."""

    def __init__(self, opens_at_ms: int, closes_at_ms: int, upcoming: bool) -> None:
        super().__init__()
        self.opens_at_ms = opens_at_ms
        self.closes_at_ms = closes_at_ms
        self.upcoming = upcoming


class CouponsExhausted(Refusal):
    """Every coupon of the campaign is issued."""

    def __init__(self, quantity: int) -> None:
        super().__init__()
        self.quantity = quantity


class CouponAlreadyIssued(Refusal):
    """This user has a coupon of this campaign."""

    def __init__(self, coupon_id: str) -> None:
        super().__init__()
        self.coupon_id = coupon_id


class QuantityBelowIssued(Refusal):
    """More coupons are issued already than the campaign would have."""

    def __init__(self, issued: int) -> None:
        super().__init__()
        self.issued = issued
