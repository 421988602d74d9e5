"""The fixtures that other tests stand on."""

import psycopg

from persistence.migrations import current_revision, head_revision
from tests.servers import Databases, redis_client


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


def test_a_database_can_be_dropped_under_an_open_session(databases: Databases) -> None:
    url = databases.make_migrated()
    with psycopg.connect(url):
        databases.drop(url)
