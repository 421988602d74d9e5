"""`firstcome doctor`: what is wrong with the servers and the settings, and what to do about it."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap

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

    Ends with the next command to type, and with exit code 1 when something is wrong; 2: no shop runs on the --data.
    """
    settings, addresses = stores_environment(data), Addresses.read(data)
    checks = examine(settings)
    console = Console()
    show(console, checks)
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


_NEXT_LINE = "\n  "
_HEADINGS = ("", "check", "found", "remedy")


def show(console: Console, checks: list[Check]) -> None:
    """A table, or a list where a table would break a word, as an address is one."""
    rows = [
        (_sign(check), check.name, " ".join(check.found.split()), " ".join((check.remedy or check.advice).split()))
        for check in checks
    ]
    narrowest = [max(map(_longest_word, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    # A column has a blank at each side, and a line between it and the next.
    if sum(narrowest) + 3 * len(narrowest) - 1 > console.width:
        _show_list(console, rows)
        return
    table = Table(show_edge=False)
    for heading, width in zip(_HEADINGS, narrowest, strict=True):
        table.add_column(heading, overflow="fold", min_width=width)
    for sign, *texts in rows:
        table.add_row(_COLOURED[sign], *map(escape, texts))
    console.print(table)


def _show_list(console: Console, rows: list[tuple[str, str, str, str]]) -> None:
    for sign, name, found, remedy in rows:
        for mark, text in ((_COLOURED[sign], f"{name}: {found}"), (" ", remedy and f"-> {remedy}")):
            lines = wrap(text, max(console.width - 2, 20), break_long_words=False, break_on_hyphens=False)
            if lines:
                console.print(f"{mark} {escape(_NEXT_LINE.join(lines))}", soft_wrap=True, highlight=False)


_COLOURED = {"✗": "[red]✗[/]", "!": "[yellow]![/]", "✓": "[green]✓[/]"}


def _sign(check: Check) -> str:
    return "✗" if check.failed else "!" if check.advice else "✓"


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=1)


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
