"""Several calls at once, over only when all of them are: what fails leaves nothing running behind it."""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import TypeVar

from engine.errors import EngineError

Answer = TypeVar("Answer")
Item = TypeVar("Item")


async def all_of(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """The answers in order, when every call has ended. Raises what the first of those that failed has raised."""
    answers = []
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        answers.append(outcome)
    return answers


async def answers_of(calls: Iterable[Awaitable[Answer]]) -> list[Answer | EngineError]:
    """The same where no call is to hold up the others: an `EngineError` stands in the place of its answer."""
    answers: list[Answer | EngineError] = []
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, EngineError):
            raise outcome
        answers.append(outcome)
    return answers


def parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, at most ``size`` of them at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
