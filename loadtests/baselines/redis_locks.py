"""Baseline (b): FastAPI, redis-py; Redis locks around read, decide and write. Nothing is durable.

A lock for the user and one for each product or campaign, taken in one order. Reads and writes of a request are one
pipeline each, and the writes are one transaction.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from uuid import uuid4

from fastapi import FastAPI
from redis.asyncio import BlockingConnectionPool, Redis

from loadtests.baselines.wire import PAYMENT_MAX, Coupon, CouponRequest, Order, OrderLine, OrderRequest, Refused, now
from loadtests.baselines.wire import make_app as make_fastapi

POOL = 100
LOCK_TIMEOUT_S = 10.0
LOCK_WAIT_S = 30.0
PAUSE_S = 0.00125
"""How long a request waits between two tries for a lock, for each request under way: 0.08 s among 64, 0.32 among 256,
the best of those that were tried for coupons. With a shorter one the tries are all that the process does (95 coupons a
second among 256 with 0.02 s, 539 so); with redis-py's own, 0.1 s, a lock that few want is free for most of the time.
"""


class _UnderWay:
    """How many requests of this process want locks or have them."""

    count = 0


@asynccontextmanager
async def _locked(redis: Redis, names: Sequence[str]) -> AsyncIterator[None]:
    _UnderWay.count += 1
    try:
        async with AsyncExitStack() as stack:
            for name in names:
                pause = PAUSE_S * _UnderWay.count
                lock = redis.lock(f"lock:{name}", timeout=LOCK_TIMEOUT_S, sleep=pause, blocking_timeout=LOCK_WAIT_S)
                await stack.enter_async_context(lock)
            yield
    finally:
        _UnderWay.count -= 1


async def issue_coupon(redis: Redis, user_id: str, campaign_id: str) -> Coupon:
    """First come, one per user, while there are any."""
    async with _locked(redis, [f"user:{user_id}", f"campaign:{campaign_id}"]):
        reading = redis.pipeline(transaction=False)
        reading.hgetall(f"campaign:{campaign_id}")
        reading.hget(f"issued:{campaign_id}", user_id)
        campaign, earlier = await reading.execute()
        if not campaign:
            raise Refused(422, "unknown-reference")
        at = now()
        if not datetime.fromisoformat(campaign["opens_at"]) <= at < datetime.fromisoformat(campaign["closes_at"]):
            raise Refused(409, "campaign-not-open")
        if int(campaign["issued"]) >= int(campaign["quantity"]):
            raise Refused(409, "coupons-exhausted")
        if earlier is not None:
            raise Refused(409, "coupon-already-issued", coupon_id=earlier)
        number = int(campaign["issued"]) + 1
        coupon_id = f"{user_id}-{at:%Y%m%d}-{number}"
        value = int(campaign["value"])
        writing = redis.pipeline(transaction=True)
        writing.hset(f"campaign:{campaign_id}", "issued", number)
        writing.hset(f"issued:{campaign_id}", user_id, coupon_id)
        coupon = Coupon(coupon_id=coupon_id, campaign_id=campaign_id, issue_number=number, value=value, issued_at=at)
        writing.set(f"coupon:{coupon_id}", coupon.model_dump_json())
        writing.sadd(f"coupons:{user_id}", coupon_id)
        await writing.execute()
    return coupon


async def checkout(redis: Redis, user_id: str, request: OrderRequest) -> Order:
    """Order and pay at once: every line or none."""
    units = request.units()
    order_id = uuid4().hex
    locks = [f"user:{user_id}", *(f"product:{product}" for product in sorted({product for product, _ in units}))]
    async with _locked(redis, locks):
        reading = redis.pipeline(transaction=False)
        reading.get(f"balance:{user_id}")
        for product, stock in units:
            reading.hmget(f"product:{product}", "name", "price", f"available:{stock}")
        balance_text, *found = await reading.execute()
        balance = int(balance_text or 0)
        lines = []
        short = []
        for ((product, stock), wanted), (name, price, available) in zip(units.items(), found, strict=True):
            if available is None:
                raise Refused(422, "unknown-reference")
            if int(available) < wanted:
                short.append((product, stock))
            amount = int(price) * wanted
            priced = {"unit_price": int(price), "quantity": wanted, "amount": amount}
            lines.append(OrderLine(product_id=product, stock_id=stock, name=name, **priced))
        if short:
            raise Refused(409, "out-of-stock", lines=short)
        total = sum(line.amount for line in lines)
        if total > PAYMENT_MAX:
            raise Refused(422, "payment-limit")
        if balance < total:
            raise Refused(402, "insufficient-balance", balance=balance, total=total)
        order = Order(order_id=order_id, user_id=user_id, lines=lines, total=total, ordered_at=now())
        writing = redis.pipeline(transaction=True)
        for line, (_, _, available) in zip(lines, found, strict=True):
            writing.hset(f"product:{line.product_id}", f"available:{line.stock_id}", int(available) - line.quantity)
            writing.hincrby("sold", f"{line.product_id}:{line.stock_id}", line.quantity)
        writing.set(f"balance:{user_id}", balance - total)
        writing.set(f"order:{order_id}", order.model_dump_json())
        writing.rpush(f"orders:{user_id}", order_id)
        writing.incr("orders")
        await writing.execute()
    return order


def make_app() -> FastAPI:
    """The application; BASELINE_REDIS_URL names its Redis."""
    pool = BlockingConnectionPool.from_url(
        os.environ["BASELINE_REDIS_URL"], max_connections=POOL, timeout=60, decode_responses=True
    )
    redis = Redis.from_pool(pool)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await redis.aclose()

    app = make_fastapi(lifespan=lifespan)

    @app.post("/v1/users/{user_id}/coupons", status_code=201)
    async def coupons(user_id: str, request: CouponRequest) -> Coupon:
        return await issue_coupon(redis, user_id, request.campaign_id)

    @app.post("/v1/users/{user_id}/checkout", status_code=201)
    async def orders(user_id: str, request: OrderRequest) -> Order:
        return await checkout(redis, user_id, request)

    return app
