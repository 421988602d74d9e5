"""`make loadtest`: a Locust scenario against a shop of its own, started for it and stopped after it, or one that runs.

The shop is a `firstcome up` with two API processes on a free port and a new folder. It asks for tokens, as a shop in
production does, and counts no requests by user or address: all of them come from one address.
"""

import math
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from api.commands.api import program
from api.commands.data_folder import Addresses
from api.commands.listening import free_port
from api.commands.processes import ChildProcess, Interrupted, ProcessFailed, stop_signals, wait_until
from loadtests.scenarios.names import SCENARIOS, Named, UnknownScenario, chosen
from loadtests.scenarios.options import PARAMETERS, Parameter
from loadtests.scenarios.plan import NOT_PREPARED

ROOT = Path(__file__).resolve().parents[1]
READY_S = 120.0
STOP_S = 60.0
POLL_S = 0.1
SPAWNED_WITHIN_S = 5
_TIME = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s?)?")
_UNITS = {"h": 3600, "m": 60, "s": 1}
HELP = frozenset({"-h", "--help"})
LOCUSTS_OWN = frozenset({"LOCUST_USERS", "LOCUST_RUN_TIME", "LOCUST_PROCESSES", "LOCUST_HOST"})
"""What it is told on its command line here."""

STORES = (
    "FIRSTCOME_REDIS_URL",
    "FIRSTCOME_DATABASE_URL",
    "FIRSTCOME_OWNER_DATABASE_URL",
    "FIRSTCOME_READER_DATABASE_URL",
)
SHOP_SETTINGS = {"FIRSTCOME_USER_RATE": "0", "FIRSTCOME_ADDRESS_RATE": "0"}
AUDIT_AGE_MS = "2000"
"""The run is over when the audit begins, so nothing needs a minute to come to rest."""


class _Command(click.Command):
    """Its help lists the scenarios and their parameters too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Scenarios, by tag or name"):
            formatter.write_dl([(f"{each.tag}, {each.name}", each.does) for each in SCENARIOS])
        with formatter.section("Their parameters, after --, or by environment"):
            formatter.write_dl([(f"--{each.name}", _told(each)) for each in PARAMETERS])
        with formatter.section("Locust's own"):
            formatter.write_dl([("locust --help", "lists what else may follow --.")])


def _told(parameter: Parameter) -> str:
    values = f"{' or '.join(parameter.choices)}; " if parameter.choices else ""
    default = f"default: {parameter.default}; " if parameter.default != "" else ""
    return f"{parameter.told}  [{values}{default}{parameter.variable}]"


def _scenarios(_: click.Context, __: click.Parameter, text: str) -> Sequence[Named]:
    try:
        return chosen(text)
    except UnknownScenario as error:
        raise click.BadParameter(str(error)) from error


def _seconds(_: click.Context, __: click.Parameter, text: str) -> int:
    found = _TIME.fullmatch(text)
    seconds = sum(int(found[unit] or 0) * size for unit, size in _UNITS.items()) if found else 0
    if seconds <= 0:
        raise click.BadParameter(f"{text!r} is no time: write 90, 90s, 20m, 4h or 1h30m")
    return seconds


@click.command(cls=_Command)
@click.option(
    "--scenario",
    "scenarios",
    default="shopping",
    show_default=True,
    callback=_scenarios,
    help=f"One or several, with commas between: {', '.join(each.tag for each in SCENARIOS)}.",
)
@click.option("--users", default=100, show_default=True, type=click.IntRange(1), help="Users at once.")
@click.option("--url", help="A shop that runs already; FIRSTCOME_TOKEN_SECRET must be its secret, if it has one.")
@click.option(
    "--run-time", "run_time_s", default="60s", show_default=True, callback=_seconds,
    help="How long, for scenarios that have no end, from when all users are there: 90, 90s, 20m, 4h.",
)  # fmt: skip
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1), help="Load generators.")
@click.option(
    "--api-workers", default=2, show_default=True, type=click.IntRange(1), help="API processes of its own shop."
)
@click.argument("locust_arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def main(
    context: click.Context,
    scenarios: Sequence[Named],
    users: int,
    url: str | None,
    run_time_s: int,
    processes: int,
    api_workers: int,
    locust_arguments: tuple[str, ...],
) -> None:
    """Run a load test; what follows `--` is given to Locust: `-- --coupons 500`. Its exit code is ours."""
    if HELP.intersection(locust_arguments):
        click.echo(context.get_help())
        return
    stopping = threading.Event()
    arguments = ["--tags", *(each.tag for each in scenarios), *_amounts(users, processes)]
    if not all(each.one_shot for each in scenarios):
        arguments += ["--run-time", f"{run_time_s + math.ceil(users / _spawn_rate(users))}s"]
    with stop_signals(stopping):
        try:
            if url is not None:
                exit_code = _locust(url, [*arguments, *locust_arguments], dict(os.environ), stopping)
            else:
                with _own_shop(api_workers, stopping) as (addresses, env):
                    exit_code = _locust(addresses.api_url, [*arguments, *locust_arguments], env, stopping)
        except Interrupted:
            exit_code = 130
        except ProcessFailed as error:
            click.echo(f"Error: {error}", err=True)
            exit_code = NOT_PREPARED
    sys.exit(exit_code)


def _amounts(users: int, processes: int) -> list[str]:
    amounts = ["--users", str(users), "--spawn-rate", str(_spawn_rate(users))]
    if processes == 1:
        return amounts
    port = str(free_port())
    return [*amounts, "--processes", str(processes), "--master-bind-port", port, "--master-port", port]


def _spawn_rate(users: int) -> int:
    return max(1, users // SPAWNED_WITHIN_S)


@contextmanager
def _own_shop(api_workers: int, stopping: threading.Event) -> Iterator[tuple[Addresses, dict[str, str]]]:
    """A shop that sells, and the environment that knows its stores and its secret."""
    folder = Path(tempfile.mkdtemp(prefix="firstcome-loadtest-"))
    folder.chmod(0o755)  # started by root, PostgreSQL is another user
    inherited = {name: value for name, value in os.environ.items() if name not in STORES}
    env = {"FIRSTCOME_TOKEN_SECRET": secrets.token_urlsafe(48), **inherited, **SHOP_SETTINGS}
    command = [*program(), "up", "--port", "0", "--data", str(folder), "--api-workers", str(api_workers)]
    shop = ChildProcess("the shop", command, folder / "up.log", env, stop_timeout_s=STOP_S)
    click.echo(f"starting a shop with {api_workers} API processes in {folder}", err=True)
    shop.start()
    try:
        wait_until(lambda: _is_open(shop, folder), timeout_s=READY_S, what="the shop is open", stopping=stopping)
        addresses = Addresses.read(folder)
        assert addresses is not None
        stores = {"FIRSTCOME_REDIS_URL": addresses.redis_url, "FIRSTCOME_DATABASE_URL": addresses.database_url}
        yield addresses, {**env, **stores, "FIRSTCOME_AUDIT_AGE_MS": AUDIT_AGE_MS}
    finally:
        shop.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _is_open(shop: ChildProcess, folder: Path) -> bool:
    if not shop.running:
        raise shop.failure()
    return Addresses.read(folder) is not None


def _locust(url: str, arguments: Sequence[str], env: dict[str, str], stopping: threading.Event) -> int:
    """Runs Locust to its end, which a stop brings about; its users' tally is checked all the same."""
    env = {name: value for name, value in env.items() if name not in LOCUSTS_OWN}
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless"]
    locust = ChildProcess("Locust", [*command, "--only-summary", "--host", url, *arguments], env=env, cwd=ROOT)
    locust.start()
    told = False
    while locust.running:
        if stopping.wait(POLL_S) and not told:
            locust.signal(locust.stop_signal)
            told = True
    locust.stop()
    return locust.exit_code or 0


if __name__ == "__main__":
    main()
