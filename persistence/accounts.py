"""Who may do what in PostgreSQL: the owner makes tables, the writer fills them, the reader reads.

The two are roles that nobody logs in as; a login is made a member: ``GRANT firstcome_writer TO my_worker``. A ledger
entry that was written stays as it is, whatever the worker does. Where the owner may make no roles, as with some managed
servers, nothing is granted: then every process logs in as the owner, as it does without any of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg.errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

WRITER = "firstcome_writer"
READER = "firstcome_reader"

_CHANGES = "SELECT, INSERT, UPDATE"
_APPENDS = "SELECT, INSERT"

WRITER_GRANTS: Mapping[str, str] = {
    "alarm": _CHANGES,
    "alembic_version": "SELECT",
    "campaign": _CHANGES,
    "campaign_settlement": _CHANGES,
    "coupon": _CHANGES,
    "coupon_issue": _APPENDS,
    "daily_sale": _CHANGES,
    "discount": _CHANGES,
    "epoch_end": _CHANGES,
    "idempotency_key": f"{_CHANGES}, DELETE",
    "installation": _CHANGES,
    "ledger_entry": _APPENDS,
    "order_line": _APPENDS,
    "orders": _CHANGES,
    "outbox": _CHANGES,
    "partition_cursor": _CHANGES,
    "product": _CHANGES,
    "reservation": _CHANGES,
    "set_aside_event": _APPENDS,
    "stock_adjustment": _APPENDS,
    "stock_item": _CHANGES,
    "wallet": _CHANGES,
    "worker_presence": f"{_CHANGES}, DELETE",
}
"""What the worker may do with each table. Rows are removed where they are not of record alone."""

READER_WRITES: Mapping[str, str] = {
    "outbox": "UPDATE (state, tries, next_try_at, delivered_at, last_error, replay_key)",
}
"""What the API may do beside reading: put a delivery back in line."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Whether the roles are there with their rights; ``why`` not."""

    done: bool
    why: str = ""


def grant(connection: Connection) -> Granted:
    """Make the roles where they are missing, and give them exactly these rights on the tables that there are.

    Within the connection's transaction; where that is not permitted nothing is changed.
    """
    try:
        with connection.begin_nested():
            for role in (WRITER, READER):
                _make_role(connection, role, "NOLOGIN")
                connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {role}"))
            for table in _tables(connection):
                connection.execute(text(f"REVOKE ALL ON {table} FROM {WRITER}, {READER}"))
                if table in WRITER_GRANTS:
                    connection.execute(text(f"GRANT {WRITER_GRANTS[table]} ON {table} TO {WRITER}"))
                    connection.execute(text(f"GRANT SELECT ON {table} TO {READER}"))
                if table in READER_WRITES:
                    connection.execute(text(f"GRANT {READER_WRITES[table]} ON {table} TO {READER}"))
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            return Granted(done=False, why=str(error.orig).strip())
        raise
    return Granted(done=True)


def make_login(connection: Connection, login: str, role: str) -> None:
    """A login without a password, for a server that trusts its socket, as a member of a role."""
    _make_role(connection, login, "LOGIN")
    connection.execute(text(f"GRANT {role} TO {login}"))


def _make_role(connection: Connection, role: str, kind: str) -> None:
    """Where it is missing. Roles are of the whole server: another database's migration may make it at this moment."""
    found = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    if found.scalar() is not None:
        return
    try:
        with connection.begin_nested():
            connection.execute(text(f"CREATE ROLE {role} {kind}"))
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.DuplicateObject | psycopg.errors.UniqueViolation):
            raise


def _tables(connection: Connection) -> list[str]:
    """The tables of ours that this revision of the schema has."""
    found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
    return sorted(set(found.scalars()) & WRITER_GRANTS.keys())
