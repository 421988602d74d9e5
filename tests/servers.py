"""The real servers that the tests run on: one Valkey and one PostgreSQL for a session, clean ones for each test."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from engine.redis_address import names_a_cluster, parse_cluster_url
from persistence.migrations import upgrade

TEMPLATE = "migrated"

RedisKind = Literal["one", "cluster"]
"""What shops are opened on: one server, or a cluster of three primaries and their replicas."""

CLUSTER_SETTINGS = {
    # A node that is gone is missed within seconds.
    "cluster-node-timeout": "1000",
    # A primary whose slots have all been moved stays one.
    "cluster-allow-replica-migration": "no",
}


def reachable_folder() -> Path:
    """A new folder that every user of the machine can pass through; the caller removes it."""
    folder = Path(tempfile.mkdtemp(prefix="firstcome-test-"))
    folder.chmod(0o755)
    return folder


def redis_client(url: str) -> redis.Redis:
    """A client that never repeats a command by itself; close it. For a cluster, one that goes to the right nodes."""
    if names_a_cluster(url):
        seeds = parse_cluster_url(url)
        cluster = redis.RedisCluster(
            startup_nodes=[ClusterNode(seed.host, seed.port) for seed in seeds],  # type: ignore[no-untyped-call]
            username=seeds[0].username,
            password=seeds[0].password,
            socket_timeout=10,
        )
        return cast(redis.Redis, cluster)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=10)


def empty_redis(url: str) -> None:
    """Takes everything out of a server; scripts it has loaded stay, as after an ordinary start of an application."""
    with redis_client(url) as client:
        client.flushall()


@contextlib.contextmanager
def opened_redis(kind: RedisKind, **settings: str) -> Iterator[EmbeddedValkey | EmbeddedCluster]:
    """An empty Redis of the caller's own, to stop, kill and start as it likes."""
    folder = reachable_folder()
    try:
        if kind == "cluster":
            with EmbeddedCluster(folder / "cluster", settings={**CLUSTER_SETTINGS, **settings}) as cluster:
                yield cluster
        else:
            with EmbeddedValkey(folder / "valkey", settings=settings) as valkey:
                yield valkey
    finally:
        shutil.rmtree(folder)


@dataclass(slots=True)
class Databases:
    """Makes databases on one server: a copy of a migrated one takes some tens of milliseconds.

    A shop that is opened on one has a Redis of ``redis_kind``.
    """

    server: EmbeddedPostgres
    redis_kind: RedisKind = "one"
    _numbers: "count[int]" = field(default_factory=count)
    _migrated: bool = False

    def make_migrated(self) -> str:
        """The URL of a new database at the newest revision."""
        if not self._migrated:
            self._create(TEMPLATE)
            upgrade(self.server.database_url(TEMPLATE))
            self._migrated = True
        return self._make(TEMPLATE)

    def make_empty(self) -> str:
        """The URL of a new database without any table."""
        return self._make("template0")

    def drop(self, url: str) -> None:
        """Drops a database, ending the sessions that a test left open."""
        name = urlsplit(url).path.lstrip("/")
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _make(self, template: str) -> str:
        name = f"test_{next(self._numbers)}"
        self._create(name, template)
        return self.server.database_url(name)

    def _create(self, name: str, template: str = "template0") -> None:
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.server.database_url("postgres"), autocommit=True) as connection:
            connection.execute(statement)
