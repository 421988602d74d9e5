"""What an installation is for good: recorded at its first start, and any process that is told otherwise is refused."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.recovery import FIRST_EPOCH, FORMAT
from engine.settings import EngineSettings
from persistence.database import DatabaseError, connect, translated
from persistence.start_checks import StartRefused

RECORDED: Final[LiteralString] = "SELECT partitions, time_zone, currency, format FROM installation"
LOOK_EVERY_S: Final = 1.0
_FORMAT_NAME: Final = "the format of keys and events"


@dataclass(frozen=True, slots=True)
class Fixed:
    """One thing that is fixed: its setting, what this process was told, and what is on record."""

    name: str
    told: int | str
    recorded: int | str

    @property
    def differs(self) -> bool:
        return self.told != self.recorded

    @property
    def found(self) -> str:
        """What differs, in words."""
        return f"{self.name} is {self.told}, but this database was begun with {self.recorded}, and that cannot change"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        program = f"use the program whose format is {self.recorded}"
        same = program if self.name == _FORMAT_NAME else f"set {self.name}={self.recorded}"
        return f"{same}, or use an empty database and an empty Redis"


def fixed(recorded: Sequence[Any], settings: EngineSettings) -> list[Fixed]:
    """Everything that is fixed, from a row of `RECORDED`."""
    names = ("FIRSTCOME_PARTITIONS", "FIRSTCOME_TIME_ZONE", "FIRSTCOME_CURRENCY", _FORMAT_NAME)
    return [Fixed(name, told, have) for name, told, have in zip(names, _told(settings), recorded, strict=True)]


def require_same(recorded: Sequence[Any], settings: EngineSettings) -> None:
    """Raises `StartRefused` where anything differs."""
    for each in fixed(recorded, settings):
        if each.differs:
            raise StartRefused(f"{each.found}: {each.remedy}")


async def register_installation(connection: AsyncConnection[TupleRow], settings: EngineSettings) -> None:
    """Record what the installation is, at the first start; later refuse to start as another one.

    Raises `StartRefused`.
    """
    with translated():
        async with connection.transaction():
            await connection.execute(
                """INSERT INTO installation (partitions, time_zone, currency, format) VALUES (%s, %s, %s, %s)
                   ON CONFLICT DO NOTHING""",
                _told(settings),
            )
            row = await (await connection.execute(RECORDED)).fetchone()
            assert row is not None, "it was there or has been inserted"
            require_same(row, settings)
            await connection.execute(
                """INSERT INTO partition_cursor (partition, epoch) SELECT p, %s FROM generate_series(0, %s) p
                   ON CONFLICT DO NOTHING""",
                (FIRST_EPOCH, settings.partitions - 1),
            )


async def require_installation(connection: AsyncConnection[TupleRow], settings: EngineSettings) -> None:
    """Raises `DatabaseError` where no worker has ever started, `StartRefused` where it was as another one."""
    with translated():
        row = await (await connection.execute(RECORDED)).fetchone()
    if row is None:
        raise DatabaseError("there is no shop in this database: no worker has started on it yet")
    require_same(row, settings)


async def await_same(database_url: str, settings: EngineSettings) -> None:
    """Wait until PostgreSQL answers and says what the installation is. Raises `StartRefused` where it is another one.

    An API may begin before both, and serves nothing until a worker has begun.
    """
    while True:
        with suppress(DatabaseError):
            async with await connect(database_url, "firstcome api start") as connection:
                await require_installation(connection, settings)
                return
        await asyncio.sleep(LOOK_EVERY_S)


def _told(settings: EngineSettings) -> Sequence[int | str]:
    return settings.partitions, settings.time_zone, settings.currency, int(FORMAT)
