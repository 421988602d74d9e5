"""An API does not begin on servers that would lose what they are told, and says what to do; it waits for others."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from api.commands.api import Refused, environment, program
from api.commands.checks import Check
from api.commands.first_look import judge, look_first
from api.commands.processes import ChildProcess, wait_until
from api.commands.redis_checks import first_redis_checks
from engine.settings import EngineSettings
from persistence.settings import HistorySettings
from persistence.start_checks import StartRefused
from tests.engine.scripted_server import Client, Command, ScriptedServer, bulk
from tests.servers import redis_client

LATE_MS = 5_000
WITHIN_S = 60
INSTALLED = "INSERT INTO installation (partitions, time_zone, currency, format) VALUES (%s)"


def look(redis_url: str, database_url: str) -> None:
    look_first(EngineSettings(redis_url=redis_url), HistorySettings(database_url=database_url))


@contextmanager
def configured(client: redis.Redis, name: str, value: str) -> Iterator[None]:
    before = str(client.config_get(name)[name])
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def failed(redis_url: str) -> dict[str, Check]:
    return {check.name: check for check in first_redis_checks(EngineSettings(redis_url=redis_url)) if check.failed}


def test_nothing_is_said_of_servers_that_are_well(
    redis_flavour_url: str, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    look(redis_flavour_url, database_url)
    assert caplog.messages == []


def test_a_redis_that_evicts_is_refused(redis_flavour_url: str, database_url: str) -> None:
    with (
        redis_client(redis_flavour_url) as client,
        configured(client, "maxmemory-policy", "volatile-lru"),
        pytest.raises(StartRefused, match=r"volatile-lru.*Remedy: set maxmemory-policy noeviction"),
    ):
        look(redis_flavour_url, database_url)


def test_a_redis_without_an_append_only_file_is_warned_of(
    redis_flavour_url: str, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_client(redis_flavour_url) as client, configured(client, "appendonly", "no"):
        look(redis_flavour_url, database_url)
    (message,) = caplog.messages
    assert message.startswith("append-only file: off. Remedy: set appendonly yes")


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "upgrade this program"),
        ("UPDATE alembic_version SET version_num = '0001'", "run `firstcome migrate`"),
        ("DELETE FROM alembic_version", "run `firstcome migrate`"),
        (INSTALLED % "3, 'Asia/Seoul', 'KRW', 1", "begun with 3, .* set FIRSTCOME_PARTITIONS=3"),
        (INSTALLED % "64, 'UTC', 'KRW', 1", "set FIRSTCOME_TIME_ZONE=UTC"),
        (INSTALLED % "64, 'Asia/Seoul', 'USD', 1", "set FIRSTCOME_CURRENCY=USD"),
        (INSTALLED % "64, 'Asia/Seoul', 'KRW', 99", "use the program whose format is 99"),
    ],
)
def test_another_installations_database_is_refused(redis_url: str, database_url: str, change: str, remedy: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(change.encode())
    with pytest.raises(StartRefused, match=remedy):
        look(redis_url, database_url)


def test_servers_that_do_not_answer_yet_are_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    look("redis://127.0.0.1:9", "postgresql://someone:s3cret@127.0.0.1:9/shop")
    assert [message.partition(":")[0] for message in caplog.messages] == ["Redis", "PostgreSQL"]
    assert all("Remedy: start it, or set FIRSTCOME_" in message for message in caplog.messages)
    assert "s3cret" not in caplog.text


def looked_at(lines: Iterable[str]) -> list[str]:
    """What the lines are about, each once: of a cluster's nodes every one is told of, `of` its address."""
    return list(dict.fromkeys(line.partition(":")[0].partition(" of ")[0] for line in lines))


def test_what_is_too_old_and_a_clock_that_is_off_are_told_apart(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("api.commands.redis_checks.REDIS_VERSION_MIN", (99, 0))
    monkeypatch.setattr("api.commands.postgres_checks.POSTGRES_VERSION_MIN", 99)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - LATE_MS / 1000)
    with pytest.raises(StartRefused) as refused:
        look(redis_url, database_url)
    monkeypatch.undo()
    assert looked_at(str(refused.value).splitlines()) == ["Redis version", "PostgreSQL version"]
    assert looked_at(caplog.messages) == ["Redis' clock", "PostgreSQL's clock"]
    assert all("by NTP" in message for message in caplog.messages)


async def test_a_redis_that_is_too_old_for_the_newer_protocol_is_told_to_be_old() -> None:
    async def as_redis_5(command: Command, client: Client) -> bytes:
        if command[0] != b"INFO":
            return b"-ERR unknown command\r\n"
        return bulk(b"" if command[1:] else b"redis_version:5.0.6\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n")

    async with ScriptedServer(as_redis_5) as server:
        found = await asyncio.to_thread(failed, server.url)
    assert found["Redis version"] == Check(
        "Redis version", "Redis 5.0.6", "use Redis 6.2 or newer, or Valkey", decisive=True
    )


def test_everything_that_is_decisive_is_named_at_once() -> None:
    with pytest.raises(StartRefused) as refused:
        judge([Check("a", "x", "do A", decisive=True), Check("b", "fine"), Check("c", "y", "do C", decisive=True)])
    assert str(refused.value) == "a: x. Remedy: do A\nc: y. Remedy: do C"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_api_that_began_before_the_shop_was_known_ends_when_it_is_another_one(
    redis_url: str, database_url: str, tmp_path: Path, processes: str
) -> None:
    settings = {"FIRSTCOME_REDIS_URL": redis_url, "FIRSTCOME_DATABASE_URL": database_url, "FIRSTCOME_CURRENCY": "USD"}
    arguments = [*program(), "api", "--port", "0", "--processes", processes]
    api = ChildProcess("api", arguments, tmp_path / "log", env=environment(**settings))
    api.start()
    try:
        wait_until(lambda: "serving on" in api.log_tail(), timeout_s=WITHIN_S, what="the API begins")
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute((INSTALLED % "64, 'Asia/Seoul', 'KRW', 1").encode())
        wait_until(lambda: not api.running, timeout_s=WITHIN_S, what="the API has ended")
    finally:
        api.stop()
    assert api.exit_code == Refused.exit_code
    assert "FIRSTCOME_CURRENCY is USD, but this database was begun with KRW" in (tmp_path / "log").read_text()
