"""What is looked at in PostgreSQL by `firstcome doctor`, and by an API before it begins."""

import time
from typing import Any, LiteralString

import psycopg
from psycopg.rows import TupleRow

from api.commands.checks import CONNECT_TIMEOUT_S, Check, clock_check
from engine.settings import EngineSettings, without_password
from persistence.accounts import READER, WRITER
from persistence.database import SchemaMismatch, libpq_url
from persistence.installation import RECORDED, fixed
from persistence.revisions import require_revision

POSTGRES_VERSION_MIN = 14


def postgres_checks(url: str, engine: EngineSettings) -> list[Check]:
    """Every check, for a worker's login."""
    return _checks(url, engine, with_account=True)


def first_postgres_checks(url: str, engine: EngineSettings) -> list[Check]:
    """What is to be known before anything begins."""
    return [check for check in _checks(url, engine, with_account=False) if check.failed]


def _checks(url: str, engine: EngineSettings, *, with_account: bool) -> list[Check]:
    try:
        shown = without_password(url)
        with psycopg.connect(libpq_url(url), autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            began = time.time()
            row = connection.execute(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000,"
                " current_setting('fsync'), current_setting('full_page_writes'),"
                " (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            ).fetchone()
            ended = time.time()
            assert row is not None
            version, major, fsync, full_pages, theirs_ms = row
            revision = _recorded(connection, "SELECT version_num FROM alembic_version") or (None,)
            installation = _recorded(connection, RECORDED)
            account = [_account_check(connection)] if with_account else []
    except (psycopg.Error, ValueError) as error:
        remedy = "start it, or set FIRSTCOME_DATABASE_URL to where it is; `firstcome up` brings one of its own"
        return [Check("PostgreSQL", f"{without_password(url)}: {str(error).strip()}", remedy)]
    old = "use PostgreSQL 14 or newer" if major < POSTGRES_VERSION_MIN else ""
    unsafe = "set fsync and full_page_writes on: a crash would lose what was answered as durable"
    safe = fsync == full_pages == "on"
    return [
        Check("PostgreSQL", f"{shown} answers"),
        Check("PostgreSQL version", str(version), old, decisive=True),
        Check("fsync, full_page_writes", f"{fsync}, {full_pages}", "" if safe else unsafe, decisive=True),
        clock_check("PostgreSQL's clock", int(theirs_ms), began, ended),
        _schema_check(revision[0]),
        *_installation_checks(installation, engine),
        *account,
    ]


def _account_check(connection: psycopg.Connection[Any]) -> Check:
    """Who the worker is: an owner may do more than it needs, which is worth a word and no failure."""
    row = connection.execute(
        "SELECT current_user, has_table_privilege('ledger_entry', 'DELETE') FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename = 'ledger_entry'"
    ).fetchone()
    if row is None:
        return Check("account", "no tables yet")
    user, may_delete = row
    if not may_delete:
        return Check("account", f"{user}, who can change no ledger entry")
    return Check(
        "account",
        f"{user}, who could change the ledger: give the worker a login that is a member of {WRITER}, and the API one of"
        f" {READER} (FIRSTCOME_READER_DATABASE_URL)",
    )


def _recorded(connection: psycopg.Connection[Any], query: LiteralString) -> TupleRow | None:
    """The one row of a query; None where there is no such table yet, or nothing in it."""
    try:
        return connection.execute(query).fetchone()
    except psycopg.errors.UndefinedTable:
        return None


def _schema_check(revision: str | None) -> Check:
    try:
        require_revision(revision)
    except SchemaMismatch as error:
        return Check("schema", "not this program's", error.reason or str(error), decisive=True)
    return Check("schema", "this program's")


def _installation_checks(recorded: TupleRow | None, engine: EngineSettings) -> list[Check]:
    told = f"{engine.partitions} partitions, {engine.currency}, {engine.time_zone}"
    if recorded is None:
        return [Check("installation", f"{told}, to be fixed at the first start")]
    different = [each for each in fixed(recorded, engine) if each.differs]
    if not different:
        return [Check("installation", f"{told}, as on record")]
    return [Check("installation", each.found, each.remedy, decisive=True) for each in different]
