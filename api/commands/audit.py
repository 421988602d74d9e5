"""`firstcome audit`: Redis beside PostgreSQL, and PostgreSQL beside the laws, while traffic runs."""

import asyncio
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.commands.stores import NOT_ASKED, NotAsked, data_option, opened_stores
from engine.errors import EngineError
from engine.settings import SettingError
from persistence.auditor import Auditor, AuditReport
from persistence.database import DatabaseError
from persistence.installation import require_installation
from persistence.start_checks import StartRefused

MISMATCH = 1
INCOMPLETE = NOT_ASKED
"""Exit codes; 0 says that everything that could be compared is right."""

LEGEND = (
    "✓ right, ✗ wrong, · nothing to compare, or only with --full. In motion: changing just now, or out of reach; left "
    "for another time. Cold: in PostgreSQL only, as Redis may let it go."
)


@click.command()
@click.option("--full", is_flag=True, help="Compare everything there is, not what changed lately and a sample.")
@data_option
def audit(full: bool, data: Path) -> None:
    """Compare Redis with PostgreSQL and check the laws of conservation, while traffic runs.

    Nothing is repaired. Exit code 0: nothing is wrong. 1: something is. 2: nothing, or not all, could be looked at.
    """
    console = Console()
    try:
        auditor = uvloop.run(_audit(full, data, console))
    except (SettingError, StartRefused, DatabaseError, EngineError) as error:
        raise NotAsked(str(error)) from error
    console.print(_table(auditor.report))
    console.print(Text(LEGEND, style="dim"), soft_wrap=True)
    for example in auditor.report.examples:
        named = f"{example.entity.subject} {example.entity.name} (partition {example.entity.partition})"
        console.print(Text(f"✗ {example.check}: {named}: {example.detail}"), soft_wrap=True)
    if auditor.unread:
        numbers = ", ".join(map(str, sorted(auditor.unread)))
        console.print(Text(f"Not trusted or out of reach, so left out: partitions {numbers}"), soft_wrap=True)
    if count := auditor.report.mismatches:
        console.print(f"{count:,} {'mismatch' if count == 1 else 'mismatches'}", style="bold red")
        raise SystemExit(MISMATCH)
    if auditor.unread:
        raise SystemExit(INCOMPLETE)
    console.print("Nothing is wrong.")


async def _audit(full: bool, data: Path, console: Console) -> Auditor:
    async with opened_stores(data, "audit") as (engine, connection):
        await require_installation(connection, engine.settings)
        auditor = Auditor(engine, connection)
        with console.status("") as status:
            async for turn in auditor.everything() if full else auditor.lately():
                status.update(f"looking at {turn}")
                await asyncio.sleep(0)
    return auditor


def _table(report: AuditReport) -> Table:
    table = Table("", "what", "compared", "in motion", "cold", "mismatches", show_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for tally in report.tallies.values():
        sign = "[red]✗[/]" if tally.mismatches else "[green]✓[/]" if tally.compared else "·"
        counts = (tally.compared, tally.moving, tally.cold, tally.mismatches)
        table.add_row(sign, Text(tally.title), *(f"{count:,}" if count else "" for count in counts))
    return table
