"""Several things at once, over only when all of them are: what fails leaves nothing running behind it."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Answer = TypeVar("Answer")


async def all_of(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """The answers in order, when every call has ended. Raises what the first of those that failed has raised."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    answers = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        answers.append(outcome)
    return answers
