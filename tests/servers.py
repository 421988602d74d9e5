"""The real servers that the tests run on: one Valkey and one PostgreSQL for a session, clean ones for each test."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, LiteralString, cast
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


_SCHEMA = """
SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
    SELECT concat_ws(' ', oid, relname, relkind, relowner, relacl, relnatts, relchecks) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', attrelid, attnum, attname, atttypid, attnotnull, attacl) FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    UNION ALL SELECT oid || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', oid, tgenabled) FROM pg_trigger
    UNION ALL SELECT oid || md5(prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT version_num FROM alembic_version
) AS schema (part)
"""
"""The schema and its rights as one text: the same in each copy of the template, until a test changes something."""

_BYTES = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_EMPTY = """
DO $$ DECLARE name regclass; BEGIN
    SET LOCAL session_replication_role = replica;
    FOR name IN SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
    LOOP EXECUTE format('DELETE FROM %s', name); END LOOP;
    PERFORM setval(oid::regclass, 1, false) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'S';
END $$
"""
"""Takes out every row, whatever refers to it; migrations put none in."""

REUSED_BYTES_MAX = 4_000_000
"""What is larger leaves so much behind in its files that a new database is sooner made."""


@dataclass(slots=True)
class Databases:
    """Makes databases on one server. A migrated one that is not needed any more is emptied and given to the next test,
    as long as it has the schema that it was made with: that takes a tenth of making another.

    A shop that is opened on one has a Redis of ``redis_kind``.
    """

    server: EmbeddedPostgres
    redis_kind: RedisKind = "one"
    _numbers: "count[int]" = field(default_factory=count)
    _schema: str | None = None
    _migrated: set[str] = field(default_factory=set)
    _emptied: list[str] = field(default_factory=list)

    def make_migrated(self) -> str:
        """The URL of a database at the newest revision, without a row."""
        if self._emptied:
            return self._emptied.pop()
        if self._schema is None:
            self._create(TEMPLATE)
            upgrade(self.server.database_url(TEMPLATE))
            with psycopg.connect(self.server.database_url(TEMPLATE), autocommit=True) as connection:
                self._schema = _value(connection, _SCHEMA)
        url = self._make(TEMPLATE)
        self._migrated.add(url)
        return url

    def make_empty(self) -> str:
        """The URL of a new database without any table."""
        return self._make("template0")

    def drop(self, url: str) -> None:
        """Takes a database from its test, ending the sessions that this left open."""
        if url in self._migrated and self._is_emptied(url):
            self._emptied.append(url)
            return
        self._migrated.discard(url)
        name = urlsplit(url).path.lstrip("/")
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _is_emptied(self, url: str) -> bool:
        """Makes a database as good as new; False where it is not worth it."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_END_SESSIONS)
            if _value(connection, _SCHEMA) != self._schema or _value(connection, _BYTES) > REUSED_BYTES_MAX:
                return False
            connection.execute("SET synchronous_commit = off")
            connection.execute(_EMPTY)
        return True

    def _make(self, template: str) -> str:
        name = f"test_{next(self._numbers)}"
        self._create(name, template)
        return self.server.database_url(name)

    def _create(self, name: str, template: str = "template0") -> None:
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.server.database_url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def _value(connection: psycopg.Connection[tuple[Any, ...]], query: LiteralString) -> Any:
    ((found,),) = connection.execute(query).fetchall()
    return found
