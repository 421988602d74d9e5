"""Shops that are not as they should be: one forgets every other checkout that it answers as made, one only fails."""

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def make_app() -> Starlette:
    """The application; BASELINE_REDIS_URL names its Redis."""
    redis = Redis.from_url(os.environ["BASELINE_REDIS_URL"])
    numbers = itertools.count()

    async def checkout(_request: Request) -> Response:
        if next(numbers) % 2:
            await redis.incr("orders")
        return JSONResponse({}, 201)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await redis.aclose()

    return Starlette(routes=[Route("/v1/users/{user_id}/checkout", checkout, methods=["POST"])], lifespan=lifespan)


def make_failing() -> Starlette:
    """Fails at whatever it is asked."""

    async def fail(_request: Request) -> Response:
        return JSONResponse({}, 500)

    return Starlette(routes=[Route("/{path:path}", fail, methods=["POST"])])
