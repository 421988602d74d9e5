"""From the engine's values to the answers of the HTTP surface."""

from __future__ import annotations

import msgspec

from api import schemas
from api.times import format_moment, format_optional_moment, format_optional_time, format_time
from engine.catalog import Product
from engine.coupons import Campaign, Coupon, Discount
from engine.orders import Order
from engine.positions import Position, position_text
from persistence.history import RecordedOrder

PAYMENT_STATUS: dict[str, schemas.PaymentStatus] = {
    "pending": "pending",
    "awaiting_payment": "pending",
    "completed": "paid",
    "failed": "failed",
}
"""An order's status to its payment's: the state table of docs/architecture.md."""


def order_answer(order: Order, currency: str, *, durable: bool) -> schemas.Order:
    """An order as clients see it."""
    return schemas.Order(
        order_id=order.order_id,
        user_id=order.user_id,
        status=order.status,  # type: ignore[arg-type]
        payment=schemas.Payment(
            status=PAYMENT_STATUS[order.status],
            amount=order.total,
            paid_at=format_optional_time(order.paid_at_ms),
            failure=order.failure,  # type: ignore[arg-type]
        ),
        lines=msgspec.Raw(order.lines_json),  # type: ignore[arg-type]  # it is written just so
        subtotal=order.subtotal,
        discount=order.discount,
        total=order.total,
        currency=currency,
        coupon_id=order.coupon_id,
        ordered_at=format_time(order.ordered_at_ms),
        pay_before=format_optional_time(order.pay_before_ms),
        position=position_text(order.positions),
        durable=durable,
    )


def recorded_order_answer(order: RecordedOrder, currency: str) -> schemas.Order:
    """An order as PostgreSQL has it, which makes it durable."""
    return schemas.Order(
        order_id=order.order_id,
        user_id=order.user_id,
        status=order.status,  # type: ignore[arg-type]
        payment=schemas.Payment(
            status=PAYMENT_STATUS[order.status],
            amount=order.total,
            paid_at=format_optional_moment(order.paid_at),
            failure=order.failure,  # type: ignore[arg-type]
        ),
        lines=[
            schemas.OrderLine(
                product_id=line.product_id,
                stock_id=line.stock_id,
                name=line.name,
                option=line.option,
                unit_price=line.unit_price,
                quantity=line.quantity,
                amount=line.amount,
            )
            for line in order.lines
        ],
        subtotal=order.subtotal,
        discount=order.discount,
        total=order.total,
        currency=currency,
        coupon_id=order.coupon_id,
        ordered_at=format_moment(order.ordered_at),
        pay_before=format_optional_moment(order.pay_before),
        position=order.position,
        durable=True,
    )


def product_answer(product: Product, currency: str) -> schemas.Product:
    """A product with its stock items."""
    return schemas.Product(
        product_id=product.product_id,
        name=product.name,
        price=product.price,
        currency=currency,
        available=product.available,
        stock=[
            schemas.StockItem(
                stock_id=item.stock_id, product_id=item.product_id, option=item.option, available=item.available
            )
            for item in product.stock
        ],
    )


def changed_product_answer(
    product: Product, currency: str, positions: tuple[Position, ...], *, durable: bool
) -> schemas.ChangedProduct:
    """A product just made or changed."""
    shown = product_answer(product, currency)
    return schemas.ChangedProduct(
        product_id=shown.product_id,
        name=shown.name,
        price=shown.price,
        currency=shown.currency,
        available=shown.available,
        stock=shown.stock,
        position=position_text(positions),
        durable=durable,
    )


def product_summary(product: Product, currency: str) -> schemas.ProductSummary:
    """A product in a list."""
    return schemas.ProductSummary(
        product_id=product.product_id,
        name=product.name,
        price=product.price,
        currency=currency,
        available=product.available,
    )


def discount_answer(discount: Discount) -> schemas.Discount:
    """A coupon's rule."""
    return schemas.Discount(
        kind=discount.kind,  # type: ignore[arg-type]
        value=discount.value,
        minimum_order=discount.minimum_order,
        maximum_discount=discount.maximum_discount,
    )


def coupon_answer(coupon: Coupon, at_ms: int) -> schemas.Coupon:
    """A coupon as it stands at ``at_ms``."""
    return schemas.Coupon(**_coupon_fields(coupon, at_ms))  # type: ignore[arg-type]


def issued_coupon_answer(coupon: Coupon, at_ms: int, *, durable: bool) -> schemas.IssuedCoupon:
    """A coupon just issued."""
    return schemas.IssuedCoupon(
        **_coupon_fields(coupon, at_ms),  # type: ignore[arg-type]
        position=position_text(coupon.positions),
        durable=durable,
    )


def campaign_answer(campaign: Campaign) -> schemas.Campaign:
    """A campaign as it stands."""
    return schemas.Campaign(**_campaign_fields(campaign))  # type: ignore[arg-type]


def changed_campaign_answer(
    campaign: Campaign, positions: tuple[Position, ...], *, durable: bool
) -> schemas.ChangedCampaign:
    """A campaign just made or changed."""
    return schemas.ChangedCampaign(
        **_campaign_fields(campaign),  # type: ignore[arg-type]
        position=position_text(positions),
        durable=durable,
    )


def _coupon_fields(coupon: Coupon, at_ms: int) -> dict[str, object]:
    # The server's clock is known here only to a millisecond or two, and it cannot stand before the issue any more.
    reason = coupon.reason_invalid(max(at_ms, coupon.issued_at_ms))
    return {
        "coupon_id": coupon.coupon_id,
        "campaign_id": coupon.campaign_id,
        "issue_number": coupon.issue_number,
        "state": "invalid" if reason else "valid",
        "reason": reason,
        "discount": discount_answer(coupon.discount),
        "issued_at": format_time(coupon.issued_at_ms),
        "valid_from": format_time(coupon.valid_from_ms),
        "valid_until": format_time(coupon.valid_until_ms),
        "order_id": coupon.order_id,
        "used_at": format_optional_time(coupon.used_at_ms),
    }


def _campaign_fields(campaign: Campaign) -> dict[str, object]:
    return {
        "campaign_id": campaign.campaign_id,
        "name": campaign.name,
        "discount": discount_answer(campaign.discount),
        "quantity": campaign.quantity,
        "remaining": campaign.remaining,
        "opens_at": format_time(campaign.opens_at_ms),
        "closes_at": format_time(campaign.closes_at_ms),
        "valid_days": campaign.valid_days,
    }
