"""Baseline (a): FastAPI, SQLAlchemy's asyncio, asyncpg; PostgreSQL decides under SELECT ... FOR UPDATE.

Every answer is durable. Rows are locked in one order, so no two transactions wait for each other in a circle, and
what need not be under the lock of the hottest row comes before it. asyncpg keeps every statement prepared.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import uuid4

from fastapi import FastAPI
from sqlalchemy import BigInteger, ForeignKey, Index, bindparam, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

from loadtests.baselines.wire import PAYMENT_MAX, Coupon, CouponRequest, Order, OrderLine, OrderRequest, Refused, now
from loadtests.baselines.wire import make_app as make_fastapi

POOL = 10
"""Connections of a process: more of them only wait for the same locks."""


class Base(DeclarativeBase):
    """The tables."""

    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True)}  # noqa: RUF012


class Wallet(Base):
    __tablename__ = "wallet"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


class Product(Base):
    __tablename__ = "product"
    product_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]


class Stock(Base):
    __tablename__ = "stock"
    product_id: Mapped[str] = mapped_column(ForeignKey("product.product_id"), primary_key=True)
    stock_id: Mapped[str] = mapped_column(primary_key=True)
    available: Mapped[int]
    sold: Mapped[int]


class Campaign(Base):
    __tablename__ = "campaign"
    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    quantity: Mapped[int]
    issued: Mapped[int]
    value: Mapped[int]
    opens_at: Mapped[datetime]
    closes_at: Mapped[datetime]


class IssuedCoupon(Base):
    __tablename__ = "coupon"
    __table_args__ = (Index("coupon_by_user", "campaign_id", "user_id", unique=True),)
    coupon_id: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[str]
    user_id: Mapped[str]
    number: Mapped[int]
    value: Mapped[int]
    issued_at: Mapped[datetime]


class PaidOrder(Base):
    __tablename__ = "orders"
    __table_args__ = (Index("orders_by_user", "user_id", "ordered_at"),)
    order_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    total: Mapped[int]
    ordered_at: Mapped[datetime]


class PaidLine(Base):
    __tablename__ = "order_line"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    line_no: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[str]
    stock_id: Mapped[str]
    unit_price: Mapped[int]
    quantity: Mapped[int]


class LedgerEntry(Base):
    __tablename__ = "ledger_entry"
    __table_args__ = (Index("ledger_by_user", "user_id", "entry_id"),)
    entry_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    user_id: Mapped[str]
    order_id: Mapped[str]
    amount: Mapped[int]
    balance: Mapped[int]


_campaign = (
    select(Campaign.quantity, Campaign.issued, Campaign.value, Campaign.opens_at, Campaign.closes_at)
    .where(Campaign.campaign_id == bindparam("campaign"))
    .with_for_update()
)
_coupon_of = select(IssuedCoupon.coupon_id).where(
    IssuedCoupon.campaign_id == bindparam("campaign"), IssuedCoupon.user_id == bindparam("user")
)
_count_issue = update(Campaign).where(Campaign.campaign_id == bindparam("campaign")).values(issued=Campaign.issued + 1)
_items = (
    select(Stock.product_id, Stock.stock_id, Stock.available, Product.name, Product.price)
    .join(Product, Product.product_id == Stock.product_id)
    .where(tuple_(Stock.product_id, Stock.stock_id).in_(bindparam("items", expanding=True)))
    .order_by(Stock.product_id, Stock.stock_id)
    .with_for_update(of=Stock)
)
_wallet = select(Wallet.balance).where(Wallet.user_id == bindparam("user")).with_for_update()
_debit = update(Wallet).where(Wallet.user_id == bindparam("user")).values(balance=bindparam("new_balance"))
_sell = (
    update(Stock)
    .where(Stock.product_id == bindparam("product"), Stock.stock_id == bindparam("stock"))
    .values(available=Stock.available - bindparam("units"), sold=Stock.sold + bindparam("units"))
)


async def issue_coupon(engine: AsyncEngine, user_id: str, campaign_id: str) -> Coupon:
    """First come, one per user, while there are any."""
    known = {"campaign": campaign_id, "user": user_id}
    try:
        async with engine.begin() as connection:
            # Before the lock that all want; the unique index has the last word.
            earlier = (await connection.execute(_coupon_of, known)).scalar_one_or_none()
            if earlier is not None:
                raise Refused(409, "coupon-already-issued", coupon_id=earlier)
            campaign = (await connection.execute(_campaign, {"campaign": campaign_id})).one_or_none()
            if campaign is None:
                raise Refused(422, "unknown-reference")
            at = now()
            if not campaign.opens_at <= at < campaign.closes_at:
                raise Refused(409, "campaign-not-open")
            if campaign.issued >= campaign.quantity:
                raise Refused(409, "coupons-exhausted")
            number = campaign.issued + 1
            coupon_id = f"{user_id}-{at:%Y%m%d}-{number}"
            row = {
                "coupon_id": coupon_id, "campaign_id": campaign_id, "user_id": user_id, "number": number,
                "value": campaign.value, "issued_at": at,
            }  # fmt: skip
            await connection.execute(insert(IssuedCoupon), row)
            await connection.execute(_count_issue, {"campaign": campaign_id})
    except IntegrityError as error:
        raise Refused(409, "coupon-already-issued") from error
    return Coupon(coupon_id=coupon_id, campaign_id=campaign_id, issue_number=number, value=campaign.value, issued_at=at)


async def checkout(engine: AsyncEngine, user_id: str, request: OrderRequest) -> Order:
    """Order and pay at once: every line or none."""
    units = request.units()
    order_id = uuid4().hex
    async with engine.begin() as connection:
        # The wallet first: it is this user's own, so that the products that all want are locked for the shortest time.
        balance = (await connection.execute(_wallet, {"user": user_id})).scalar_one_or_none() or 0
        found = {
            (row.product_id, row.stock_id): row for row in await connection.execute(_items, {"items": list(units)})
        }
        if found.keys() != units.keys():
            raise Refused(422, "unknown-reference")
        short = [item for item, wanted in units.items() if found[item].available < wanted]
        if short:
            raise Refused(409, "out-of-stock", lines=short)
        lines = [
            OrderLine(
                product_id=product, stock_id=stock, name=found[product, stock].name,
                unit_price=found[product, stock].price, quantity=wanted, amount=found[product, stock].price * wanted,
            )
            for (product, stock), wanted in units.items()
        ]  # fmt: skip
        total = sum(line.amount for line in lines)
        if total > PAYMENT_MAX:
            raise Refused(422, "payment-limit")
        if balance < total:
            raise Refused(402, "insufficient-balance", balance=balance, total=total)
        at = now()
        await connection.execute(
            _sell, [{"product": line.product_id, "stock": line.stock_id, "units": line.quantity} for line in lines]
        )
        await connection.execute(_debit, {"user": user_id, "new_balance": balance - total})
        await connection.execute(
            insert(PaidOrder), {"order_id": order_id, "user_id": user_id, "total": total, "ordered_at": at}
        )
        await connection.execute(
            insert(PaidLine),
            [
                {
                    "order_id": order_id, "line_no": number, "product_id": line.product_id, "stock_id": line.stock_id,
                    "unit_price": line.unit_price, "quantity": line.quantity,
                }
                for number, line in enumerate(lines)
            ],
        )  # fmt: skip
        await connection.execute(
            insert(LedgerEntry),
            {"user_id": user_id, "order_id": order_id, "amount": -total, "balance": balance - total},
        )
    return Order(order_id=order_id, user_id=user_id, lines=lines, total=total, ordered_at=at)


def make_app() -> FastAPI:
    """The application; BASELINE_DATABASE_URL names its PostgreSQL."""
    engine = create_async_engine(os.environ["BASELINE_DATABASE_URL"], pool_size=POOL, max_overflow=0, pool_timeout=60)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = make_fastapi(lifespan=lifespan)

    @app.post("/v1/users/{user_id}/coupons", status_code=201)
    async def coupons(user_id: str, request: CouponRequest) -> Coupon:
        return await issue_coupon(engine, user_id, request.campaign_id)

    @app.post("/v1/users/{user_id}/checkout", status_code=201)
    async def orders(user_id: str, request: OrderRequest) -> Order:
        return await checkout(engine, user_id, request)

    return app
