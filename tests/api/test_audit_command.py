"""`firstcome audit` and `firstcome events`, as an operator runs them."""

import asyncio
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from api.commands import main
from engine.engine import open_engine
from engine.keys import Keys
from engine.partitions import Partitions
from engine.settings import EngineSettings
from persistence.database import connect
from persistence.installation import register_installation
from persistence.trust import Trust
from tests.persistence.shop import fill, line, write_all
from tests.servers import redis_client

PARTITIONS = Partitions(4)
KEYS = Keys(PARTITIONS)
ANNS = PARTITIONS.of("ann")


@pytest.fixture
def settings(redis_url: str, database_url: str) -> dict[str, str]:
    """The settings of a shop with few partitions; wide enough to read."""
    return {
        "FIRSTCOME_REDIS_URL": redis_url,
        "FIRSTCOME_DATABASE_URL": database_url,
        "FIRSTCOME_PARTITIONS": str(PARTITIONS.count),
        "COLUMNS": "200",
    }


@pytest.fixture
def shop(settings: dict[str, str]) -> dict[str, str]:
    """The settings, once something was sold there and written."""
    asyncio.run(_sell(settings))
    return settings


async def _sell(settings: dict[str, str]) -> None:
    engine_settings, url = EngineSettings.from_environment(settings), settings["FIRSTCOME_DATABASE_URL"]
    async with await connect(url, "test") as connection:
        await register_installation(connection, engine_settings)
        async with open_engine(engine_settings) as engine:
            assert await Trust(engine).look(connection)
            await fill(engine, "tea")
            await engine.wallets.charge("ann", 5_000)
            await engine.orders.place("ann", [line("tea", "s", 2)], None)
            await write_all(engine, url)


async def _write(settings: dict[str, str]) -> None:
    async with open_engine(EngineSettings.from_environment(settings)) as engine:
        await write_all(engine, settings["FIRSTCOME_DATABASE_URL"])


def firstcome(settings: dict[str, str], tmp_path: Path, *arguments: str) -> Result:
    """Run a command; its data folder is empty."""
    command, *rest = arguments
    return CliRunner().invoke(main, [command, "--data", str(tmp_path), *rest], env=settings)


@pytest.mark.requirement("R0.3")
@pytest.mark.parametrize("options", [[], ["--full"]], ids=["lately", "full"])
def test_the_audit_of_a_sound_shop_shows_what_was_compared(
    shop: dict[str, str], tmp_path: Path, options: list[str]
) -> None:
    result = firstcome(shop, tmp_path, "audit", *options)

    assert result.exit_code == 0, result.output
    assert "Nothing is wrong." in result.output
    (wallets,) = [row for row in result.output.splitlines() if "wallets: balance" in row]
    assert "✓" in wallets
    assert any(cell.strip() == "1" for cell in wallets.split("│"))
    assert "· nothing to compare" in result.output


@pytest.mark.requirement("R0.3")
@pytest.mark.parametrize("options", [[], ["--full"]], ids=["lately", "full"])
def test_the_audit_fails_on_a_mismatch_and_says_what_is_wrong(
    shop: dict[str, str], tmp_path: Path, options: list[str]
) -> None:
    with redis_client(shop["FIRSTCOME_REDIS_URL"]) as client:
        client.hset(KEYS.wallet(ANNS, "ann"), "balance", "4999")

    result = firstcome(shop, tmp_path, "audit", *options)

    assert result.exit_code == 1, result.output
    assert f"wallet: wallet ann (partition {ANNS}): balance '4999' in Redis, '5000' in PostgreSQL" in result.output
    assert result.output.splitlines()[-1] == "1 mismatch"


def test_the_audit_says_which_partitions_it_could_not_look_at(shop: dict[str, str], tmp_path: Path) -> None:
    with redis_client(shop["FIRSTCOME_REDIS_URL"]) as client:
        client.hset(KEYS.meta(ANNS), "server", "another")

    result = firstcome(shop, tmp_path, "audit")

    assert result.exit_code == 2, result.output
    assert f"left out: partitions {ANNS}" in result.output


def test_an_audit_without_a_shop_is_no_clean_audit(settings: dict[str, str], tmp_path: Path) -> None:
    result = firstcome(settings, tmp_path, "audit")
    assert result.exit_code == 2
    assert "no worker has started" in result.output

    result = firstcome(settings | {"FIRSTCOME_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, tmp_path, "audit")
    assert result.exit_code == 2


def test_an_audit_by_another_number_of_partitions_is_refused(shop: dict[str, str], tmp_path: Path) -> None:
    result = firstcome(shop | {"FIRSTCOME_PARTITIONS": "8"}, tmp_path, "audit")

    assert result.exit_code == 2
    assert "begun with 4" in result.output


@pytest.fixture
def stopped(shop: dict[str, str]) -> dict[str, str]:
    """The settings of a shop in which an event that cannot be applied has stopped Ann's partition."""
    meta, place = KEYS.meta(ANNS), ""
    with redis_client(shop["FIRSTCOME_REDIS_URL"]) as client:
        seq = int(client.hget(meta, "seq")) + 1
        place = f"1-{seq}"
        fields = {"product": "nothing", "stock": "s", "delta": "1", "available": "1", "reason": "[found]"}
        client.xadd(KEYS.events(ANNS), {"type": "stock.adjusted", "v": "1", "at": "1700000000000", **fields}, id=place)
        client.hset(meta, "seq", str(seq))
    asyncio.run(_write(shop))
    return shop | {"place": place}


def test_without_a_stopped_partition_there_is_nothing_to_do(shop: dict[str, str], tmp_path: Path) -> None:
    result = firstcome(shop, tmp_path, "events")
    assert (result.exit_code, result.output) == (0, "No partition is stopped.\n")
    for command in ("show", "retry"):
        result = firstcome(shop, tmp_path, "events", command, "1")
        assert result.exit_code == 1
        assert "partition 1 is not stopped" in result.output
    result = firstcome(shop, tmp_path, "events", "set-aside", "1", "--yes")
    assert result.exit_code == 1
    assert "partition 1 is not stopped" in result.output


@pytest.mark.parametrize(
    "arguments", [["show", "99"], ["retry", "99"], ["set-aside", "99"], ["set-aside", "99", "--yes"]]
)
def test_a_partition_that_there_is_not_is_told_so(shop: dict[str, str], tmp_path: Path, arguments: list[str]) -> None:
    result = firstcome(shop, tmp_path, "events", *arguments)
    assert (result.exit_code, "there are 4 partitions, 0 to 3: not 99" in result.output) == (2, True)


def test_a_stopped_partition_is_listed_and_its_event_shown(stopped: dict[str, str], tmp_path: Path) -> None:
    place = stopped.pop("place")

    listed = firstcome(stopped, tmp_path, "events").output
    assert f"firstcome events show {ANNS}" in listed
    assert place in listed
    assert "stock.adjusted" in listed

    shown = firstcome(stopped, tmp_path, "events", "show", str(ANNS)).output
    assert place in shown
    assert "cannot be applied" in shown
    assert "[found]" in shown


def test_a_retry_lets_the_writer_meet_the_event_again(stopped: dict[str, str], tmp_path: Path) -> None:
    stopped.pop("place")

    assert firstcome(stopped, tmp_path, "events", "retry", str(ANNS)).exit_code == 0
    assert "No partition is stopped" in firstcome(stopped, tmp_path, "events").output

    asyncio.run(_write(stopped))
    assert f"events show {ANNS}" in firstcome(stopped, tmp_path, "events").output


def test_an_event_is_set_aside_only_when_that_is_confirmed(stopped: dict[str, str], tmp_path: Path) -> None:
    place = stopped.pop("place")

    refused = firstcome(stopped, tmp_path, "events", "set-aside", str(ANNS))
    assert refused.exit_code == 1
    assert f"events show {ANNS}" in firstcome(stopped, tmp_path, "events").output

    done = firstcome(stopped, tmp_path, "events", "set-aside", str(ANNS), "--yes", "--reason", "a test")
    assert done.exit_code == 0, done.output
    assert f"Event {place} (stock.adjusted) of partition {ANNS} is set aside." in done.output
    assert "No partition is stopped" in firstcome(stopped, tmp_path, "events").output
    with psycopg.connect(stopped["FIRSTCOME_DATABASE_URL"]) as connection:
        query = "SELECT epoch || '-' || seq, reason, set_aside_by LIKE '%_@_%' FROM set_aside_event"
        assert connection.execute(query).fetchall() == [(place, "a test", True)]
        assert connection.execute("SELECT count(*) FROM alarm WHERE cleared_at IS NULL").fetchone() == (0,)
