"""The program `firstcome`, killing itself with SIGKILL at a chosen point: as a crash there would.

    python -m tests.faults.dying before:place_order:20 api --fd 5

`before:SCRIPT:N` dies instead of sending the N-th call of a script, `after:SCRIPT:N` when its reply has come and
nobody has seen it yet, `commit:N` with the rows of the N-th batch written and not committed. The product knows nothing
of this.
"""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from api.commands import main
from engine.lanes import RedisLanes
from persistence.writer import Writer


def die_at(point: str) -> None:
    """From now on this process dies at the point."""
    when, *where = point.split(":")
    if when == "commit":
        _die_in_transaction(int(where[0]))
    else:
        script, number = where
        _die_around(script, int(number), before=when == "before")


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _counted(number: int) -> Callable[[], bool]:
    """True when it is called for the `number`-th time."""
    calls = itertools.count(1)
    return lambda: next(calls) == number


def _die_around(script_name: str, number: int, *, before: bool) -> None:
    call = RedisLanes.call
    is_due = _counted(number)

    def deadly_call(lanes: RedisLanes, partition: int, script: Any, *arguments: Any, **deadline: Any) -> Any:
        due = script.name == script_name and is_due()
        if due and before:
            _die()
        future: asyncio.Future[Any] = call(lanes, partition, script, *arguments, **deadline)
        if due:
            future.add_done_callback(_die)
        return future

    RedisLanes.call = deadly_call  # type: ignore[method-assign, assignment]


def _die_in_transaction(number: int) -> None:
    advance = Writer._advance
    is_due = _counted(number)

    async def deadly_advance(writer: Writer, batch: Any) -> None:
        await advance(writer, batch)
        if is_due():
            _die()

    Writer._advance = deadly_advance  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    die_at(sys.argv[1])
    main(sys.argv[2:], prog_name="firstcome")
