"""A process of its own with its own engine: `run` does the named work there and returns what it says."""

import asyncio
import multiprocessing
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from engine.engine import Engine
from engine.errors import Refusal
from engine.stock import LineRequest
from tests.engine.shop import opened

AT_ONCE_MAX = 500


def in_processes(work: Callable[..., Counter[str]], url: str, shares: Sequence[Sequence[str]]) -> Counter[str]:
    """Do ``work(url, share)`` for every share of users in a process each, all at once; the sum of what they say."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(shares), mp_context=context) as pool:
        said = pool.map(work, [url] * len(shares), shares)
        return sum(said, Counter())


def issue(url: str, users: Sequence[str]) -> Counter[str]:
    """Every user asks twice for a coupon of ``spring``; issue numbers are said as ``#<number>``."""

    async def ask(engine: Engine, user: str) -> str:
        coupon = await engine.coupons.issue(user, "spring")
        return f"#{coupon.issue_number}"

    return asyncio.run(_each(url, [*users, *users], ask))


def buy(url: str, users: Sequence[str]) -> Counter[str]:
    """Users a… check out the contested size and the product in common, users b… another size and it."""

    async def order(engine: Engine, user: str) -> str:
        stock_id = "S" if user.startswith("a") else "M"
        lines = [LineRequest("shirt", stock_id, 1), LineRequest("hat", None, 1)]
        return f"{stock_id} {(await engine.orders.checkout(user, lines, None)).status}"

    return asyncio.run(_each(url, users, order))


def charge_and_pay(url: str, users: Sequence[str]) -> Counter[str]:
    """The user named first charges 700 or checks out a hat of 500, in turn, as often as named."""

    async def step(engine: Engine, turn: str) -> str:
        user, number = turn.split(":")
        if int(number) % 2:
            return f"charged {(await engine.wallets.charge(user, 700)).amount}"
        return (await engine.orders.checkout(user, [LineRequest("hat", None, 1)], None)).status

    return asyncio.run(_each(url, users, step))


async def _each(url: str, users: Sequence[str], work: Callable[[Engine, str], Awaitable[str]]) -> Counter[str]:
    said: Counter[str] = Counter()
    at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(engine: Engine, user: str) -> None:
        async with at_once:
            try:
                said[await work(engine, user)] += 1
            except Refusal as refusal:
                said[type(refusal).__name__] += 1

    async with opened(url, fresh=False, reply_timeout_ms=5_000, request_deadline_ms=30_000) as engine:
        await asyncio.gather(*(one(engine, user) for user in users))
    sys.stdout.flush()
    return said
