"""`firstcome rebuild`: Redis made anew from PostgreSQL, by hand."""

import asyncio
import contextlib
import time
from collections.abc import Collection
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from api.commands.logs import configure_logs
from api.commands.stores import (
    NotAsked,
    data_option,
    opened_engine,
    require_partitions,
    stores_environment,
    telling_of_no_shop,
)
from engine.errors import EngineError
from engine.settings import EngineSettings, SettingError
from persistence.database import DatabaseError, connect
from persistence.hot_keys import USERS
from persistence.installation import register_installation
from persistence.reconcile import Reconciled, number_of
from persistence.recovery import RecoveryHeld
from persistence.settings import WorkerSettings
from persistence.start_checks import StartRefused
from persistence.trust import Trust
from persistence.writer import Writer


@click.command()
@click.option("--partition", "numbers", type=int, multiple=True, metavar="N", help="Only this one; may be repeated.")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Go on although PostgreSQL has lost events that Redis has not kept: they are lost for good.",
)
@data_option
def rebuild(numbers: tuple[int, ...], accept_loss: bool, data: Path) -> None:
    """Make Redis anew from PostgreSQL: all of it, or some partitions.

    Nothing that was answered is lost: what Redis has more is made durable first. Meanwhile these partitions answer
    `recovering`; all else goes on. Workers do the same by themselves whenever a Redis cannot be trusted, so this is for
    a Redis whose contents somebody has touched. It may be interrupted: what is left undone, the workers finish.

    Exit code 1: refused, as where something would be lost. 2: the shop could not be asked, or no longer.
    """
    try:
        configure_logs()
        env = stores_environment(data)
        engine_settings, settings = EngineSettings.from_environment(env), WorkerSettings.from_environment(env)
        require_partitions(numbers, engine_settings.partitions)
        chosen = numbers or range(engine_settings.partitions)
        began = time.monotonic()
        with telling_of_no_shop(data):
            done, shown = uvloop.run(_rebuild(engine_settings, settings, chosen, accept_loss))
    except (SettingError, DatabaseError, EngineError) as error:
        raise NotAsked(str(error)) from error
    except (StartRefused, RecoveryHeld) as error:
        raise click.ClickException(str(error)) from error
    click.echo(outcome(len(chosen), shown, time.monotonic() - began, done))


def outcome(partitions: int, shown: "Shown", took_s: float, done: Reconciled) -> str:
    """What was done, without what there was none of."""
    rows = f" from {number_of(shown.rows, 'row')}" if shown.rows else ""
    speed = f", {shown.users_per_s:,.0f} users/s" if shown.users_per_s else ""
    reconciled = f" Reconciled: {done}." if done != Reconciled() else ""
    return f"{number_of(partitions, 'partition')} rebuilt{rows} in {took_s:.1f} s{speed}.{reconciled}"


async def _rebuild(
    engine_settings: EngineSettings, settings: WorkerSettings, numbers: Collection[int], accept_loss: bool
) -> tuple[Reconciled, "Shown"]:
    shown = Shown()
    async with (
        opened_engine(engine_settings) as engine,
        # Waiting for a worker that recovers, and reading whole tables, may both take long.
        await connect(settings.database_url, "firstcome rebuild", statement_ms=0) as connection,
        await connect(settings.database_url, "firstcome rebuild writer") as writing,
    ):
        await register_installation(connection, engine_settings)
        # The workers write what must be durable first; should there be none, this process does.
        with contextlib.closing(Writer(engine, writing, settings)) as writer, shown.progress:
            await writer.start()
            rebuilding = asyncio.create_task(
                Trust(engine, settings).rebuild(connection, numbers, shown.show, accept_loss=accept_loss)
            )
            try:
                while not rebuilding.done():
                    await writer.round(range(engine_settings.partitions))
                    await asyncio.wait({rebuilding}, timeout=settings.poll_idle_ms / 1000)
                return await rebuilding, shown
            finally:
                rebuilding.cancel()


class Shown:
    """What is loaded so far, on the terminal."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.completed:,.0f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._users: list[tuple[float, int]] = []

    @property
    def users_per_s(self) -> float:
        """How fast users were loaded, once it is going; 0 where there were too few to tell."""
        if len(self._users) <= 1:
            return 0.0
        (began, first), (ended, last) = self._users[0], self._users[-1]
        return (last - first) / (ended - began)

    @property
    def rows(self) -> int:
        """Rows loaded."""
        done = {task.id: task.completed for task in self.progress.tasks}
        return int(sum(done[task] for name, task in self._tasks.items() if name != "keys removed"))

    def show(self, section: str, rows: int) -> None:
        """The rows of a section so far."""
        if section not in self._tasks:
            self._tasks[section] = self.progress.add_task(section, total=None)
        self.progress.update(self._tasks[section], completed=rows)
        if section == USERS.name:
            self._users.append((time.monotonic(), rows))
