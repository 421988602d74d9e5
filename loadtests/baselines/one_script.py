"""Baseline (c): Starlette, redis-py; one Lua script by EVALSHA for each request. Nothing is durable.

The fastest of what is usual: all on one Redis, in one atomic script, with no log that anything else could follow.
"""

import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POOL = 100
PAYMENT_MAX = 50_000_000
LINES_MAX = 500
QUANTITY_MAX = 100_000
STATUS = {"insufficient-balance": 402, "unknown-reference": 422, "payment-limit": 422, "malformed-body": 400}
_HERE = Path(__file__).parent
_ID = re.compile(r"[A-Za-z0-9._~@|-]{1,64}")
_encode = msgspec.json.Encoder().encode


class CouponRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which campaign."""

    campaign_id: str


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """Units of one stock item."""

    product_id: str
    stock_id: str
    quantity: int


class OrderRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to buy."""

    lines: list[Line]
    coupon_id: str | None = None


_decode_coupon = msgspec.json.Decoder(CouponRequest).decode
_decode_order = msgspec.json.Decoder(OrderRequest).decode


def _refused(problem: str, **members: Any) -> Response:
    status = STATUS.get(problem, 409)
    body = _encode({"type": f"/problems/{problem}", "status": status, **members})
    return Response(body, status, media_type="application/problem+json")


def _created(body: dict[str, Any]) -> Response:
    return Response(_encode(body), 201, media_type="application/json")


def _checked(*ids: str) -> None:
    if not all(map(_ID.fullmatch, ids)):
        raise msgspec.ValidationError("an id has other characters")


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except msgspec.ValidationError as error:
            return _refused("unknown-reference", detail=str(error))
        except msgspec.DecodeError as error:
            return _refused("malformed-body", detail=str(error))

    return guarded


def make_app() -> Starlette:
    """The application; BASELINE_REDIS_URL names its Redis."""
    pool = BlockingConnectionPool.from_url(os.environ["BASELINE_REDIS_URL"], max_connections=POOL, timeout=60)
    redis = Redis.from_pool(pool)
    sha: dict[str, str] = {}

    async def issue_coupon(request: Request) -> Response:
        user = request.path_params["user_id"]
        campaign = _decode_coupon(await request.body()).campaign_id
        _checked(user, campaign)
        at = datetime.now(UTC)
        reply: Any = await redis.evalsha(
            sha["issue"], 3, f"campaign:{campaign}", f"issued:{campaign}", f"coupons:{user}",
            user, f"{at:%Y%m%d}", str(int(at.timestamp() * 1000)),
        )  # fmt: skip
        status = reply[0].decode()
        if status != "issued":
            return _refused(status, **({"coupon_id": reply[1].decode()} if len(reply) > 1 else {}))
        return _created(
            {
                "coupon_id": reply[1].decode(), "campaign_id": campaign, "issue_number": reply[2], "state": "valid",
                "value": reply[3], "issued_at": at.isoformat(timespec="milliseconds"),
            }
        )  # fmt: skip

    async def checkout(request: Request) -> Response:
        user = request.path_params["user_id"]
        units: dict[tuple[str, str], int] = {}
        lines_asked = _decode_order(await request.body()).lines
        for line in lines_asked:
            _checked(line.product_id, line.stock_id)
            units[line.product_id, line.stock_id] = units.get((line.product_id, line.stock_id), 0) + line.quantity
        quantities = [line.quantity for line in lines_asked]
        if not 1 <= len(quantities) <= LINES_MAX or min(quantities) < 1 or max(quantities) > QUANTITY_MAX:
            raise msgspec.ValidationError(f"an order has 1 to {LINES_MAX} lines, a line 1 to {QUANTITY_MAX} units")
        _checked(user)
        order = uuid4().hex
        at_ms = time.time_ns() // 1_000_000
        keys = [f"balance:{user}", f"order:{order}", f"orders:{user}", "sold", *(f"product:{p}" for p, _ in units)]
        arguments = [user, order, at_ms, PAYMENT_MAX]
        for (product, stock), quantity in units.items():
            arguments += [product, stock, quantity]
        reply: Any = await redis.evalsha(sha["checkout"], len(keys), *keys, *arguments)
        status = reply[0].decode()
        if status != "completed":
            return _refused(status)
        lines = [
            {
                "product_id": product.decode(), "stock_id": stock.decode(), "name": name.decode(),
                "unit_price": price, "quantity": quantity, "amount": price * quantity,
            }
            for product, stock, quantity, price, name in reply[2]
        ]  # fmt: skip
        ordered_at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return _created(
            {
                "order_id": order, "user_id": user, "status": "completed", "lines": lines, "total": reply[1],
                "currency": "KRW", "ordered_at": ordered_at,
            }
        )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for name in ("issue", "checkout"):
            sha[name] = await redis.script_load((_HERE / f"{name}.lua").read_text())
        yield
        await redis.aclose()

    return Starlette(
        routes=[
            Route("/v1/users/{user_id}/coupons", _guarded(issue_coupon), methods=["POST"]),
            Route("/v1/users/{user_id}/checkout", _guarded(checkout), methods=["POST"]),
        ],
        lifespan=lifespan,
    )
