"""`firstcome replay`: real orders of a wholesaler, sold again by a running shop, with the books checked afterwards."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.commands import replay_books, replay_report
from api.commands.data_folder import Addresses
from api.commands.online_retail import UnusableFile, read_file
from api.commands.replay_books import BestSellerRow, Check
from api.commands.replay_driver import Answers, Driver, Phase, ReplayFailed
from api.commands.replay_plan import Plan, make_plan
from api.commands.replay_shop import Shop, ShopError, open_shop
from api.commands.replay_stores import PostgresStore, RedisStore, Store, StoreReading
from api.commands.token import OperatorAuth
from api.settings import ApiSettings
from engine.errors import EngineError
from engine.settings import EngineSettings, SettingError
from persistence.database import DatabaseError

URL_DEFAULT = "http://127.0.0.1:8000"
POLL_S = 0.5


def factor(text: str) -> Decimal:
    """A decimal number from 0 to 1,000, kept exact."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number <= 1000:
        raise click.BadParameter(f"{text!r} is not a number from 0 to 1000")
    return number


@dataclass(frozen=True, slots=True)
class Books:
    """The figures of a run from both sides."""

    checks: list[Check]
    best_sellers: list[BestSellerRow]

    @property
    def agree(self) -> bool:
        """Whether both sides say the same everywhere."""
        return all(check.agrees for check in self.checks) and all(row.agrees for row in self.best_sellers)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--url",
    "urls",
    multiple=True,
    help="Where the shop serves; several share the requests.  [default: that of --data, else http://127.0.0.1:8000]",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The data folder of the `firstcome up` to replay into; its Redis and PostgreSQL are checked too.",
)
@click.option("--stock", type=factor, default="1", show_default=True, help="How much of the needed stock there is.")
@click.option("--balance", type=factor, default="1", show_default=True, help="How much of the needed money there is.")
@click.option(
    "--concurrency", type=click.IntRange(1, 500), default=32, show_default=True, help="Customers served at once."
)
@click.option(
    "--settle", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds until the books must agree."
)
def replay(
    file: Path,
    urls: tuple[str, ...],
    data: Path | None,
    stock: Decimal,
    balance: Decimal,
    concurrency: int,
    settle: float,
) -> None:
    """Sell the orders of FILE once more and check the books.

    FILE is a csv or csv.gz in the format of the UCI data set "Online Retail II". Its products are made, its customers
    charged, its invoices checked out with many customers at once; what the shop then says is compared with what the
    file and the answers add up to. With --data, or with FIRSTCOME_REDIS_URL and FIRSTCOME_DATABASE_URL set, Redis and
    PostgreSQL are read directly and compared too. Any difference ends with exit code 1.

    Stock is set to what this run needs, so replay into a shop of your own. A file can be replayed again and again.
    """
    console = Console()
    addresses = Addresses.read(data) if data is not None else None
    if data is not None and addresses is None:
        raise click.ClickException(f"no shop has written its addresses into {data}: is `firstcome up` running there?")
    try:
        sales = read_file(file)
        replay_report.print_file(console, sales)
        plan = make_plan(sales, stock, balance)
        targets = urls or (addresses.api_url if addresses else URL_DEFAULT,)
        answers, books = asyncio.run(_run(console, targets, _store_urls(addresses), plan, concurrency, settle))
    except (
        UnusableFile,
        OSError,
        ReplayFailed,
        SettingError,
        ShopError,
        DatabaseError,
        EngineError,
    ) as error:
        raise click.ClickException(str(error)) from error
    replay_report.print_outcomes(console, answers)
    replay_report.print_best_sellers(console, books.best_sellers)
    replay_report.print_checks(console, books.checks)
    if not books.agree:
        raise click.ClickException(f"the books do not agree {settle:g} s after the last answer")
    console.print("The books agree.", style="bold green")


def _store_urls(addresses: Addresses | None) -> tuple[str | None, str | None]:
    """Where Redis and PostgreSQL are, as far as that is known."""
    if addresses is not None:
        return addresses.redis_url, addresses.database_url
    return os.environ.get("FIRSTCOME_REDIS_URL") or None, os.environ.get("FIRSTCOME_DATABASE_URL") or None


async def _run(
    console: Console,
    urls: Sequence[str],
    store_urls: tuple[str | None, str | None],
    plan: Plan,
    concurrency: int,
    settle_s: float,
) -> tuple[Answers, Books]:
    operator = OperatorAuth(ApiSettings.from_environment())
    async with (
        open_shop(urls, concurrency, operator if operator.has_key else None) as shop,
        _stores(*store_urls) as stores,
    ):
        with _progress(console) as progress:
            totals = {
                Phase.CATALOGUE: len(plan.stock),
                Phase.CHARGES: len(plan.budgets),
                Phase.CHECKOUTS: len(plan.sales.invoices),
            }
            tasks = {phase: progress.add_task(phase, total=total, start=False) for phase, total in totals.items()}

            def advance(phase: Phase) -> None:
                progress.start_task(tasks[phase])
                progress.advance(tasks[phase])

            driver = Driver(shop, plan, concurrency, advance)
            answers = await driver.prepare()
            before = {store.name: await _read(store, answers, answers.best_sellers_before.to) for store in stores}
            await driver.check_out(answers)
        with console.status("Waiting until all is settled and written"):
            return answers, await _settled_books(shop, stores, plan, answers, before, concurrency, settle_s)


async def _settled_books(
    shop: Shop,
    stores: list[Store],
    plan: Plan,
    answers: Answers,
    before: dict[str, StoreReading],
    concurrency: int,
    settle_s: float,
) -> Books:
    """The books once they agree, or as they are when the time is over. The cheapest figure is watched first."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settle_s
    while True:
        best = await replay_books.read_best_sellers(shop, answers.best_sellers_before.to)
        rows = replay_books.best_seller_rows(plan, answers, best)
        late = loop.time() > deadline
        if late or all(row.agrees for row in rows):
            books = await _books(shop, stores, plan, answers, before, concurrency)
            if late or books.agree:
                return books
        await asyncio.sleep(POLL_S)


async def _books(
    shop: Shop,
    stores: list[Store],
    plan: Plan,
    answers: Answers,
    before: dict[str, StoreReading],
    concurrency: int,
) -> Books:
    after = await replay_books.read_shop(shop, plan, answers, concurrency)
    checks = replay_books.check_answers(plan, answers, after)
    for store in stores:
        reading = await _read(store, answers, after.best_sellers.to)
        checks += replay_books.check_store(store.name, answers, before[store.name], reading)
    return Books(checks, replay_books.best_seller_rows(plan, answers, after.best_sellers))


async def _read(store: Store, answers: Answers, until: str) -> StoreReading:
    days = replay_books.days_of(answers.best_sellers_before.to, until)
    return await store.read(list(answers.stock_before), list(answers.wallets), days)


@asynccontextmanager
async def _stores(redis_url: str | None, database_url: str | None) -> AsyncIterator[list[Store]]:
    """The stores whose addresses are known."""
    stores: list[Store] = []
    postgres = PostgresStore(database_url) if database_url else None
    if postgres is not None:
        stores.append(postgres)
    if redis_url is None:
        yield stores
        return
    count = await postgres.partitions() if postgres is not None else EngineSettings.from_environment().partitions
    async with RedisStore(redis_url, count) as in_redis:
        yield [in_redis, *stores]


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
