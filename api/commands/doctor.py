"""`firstcome doctor`: what is wrong with the servers and the settings, and what to do about it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.commands.api import environment
from api.commands.checks import CONNECT_TIMEOUT_S, Check, clock_check
from api.commands.data_folder import Addresses
from api.commands.redis_checks import redis_checks
from engine.settings import EngineSettings, SettingError, without_password
from persistence.accounts import READER, WRITER
from persistence.database import DatabaseError, libpq_url
from persistence.migrations import require_head
from persistence.settings import WorkerSettings

POSTGRES_VERSION_MIN = 14


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".firstcome"),
    show_default=True,
    help="The data folder of `firstcome up`, looked at for what FIRSTCOME_* does not say.",
)
def doctor(data: Path) -> None:
    """Check Redis, PostgreSQL and the settings; name the remedy for what is wrong.

    Ends with the next command to type, and with exit code 1 when something is wrong.
    """
    settings = environment()
    addresses = Addresses.read(data)
    if addresses is not None:
        settings.setdefault("FIRSTCOME_REDIS_URL", addresses.redis_url)
        settings.setdefault("FIRSTCOME_DATABASE_URL", addresses.database_url)
    checks = examine(settings)
    console = Console()
    console.print(_table(checks))
    failed = any(check.failed for check in checks)
    console.print(f"Next: {_next_command(checks, settings, addresses)}", soft_wrap=True, highlight=False, markup=False)
    if failed:
        raise SystemExit(1)


def examine(settings: Mapping[str, str]) -> list[Check]:
    """Every check, for these FIRSTCOME_* settings."""
    try:
        engine, worker = EngineSettings.from_environment(settings), WorkerSettings.from_environment(settings)
    except SettingError as error:
        return [Check("settings", "refused", str(error))]
    return [Check("settings", "read"), *redis_checks(engine), *_postgres_checks(worker.database_url, engine)]


def _postgres_checks(url: str, engine: EngineSettings) -> list[Check]:
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
            partitions = _recorded_partitions(connection)
            account = _account_check(connection)
    except (psycopg.Error, ValueError) as error:
        remedy = "start it, or set FIRSTCOME_DATABASE_URL to where it is; `firstcome up` brings one of its own"
        return [Check("PostgreSQL", f"{without_password(url)}: {str(error).strip()}", remedy)]
    old = "use PostgreSQL 14 or newer" if major < POSTGRES_VERSION_MIN else ""
    unsafe = "set fsync and full_page_writes on: a crash would lose what was answered as durable"
    return [
        Check("PostgreSQL", f"{shown} answers"),
        Check("PostgreSQL version", str(version), old),
        Check("fsync, full_page_writes", f"{fsync}, {full_pages}", "" if fsync == full_pages == "on" else unsafe),
        clock_check("PostgreSQL's clock", int(theirs_ms), began, ended),
        _schema_check(url),
        _partitions_check(partitions, engine.partitions),
        account,
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


def _recorded_partitions(connection: psycopg.Connection[Any]) -> int | None:
    try:
        row = connection.execute("SELECT partitions FROM installation").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else int(row[0])


def _schema_check(url: str) -> Check:
    try:
        require_head(url)
    except DatabaseError as error:
        return Check("schema", "not this program's", error.reason or str(error))
    return Check("schema", "this program's")


def _partitions_check(recorded: int | None, configured: int) -> Check:
    if recorded is None:
        return Check("partitions", f"{configured}, to be fixed at the first start")
    remedy = f"set FIRSTCOME_PARTITIONS={recorded}: the number is fixed at the first start"
    return Check("partitions", f"{configured} set, {recorded} on record", "" if recorded == configured else remedy)


def _table(checks: list[Check]) -> Table:
    table = Table(show_edge=False)
    for heading in ("", "check", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        sign = "[red]✗[/]" if check.failed else "[yellow]![/]" if check.advice else "[green]✓[/]"
        table.add_row(sign, check.name, escape(check.found), escape(check.remedy or check.advice))
    return table


def _next_command(checks: list[Check], settings: Mapping[str, str], addresses: Addresses | None) -> str:
    failed = {check.name for check in checks if check.failed}
    if not failed:
        at = addresses.api_url if addresses is not None else "http://127.0.0.1:8000"
        running = addresses is not None
        return f"curl -s {at}/v1/products" if running else "firstcome worker & firstcome api"
    if failed <= {"schema"}:
        return "firstcome migrate"
    configured = {"FIRSTCOME_REDIS_URL", "FIRSTCOME_DATABASE_URL"} & settings.keys()
    if failed <= {"Redis", "PostgreSQL"} and (addresses is not None or not configured):
        return "firstcome up"
    return "firstcome doctor, once the remedies above are done"
