"""Prints what a replay read, what became of it, and how both sides of the books compare."""

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.commands.online_retail import Sales
from api.commands.replay_books import BestSellerRow, Check
from api.commands.replay_driver import Answers

AGREES, DIFFERS = Text("✓", "green"), Text("differs", "bold red")


def print_file(console: Console, sales: Sales) -> None:
    """What the file holds and which of its lines are no sale, adding up to all of them."""
    table = _table("The file", "", "lines")
    table.add_row("part of a sale", _number(sales.sale_lines))
    for reason, count in sales.skipped.items():
        if count:
            table.add_row(f"skipped: {reason}", _number(count))
    table.add_row(Text("all", "bold"), Text(_number(sales.lines_read), "bold"))
    console.print(table)
    customers = len({invoice.customer_id for invoice in sales.invoices})
    console.print(
        f"{_number(len(sales.invoices))} sales invoices of {_number(customers)} customers,"
        f" {_number(len(sales.products))} products"
    )


def print_outcomes(console: Console, answers: Answers) -> None:
    """Orders completed, and invoices refused by the name of the problem."""
    table = _table("The invoices", "", "invoices")
    table.add_row("completed", _number(len(answers.completed)))
    for reason, count in Counter(each.reason for each in answers.not_sold).most_common():
        table.add_row(f"refused: {reason}", _number(count))
    all_of_them = len(answers.completed) + len(answers.not_sold)
    table.add_row(Text("all", "bold"), Text(_number(all_of_them), "bold"))
    console.print(table)
    for reason, count in Counter(answers.products_refused.values()).most_common():
        console.print(f"{_number(count)} products refused: {reason}")


def print_best_sellers(console: Console, rows: Iterable[BestSellerRow]) -> None:
    """The five best sellers with their increase from both sides."""
    table = _table("Best sellers: units more than before the run", "product", "file and answers", "shop", "")
    for row in rows:
        found = _number(row.found_min)
        if row.found_max != row.found_min:
            found += f" to {_number(row.found_max)}"
        verdict = AGREES if row.agrees else DIFFERS
        table.add_row(Text(f"{row.product_id} {row.name}"), _number(row.expected), found, verdict)
    console.print(table)


def print_checks(console: Console, checks: Iterable[Check]) -> None:
    """Every other figure from both sides; what differs with examples."""
    table = _table("The books", "", "file and answers", "shop", "")
    for check in checks:
        verdict = AGREES if check.agrees else DIFFERS
        table.add_row(Text(check.what), _number(check.expected), _number(check.found), verdict)
        if check.note:
            table.add_row(Text(f"  {check.note}", "red"))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 or not column else "right")
    return table


def _number(number: int) -> str:
    return f"{number:,}"
