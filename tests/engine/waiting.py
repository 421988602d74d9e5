"""Waiting for what is to come to pass, and no longer."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from engine.errors import OutcomeUnknown


def within(seconds: float) -> float:
    """A deadline of the running loop."""
    return asyncio.get_running_loop().time() + seconds


async def outlasted(call: Callable[[], Awaitable[object]]) -> None:
    """Let a call that is tried again and again run into its deadline, and out of it with what it was told last.

    Where it is on its way just then, which is chance, nobody knows what became of it; so it is made once more.
    """
    for chance in range(5):
        try:
            await call()
            return
        except OutcomeUnknown:
            if chance == 4:
                raise


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    """Wait until it holds."""

    async def ask() -> bool:
        return bool(condition())

    await until_asked(ask, deadline_s)


async def until_asked(ask: Callable[[], Awaitable[bool]], deadline_s: float = 5.0) -> None:
    """Wait until the answer is yes."""
    give_up_at = time.monotonic() + deadline_s
    while not await ask():
        assert time.monotonic() < give_up_at, "it did not come to pass"
        await asyncio.sleep(0.005)
