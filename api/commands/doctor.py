"""`firstcome doctor`: what is wrong with the servers and the settings, and what to do about it."""

from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.commands.checks import Check
from api.commands.data_folder import Addresses
from api.commands.postgres_checks import postgres_checks
from api.commands.redis_checks import redis_checks
from api.commands.setting_names import refused_settings, unknown_settings
from api.commands.stores import data_option, stores_environment
from engine.settings import EngineSettings
from persistence.settings import WorkerSettings


@click.command()
@data_option
def doctor(data: Path) -> None:
    """Check Redis, PostgreSQL and the settings; name the remedy for what is wrong.

    Ends with the next command to type, and with exit code 1 when something is wrong.
    """
    settings, addresses = stores_environment(data), Addresses.read(data)
    checks = examine(settings)
    console = Console()
    console.print(_table(checks))
    failed = any(check.failed for check in checks)
    console.print(f"Next: {_next_command(checks, settings, addresses)}", soft_wrap=True, highlight=False, markup=False)
    if failed:
        raise SystemExit(1)


def examine(settings: Mapping[str, str]) -> list[Check]:
    """Every check, for these FIRSTCOME_* settings."""
    if refused := refused_settings(settings):
        return [Check("settings", "refused", each) for each in refused]
    engine, worker = EngineSettings.from_environment(settings), WorkerSettings.from_environment(settings)
    read = Check("settings", "read", advice=unknown_settings(settings))
    return [read, *redis_checks(engine), *postgres_checks(worker.database_url, engine)]


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
