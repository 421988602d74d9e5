"""The schema's history: Alembic, configured here and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from persistence.accounts import Granted, grant, make_login
from persistence.database import AdvisoryLock
from persistence.revisions import head_revision, refuse_newer, require_revision
from persistence.sqlalchemy_engines import migration_engine

__all__ = ["add_login", "current_revision", "downgrade", "head_revision", "require_head", "upgrade"]


def upgrade(database_url: str, revision: str = "head") -> Granted:
    """Bring the schema to ``revision``, as its owner, and the rights with it. Several processes may call it at once.

    Raises `DatabaseUnavailable`, or `SchemaMismatch` when the schema is newer than this program.
    """
    with _connected(database_url) as connection:
        refuse_newer(_revision_of(connection))
        command.upgrade(_config(connection), revision)
        return grant(connection)


def add_login(database_url: str, login: str, role: str) -> None:
    """Let ``login`` in as a member of a role, without a password: for a server that trusts its socket."""
    with _connected(database_url) as connection:
        make_login(connection, login, role)


def downgrade(database_url: str, revision: str) -> None:
    """Take the schema back to ``revision`` (``base`` drops every table and all data)."""
    with _connected(database_url) as connection:
        command.downgrade(_config(connection), revision)


def current_revision(database_url: str) -> str | None:
    """The revision that the database is at; None before the first upgrade."""
    with _connected(database_url) as connection:
        return _revision_of(connection)


def require_head(database_url: str) -> None:
    """Raise `SchemaMismatch`, with the remedy, unless the database is at `head_revision`."""
    require_revision(current_revision(database_url))


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(database_url: str) -> Iterator[Connection]:
    with migration_engine(database_url) as engine, engine.begin() as connection:
        # One process migrates, the others wait for it.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AdvisoryLock.MIGRATION})
        yield connection


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
