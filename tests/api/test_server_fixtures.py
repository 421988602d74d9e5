"""The fixtures that other tests stand on."""

from typing import LiteralString

import psycopg
import pytest

from persistence.migrations import current_revision, head_revision
from tests.servers import Databases, redis_client

RAISE_ALARM = "INSERT INTO alarm (kind, subject, detail, remedy) VALUES ('a', 'b', 'c', 'd') RETURNING id"


def test_a_test_gets_an_empty_redis_that_keeps_what_it_is_told(redis_url: str) -> None:
    with redis_client(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_a_test_does_not_see_what_another_left_behind(redis_url: str) -> None:
    with redis_client(redis_url) as client:
        assert client.dbsize() == 0


def test_every_flavour_that_is_installed_answers(redis_flavour_url: str) -> None:
    with redis_client(redis_flavour_url) as client:
        info = client.info("server")
        assert int(str(info["redis_version"]).split(".")[0]) >= 6


def test_a_test_gets_a_database_at_the_newest_revision(database_url: str) -> None:
    assert current_revision(database_url) == head_revision()


def test_a_test_may_have_a_database_without_tables(empty_database_url: str) -> None:
    assert current_revision(empty_database_url) is None


def test_a_database_is_given_on_empty_and_without_its_open_sessions(databases: Databases) -> None:
    url = databases.make_migrated()
    with psycopg.connect(url) as left_open:
        left_open.execute(RAISE_ALARM)
        left_open.commit()
        databases.drop(url)
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")
    assert databases.make_migrated() == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM alarm").fetchall() == [(0,)]
        assert connection.execute(RAISE_ALARM).fetchall() == [(1,)]
    databases.drop(url)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE wallet DROP CONSTRAINT wallet_pkey",
        "ALTER TABLE wallet ADD COLUMN note text",
        "ALTER TABLE wallet ALTER COLUMN balance DROP NOT NULL",
        "CREATE TABLE another ()",
        "DROP TABLE alarm",
        "GRANT SELECT ON wallet TO public",
        "UPDATE alembic_version SET version_num = 'another'",
    ],
)
def test_a_database_whose_schema_was_changed_is_given_to_nobody_else(
    databases: Databases, change: LiteralString
) -> None:
    url = databases.make_migrated()
    with psycopg.connect(url) as connection:
        connection.execute(change)
    databases.drop(url)
    another = databases.make_migrated()
    assert another != url
    databases.drop(another)
