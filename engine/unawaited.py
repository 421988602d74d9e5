"""Outcomes that nobody may ever wait for."""

import asyncio
from typing import Any


def look_at(future: "asyncio.Future[Any]") -> None:
    """As its callback: look at an outcome, so that one that nobody waits for is not reported as forgotten."""
    if not future.cancelled():
        future.exception()
