"""Where an operator's command finds Redis and PostgreSQL: what FIRSTCOME_* says, else a running `firstcome up`."""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from api.commands.api import environment
from api.commands.data_folder import Addresses
from engine.engine import Engine, make_engine
from engine.errors import Unavailable
from engine.settings import EngineSettings, without_password
from persistence.audited import Connection
from persistence.database import DatabaseUnavailable, connect
from persistence.settings import WorkerSettings

_URLS = ("FIRSTCOME_REDIS_URL", "FIRSTCOME_DATABASE_URL")
NOT_ASKED = 2
"""Exit code of a command that could not ask the shop: neither yes nor no is known."""


class NotAsked(click.ClickException):
    """The shop could not be asked; the message says why."""

    exit_code = NOT_ASKED


class NoShop(NotAsked):
    """There is none where it was looked for; the message says what to do."""


def _folder(context: click.Context, parameter: click.Parameter, data: Path | None) -> Path:
    """The folder. One that was named must have a shop, where it is this folder that says where the servers are."""
    if data is None:
        group: Path = context.obj
        return group
    named = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    settings = environment()
    if named and not all(settings.get(name) for name in _URLS) and Addresses.read(data) is None:
        why = "none was started there, or it has ended" if data.exists() else "the folder is not there"
        raise NoShop(f"no shop runs on {data}: {why}")
    return data


_LOOKED_AT = "The data folder of `firstcome up`, looked at for what FIRSTCOME_* does not say."
_DATA = click.Path(path_type=Path, file_okay=False)
data_option = click.option(
    "--data", type=_DATA, default=Path(".firstcome"), show_default=True, callback=_folder, help=_LOOKED_AT
)
data_option_of_group = click.option("--data", type=_DATA, callback=_folder, help=_LOOKED_AT)
"""For a command of a group that has the option too: what is given here counts, else what is given there."""


def stores_environment(data: Path) -> dict[str, str]:
    """Our environment, with the addresses of the shop that runs on the folder where it names none."""
    settings = environment()
    addresses = Addresses.read(data)
    if addresses is not None:
        found = {"FIRSTCOME_REDIS_URL": addresses.redis_url, "FIRSTCOME_DATABASE_URL": addresses.database_url}
        settings |= {name: url for name, url in found.items() if not settings.get(name)}
    return settings


def require_partitions(numbers: Iterable[int], count: int) -> None:
    """Raises what click tells of where one of the numbers is no partition's."""
    if wrong := [number for number in numbers if number not in range(count)]:
        raise click.BadParameter(f"there are {count} partitions, 0 to {count - 1}: not {', '.join(map(str, wrong))}")


@contextmanager
def telling_of_no_shop(data: Path) -> Iterator[None]:
    """Within it, servers that do not answer and that nobody has named are a `NoShop`."""
    try:
        yield
    except (Unavailable, DatabaseUnavailable) as error:
        settings = stores_environment(data)
        if any(settings.get(name) for name in _URLS):
            raise
        is_redis = isinstance(error, Unavailable)
        silent = EngineSettings().redis_url if is_redis else WorkerSettings().database_url
        raise NoShop(
            f"no shop runs on {data}, and nothing answers at {without_password(silent)}: start one (`make run`, "
            f"`firstcome up`), name its folder with --data, or set {' and '.join(_URLS)}"
        ) from error


@asynccontextmanager
async def opened_engine(settings: EngineSettings) -> AsyncIterator[Engine]:
    """As `open_engine`; a Redis that does not answer is told of once, by what is raised, and not by the log as well."""
    engine = make_engine(settings)
    lanes = logging.getLogger("firstcome.lane"), logging.getLogger("firstcome.cluster")
    levels = [log.level for log in lanes]
    for log in lanes:
        log.setLevel(logging.ERROR)
    try:
        await engine.start()
    finally:
        for log, level in zip(lanes, levels, strict=True):
            log.setLevel(level)
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def opened_stores(data: Path, purpose: str) -> AsyncIterator[tuple[Engine, Connection]]:
    """An engine and a connection, where FIRSTCOME_* or a running `firstcome up` say that Redis and PostgreSQL are.

    Raises `SettingError`, `EngineError`, `DatabaseError` or `NoShop`.
    """
    settings = stores_environment(data)
    url = WorkerSettings.from_environment(settings).database_url
    with telling_of_no_shop(data):
        async with (
            opened_engine(EngineSettings.from_environment(settings)) as engine,
            await connect(url, f"firstcome {purpose}") as connection,
        ):
            yield engine, connection
