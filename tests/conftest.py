"""Fixtures for every test: real servers for the session, an empty Redis and a fresh database for each, new names."""

import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import get_args

import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from api.commands.server_files import PostgresPrograms, RedisProgram, redis_programs
from engine.engine import Engine
from tests.engine.shop import opened
from tests.engine.valkey_process import ValkeyProcess
from tests.servers import Databases, RedisKind, empty_redis, opened_redis, reachable_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--redis cluster` opens every shop on six nodes, as `make test-cluster` does; `--postgres` is another version."""
    parser.addoption("--postgres", type=Path, help="folder with the postgres and initdb of another version")
    parser.addoption("--redis", choices=get_args(RedisKind), default="one", help="what shops are opened on")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the soak tests to `make soak` (or any run that names a marker or a single test).

    On a cluster only what wants servers of the session or a shop is run, unless one Redis alone has what it is about.
    """
    if config.option.redis == "cluster":
        config.hook.pytest_deselected(items=[item for item in items if not _is_for_a_cluster(item)])
        items[:] = filter(_is_for_a_cluster, items)
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    soak = [item for item in items if item.get_closest_marker("soak") is not None]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item not in soak]


def _is_for_a_cluster(item: pytest.Item) -> bool:
    asks_for_redis = {"databases", "redis_url"} & set(getattr(item, "fixturenames", ()))
    return bool(asks_for_redis) and item.get_closest_marker("one_redis") is None


@pytest.fixture(scope="session")
def redis_kind(pytestconfig: pytest.Config) -> RedisKind:
    """What the session's shops are opened on."""
    kind: RedisKind = pytestconfig.option.redis
    return kind


@pytest.fixture(scope="session")
def session_redis(redis_kind: RedisKind) -> Iterator[EmbeddedValkey | EmbeddedCluster]:
    """The session's Redis, of the preferred program that is installed. Tests that stop it start one of their own."""
    with opened_redis(redis_kind) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(session_redis: EmbeddedValkey | EmbeddedCluster) -> EmbeddedValkey:
    """The same for what is done to one server alone."""
    assert isinstance(session_redis, EmbeddedValkey), "a test for one Redis is marked so"
    return session_redis


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[EmbeddedPostgres]:
    """The session's PostgreSQL. Tests that stop it start one of their own."""
    folder = reachable_folder()
    programs = pytestconfig.option.postgres
    try:
        with EmbeddedPostgres(folder, programs=programs and PostgresPrograms(programs)) as server:
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
def redis_url(session_redis: EmbeddedValkey | EmbeddedCluster) -> str:
    """The URL of an empty Redis."""
    empty_redis(session_redis.url)
    return session_redis.url


@pytest.fixture(scope="session")
def databases(postgres_server: EmbeddedPostgres, redis_kind: RedisKind) -> Databases:
    """Makes more databases for a test, or one for a whole module."""
    return Databases(postgres_server, redis_kind)


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


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """One Valkey for all tests of the flows and their races."""
    process = ValkeyProcess(tmp_path_factory.mktemp("flows"))
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def engine(redis_process: ValkeyProcess) -> AsyncIterator[Engine]:
    """An engine on empty, trusted partitions, at the test's time."""
    async with opened(redis_process.url) as engine:
        yield engine


_numbers = count(1)


@pytest.fixture
def user() -> str:
    """A user that nobody has seen."""
    return f"user-{next(_numbers)}"


@pytest.fixture
def product() -> str:
    """The id of a product that there is not yet."""
    return f"product-{next(_numbers)}"


@pytest.fixture
def campaign() -> str:
    """The id of a campaign that there is not yet."""
    return f"campaign-{next(_numbers)}"
