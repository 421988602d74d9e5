"""The program `firstcome`, killing itself with SIGKILL at a chosen point: as a crash there would. Or stopping itself.

    python -m tests.faults.dying before:place_order:20 api --fd 5

`before:NAME:N` dies instead of the N-th call of a script or of a `STEP` of the worker, `after:NAME:N` when that has its
result and nobody has seen it yet. `stop:NAME:N` stops itself there by SIGSTOP instead, until somebody sends SIGCONT.
The product knows nothing of this.
"""

import asyncio
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

import persistence.recovery
import persistence.row_statements
import persistence.writer
from api.commands import main
from engine.cluster_lanes import ClusterLanes
from engine.lanes import Lanes, RedisLanes
from persistence.event_reader import EventReader
from persistence.rebuild import Rebuild
from persistence.reconcile import Reconciliation
from persistence.recovery import Attempt
from persistence.writer import Writer

STEPS: dict[str, tuple[Any, str]] = {
    # the writer's round: events are read and parsed, copied with their rows, then the cursors move, all is committed,
    # and Redis is told
    "read": (EventReader, "read"),
    "copy_text": (persistence.row_statements, "copy_text"),
    "copy": (psycopg.AsyncCopy, "write"),
    "write_rows": (persistence.writer, "write_rows"),
    "advance": (Writer, "_advance"),
    "committed": (Writer, "_mark_durable"),
    # a recovery's
    "next_generation": (persistence.recovery, "next_generation"),
    "cut": (Attempt, "_cut"),
    "drain": (Attempt, "_drain"),
    "end_epoch": (persistence.recovery, "end_epoch"),
    "clear": (Rebuild, "clear"),
    "load": (Rebuild, "load"),
    "reconcile": (Reconciliation, "run"),
}

Arguments = Sequence[Any]
ONLY: dict[str, Callable[[Arguments], bool]] = {
    # Of a round that wrote nothing, nothing was committed.
    "committed": lambda arguments: bool(arguments[1]),
    # KEYS, then ARGV of `mark_durable`: the last one says what may leave the stream.
    "trim": lambda arguments: int(arguments[1][-1]) > 0,
}
"""Which calls of a step count; all of them, where it is not here."""

SCRIPTS = {"trim": "mark_durable"}
"""Scripts that are points under another name, for some of their calls."""


def die_at(point: str) -> None:
    """From now on this process dies at the point."""
    when, name, number = point.split(":")
    end = _stop if when == "stop" else _die
    around = _end_at_step if name in STEPS else _end_around_script
    around(name, int(number), end, before=when == "before")


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _counted(name: str, number: int) -> Callable[[Arguments], bool]:
    """True when it is called for the `number`-th time with arguments that count."""
    calls = itertools.count(1)
    counts = ONLY.get(name)
    return lambda arguments: (counts is None or counts(arguments)) and next(calls) == number


def _end_around_script(name: str, number: int, end: Callable[..., None], *, before: bool) -> None:
    script_name = SCRIPTS.get(name, name)
    is_due = _counted(name, number)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def deadly_call(lanes: Lanes, partition: int, script: Any, *arguments: Any, **deadline: Any) -> Any:
            due = script.name == script_name and is_due(arguments)
            if due and before:
                end()
            future: asyncio.Future[Any] = call(lanes, partition, script, *arguments, **deadline)
            if due:
                future.add_done_callback(end)
            return future

        return deadly_call

    # A process has lanes of one of these kinds.
    for kind in (RedisLanes, ClusterLanes):
        kind.call = deadly(kind.call)  # type: ignore[method-assign]


def _end_at_step(name: str, number: int, end: Callable[..., None], *, before: bool) -> None:
    owner, attribute = STEPS[name]
    step = getattr(owner, attribute)
    is_due = _counted(name, number)

    async def deadly_step(*arguments: Any, **named: Any) -> Any:
        due = is_due(arguments)
        if due and before:
            end()
        result = await step(*arguments, **named)
        if due:
            end()
        return result

    def deadly_function(*arguments: Any, **named: Any) -> Any:
        if is_due(arguments):
            end()
        return step(*arguments, **named)

    setattr(owner, attribute, deadly_step if inspect.iscoroutinefunction(step) else deadly_function)


if __name__ == "__main__":
    die_at(sys.argv[1])
    main(sys.argv[2:], prog_name="firstcome")
