"""What an installation is for good: recorded once, and whoever is told otherwise does not begin, or does not stay."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.settings import EngineSettings
from persistence import installation
from persistence.database import DatabaseError, connect
from persistence.installation import await_same, register_installation, require_installation
from persistence.start_checks import StartRefused
from tests.persistence.shop import rows, value

Connection = AsyncConnection[TupleRow]


async def test_the_first_start_records_what_the_installation_is(
    connection: Connection, database_url: str, engine_settings: EngineSettings
) -> None:
    async with await connect(database_url, "other worker") as other:
        await asyncio.gather(
            register_installation(connection, engine_settings), register_installation(other, engine_settings)
        )

    assert await rows(connection, "SELECT partitions, time_zone, currency, generation FROM installation") == [
        (4, "Asia/Seoul", "KRW", 1)
    ]
    assert await value(connection, "SELECT count(*) FROM partition_cursor") == 4


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"partitions": 8}, "FIRSTCOME_PARTITIONS is 8, .* begun with 4, .*: set FIRSTCOME_PARTITIONS=4"),
        ({"time_zone": "Europe/Paris"}, "set FIRSTCOME_TIME_ZONE=Asia/Seoul"),
        ({"currency": "EUR"}, "set FIRSTCOME_CURRENCY=KRW"),
    ],
)
async def test_a_start_as_another_installation_is_refused_with_the_remedy(
    connection: Connection, engine_settings: EngineSettings, changed: dict[str, Any], named: str
) -> None:
    await register_installation(connection, engine_settings)

    with pytest.raises(StartRefused, match=named):
        await register_installation(connection, replace(engine_settings, **changed))

    with pytest.raises(StartRefused, match=named):
        await require_installation(connection, replace(engine_settings, **changed))
    assert await value(connection, "SELECT count(*) FROM partition_cursor") == 4


async def test_another_format_of_keys_and_events_needs_another_program(
    connection: Connection, engine_settings: EngineSettings
) -> None:
    await register_installation(connection, engine_settings)
    await connection.execute("UPDATE installation SET format = 99")

    with pytest.raises(StartRefused, match="use the program whose format is 99"):
        await register_installation(connection, engine_settings)


async def test_where_no_worker_has_started_there_is_no_installation(
    connection: Connection, engine_settings: EngineSettings
) -> None:
    with pytest.raises(DatabaseError, match="no worker has started on it yet"):
        await require_installation(connection, engine_settings)


@pytest.mark.parametrize("currency", ["KRW", "EUR"])
async def test_who_began_before_the_installation_was_known_learns_of_it(
    connection: Connection,
    database_url: str,
    engine_settings: EngineSettings,
    currency: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installation, "LOOK_EVERY_S", 0.01)
    told = replace(engine_settings, currency=currency)
    waiting = asyncio.create_task(await_same(database_url, told))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done, "nothing is known yet"

    await register_installation(connection, engine_settings)
    if currency == "KRW":
        await asyncio.wait_for(waiting, 10)
        return
    with pytest.raises(StartRefused, match="FIRSTCOME_CURRENCY is EUR, but this database was begun with KRW"):
        await asyncio.wait_for(waiting, 10)
