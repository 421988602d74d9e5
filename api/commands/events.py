"""`firstcome events`: the events that writers have stopped at, and what an operator may do about one."""

import getpass
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.commands.stores import NotAsked, data_option, data_option_of_group, opened_stores, require_partitions
from engine.errors import EngineError
from engine.settings import SettingError
from persistence.database import DatabaseError
from persistence.stopped_events import (
    CannotSetAside,
    StoppedPartition,
    StoppingEvent,
    next_event,
    stopped_partitions,
)
from persistence.stopped_events import (
    retry as retry_partition,
)
from persistence.stopped_events import (
    set_aside as set_event_aside,
)

Answer = TypeVar("Answer")


@click.group(invoke_without_command=True)
@data_option
@click.pass_context
def events(context: click.Context, data: Path) -> None:
    """List the partitions that an event has stopped; show, retry or set aside that event.

    A stopped partition sells on until its backlog is full, but nothing there becomes durable.

    Exit code 1: refused, as where the partition named is not stopped. 2: the shop could not be asked.
    """
    context.obj = data
    if context.invoked_subcommand is None:
        _list(_run(_stopped(data)))


@events.command()
@click.argument("partition", type=click.IntRange(0))
@data_option_of_group
def show(partition: int, data: Path) -> None:
    """Show the event that has stopped PARTITION, field by field."""
    found = {stopped.partition: (stopped, event) for stopped, event in _run(_stopped(data, partition))}
    if partition not in found:
        raise click.ClickException(f"partition {partition} is not stopped")
    stopped, event = found[partition]
    console = Console(highlight=False)
    console.print(Text(f"Partition {partition} has stopped after {stopped.epoch}-{stopped.seq}: {stopped.why}"))
    if event is None:
        console.print("There is no event after it in the stream.")
        return
    table = Table("field", "value", title=event.place, title_justify="left", show_edge=False)
    for name, value in event.fields:
        table.add_row(Text(name), Text(value, overflow="fold"))
    console.print(table)


@events.command()
@click.argument("partition", type=click.IntRange(0))
@data_option_of_group
def retry(partition: int, data: Path) -> None:
    """Let the writer try the event of PARTITION again.

    For when what was wrong is mended.
    """

    async def run() -> bool:
        async with opened_stores(data, "events") as (engine, connection):
            require_partitions([partition], engine.partitions.count)
            return await retry_partition(connection, partition)

    if not _run(run()):
        raise click.ClickException(f"partition {partition} is not stopped")
    click.echo(f"The writer of partition {partition} tries again within some seconds.")


@events.command("set-aside")
@click.argument("partition", type=click.IntRange(0))
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--yes", is_flag=True, help="Without being asked again.")
@data_option_of_group
def set_aside(partition: int, reason: str, yes: bool, data: Path) -> None:
    """Pass over the one event that has stopped PARTITION.

    It is put on record, and never applied. What it changed in Redis is then missing in PostgreSQL, and `firstcome
    audit` says so until that is corrected.
    """
    if not yes:
        if partition not in {stopped.partition for stopped, _ in _run(_stopped(data, partition))}:
            raise click.ClickException(f"partition {partition} is not stopped")
        click.confirm(f"Pass over the event that has stopped partition {partition}, for good?", abort=True)

    async def run() -> StoppingEvent:
        async with opened_stores(data, "events") as (engine, connection):
            require_partitions([partition], engine.partitions.count)
            who = f"{getpass.getuser()}@{socket.gethostname()}"
            return await set_event_aside(connection, engine, partition, reason=reason, set_aside_by=who)

    event = _run(run())
    click.echo(f"Event {event.place} ({event.type or 'of no type'}) of partition {partition} is set aside.")


def _run(step: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        return uvloop.run(step)
    except (SettingError, DatabaseError, EngineError) as error:
        raise NotAsked(str(error)) from error
    except CannotSetAside as error:
        raise click.ClickException(str(error)) from error


async def _stopped(data: Path, *asked_for: int) -> list[tuple[StoppedPartition, StoppingEvent | None]]:
    async with opened_stores(data, "events") as (engine, connection):
        require_partitions(asked_for, engine.partitions.count)
        return [
            (stopped, await next_event(engine, stopped.partition, stopped.epoch, stopped.seq))
            for stopped in await stopped_partitions(connection)
        ]


def _list(found: list[tuple[StoppedPartition, StoppingEvent | None]]) -> None:
    if not found:
        click.echo("No partition is stopped.")
        return
    table = Table("partition", "event", "type", "since", "why", "next", show_edge=False)
    for stopped, event in found:
        number = stopped.partition
        remedy = "upgrade the workers" if stopped.waits_for_upgrade else f"firstcome events show {number}"
        table.add_row(
            str(number),
            event.place if event else "none",
            Text(event.type if event else ""),
            f"{stopped.since:%Y-%m-%d %H:%M:%S}",
            Text(stopped.why, overflow="fold"),
            remedy,
        )
    Console(highlight=False).print(table)
