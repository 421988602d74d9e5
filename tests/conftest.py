"""Fixtures for every test: real servers for the session, an empty Redis and a fresh database for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from api.commands.server_files import RedisProgram, redis_programs
from tests.servers import Databases, empty_redis, reachable_folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the soak tests to `make soak` (or any run that names a marker or a single test)."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    soak = [item for item in items if item.get_closest_marker("soak") is not None]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item not in soak]


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """The session's Redis: the preferred program that is installed. Tests that stop it start one of their own."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """The session's PostgreSQL. Tests that stop it start one of their own."""
    folder = reachable_folder()
    try:
        with EmbeddedPostgres(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def data_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can pass through, as pytest's own cannot be; gone after the test."""
    folder = reachable_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def redis_url(valkey_server: EmbeddedValkey) -> str:
    """The URL of an empty Redis."""
    empty_redis(valkey_server.url)
    return valkey_server.url


@pytest.fixture(scope="session")
def databases(postgres_server: EmbeddedPostgres) -> Databases:
    """Makes more databases for a test, or one for a whole module."""
    return Databases(postgres_server)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The URL of a fresh database at the newest revision."""
    url = databases.make_migrated()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    url = databases.make_empty()
    yield url
    databases.drop(url)


@pytest.fixture(scope="session", params=redis_programs(), ids=lambda program: program.flavour)
def redis_flavour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server of each Redis or Valkey program that is installed, one after the other."""
    program: RedisProgram = request.param
    with EmbeddedValkey(tmp_path_factory.mktemp(program.flavour), program=program) as server:
        yield server


@pytest.fixture
def redis_flavour_url(redis_flavour: EmbeddedValkey) -> str:
    """The URL of an empty server; the test runs once on each flavour that is installed."""
    empty_redis(redis_flavour.url)
    return redis_flavour.url
