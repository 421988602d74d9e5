"""Where an operator's command finds Redis and PostgreSQL: what FIRSTCOME_* says, else a running `firstcome up`."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import click

from api.commands.api import environment
from api.commands.data_folder import Addresses
from engine.engine import Engine, open_engine
from engine.errors import Unavailable
from engine.settings import EngineSettings
from persistence.audited import Connection
from persistence.database import DatabaseUnavailable, connect
from persistence.settings import WorkerSettings

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".firstcome"),
    show_default=True,
    help="The data folder of `firstcome up`, looked at for what FIRSTCOME_* does not say.",
)

_URLS = ("FIRSTCOME_REDIS_URL", "FIRSTCOME_DATABASE_URL")


class NoShop(Exception):
    """Nothing names a shop, and where one is by default nothing answers; the message says what to do."""


def stores_environment(data: Path) -> dict[str, str]:
    """Our environment, with the addresses of the shop that runs on the folder where it names none."""
    settings = environment()
    addresses = Addresses.read(data)
    if addresses is not None:
        found = {"FIRSTCOME_REDIS_URL": addresses.redis_url, "FIRSTCOME_DATABASE_URL": addresses.database_url}
        settings |= {name: url for name, url in found.items() if not settings.get(name)}
    return settings


@contextmanager
def telling_of_no_shop(data: Path) -> Iterator[None]:
    """Within it, servers that do not answer and that nobody has named are a `NoShop`."""
    try:
        yield
    except (Unavailable, DatabaseUnavailable) as error:
        settings = stores_environment(data)
        if any(settings.get(name) for name in _URLS):
            raise
        raise NoShop(
            f"no shop runs on {data}: start one (`make run`, `firstcome up`), name its folder with --data, or set "
            f"{' and '.join(_URLS)}. ({error})"
        ) from error


@asynccontextmanager
async def opened_stores(data: Path, purpose: str) -> AsyncIterator[tuple[Engine, Connection]]:
    """An engine and a connection, where FIRSTCOME_* or a running `firstcome up` say that Redis and PostgreSQL are.

    Raises `SettingError`, `EngineError`, `DatabaseError` or `NoShop`.
    """
    settings = stores_environment(data)
    url = WorkerSettings.from_environment(settings).database_url
    with telling_of_no_shop(data):
        async with (
            open_engine(EngineSettings.from_environment(settings)) as engine,
            await connect(url, f"firstcome {purpose}") as connection,
        ):
            yield engine, connection
