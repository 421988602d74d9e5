"""`firstcome up`: the whole shop on one machine."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import httpx
from rich.console import Console
from rich.markup import escape

from api.authentication import read_keys
from api.commands.api import DRAIN_S, environment, program
from api.commands.data_folder import ADDRESSES_FILE, Addresses, FolderLock, make_data_folder
from api.commands.demo import first_purchase, make_demo
from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.embedded_postgres import DATABASE, EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
from api.commands.first_look import judge
from api.commands.listening import CannotListen, KeptPorts, free_port, http_url, listen, require_loopback
from api.commands.postgres_checks import first_postgres_checks
from api.commands.processes import ChildProcess, Interrupted, ProcessFailed, Supervisor, stop_signals, wait_until
from api.commands.redis_checks import first_redis_checks
from api.commands.setting_names import unknown_settings
from api.commands.token import OperatorAuth
from api.settings import ApiSettings
from engine.settings import EngineSettings, SettingError, without_password
from persistence.accounts import READER, WRITER
from persistence.database import DatabaseError
from persistence.migrations import add_login, upgrade
from persistence.settings import OwnerSettings, WorkerSettings
from persistence.start_checks import StartRefused
from persistence.webhooks import make_secret

SECRET_FILE = "data-platform-secret"
PORTS_FILE = "ports"
WORKER_LOGIN = "firstcome_worker"
API_LOGIN = "firstcome_api"

OPEN_TO_ALL = (
    "Without a key the shop serves this machine only and asks for no token: whoever reaches it may act as any user, "
    "and as an operator."
)

READY_TIMEOUT_S = 60.0
READY_POLL_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    host: str
    port: int
    data: Path
    api_workers: int
    workers: int
    cluster: bool


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the API listens on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--data",
    default=Path(".firstcome"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the servers keep their state between runs.",
)
@click.option("--cluster", is_flag=True, help="A Redis Cluster of six nodes in the place of one Valkey.")
@click.option("--api-workers", type=click.IntRange(1, 256), help="API processes.  [default: 1, with --cluster 2]")
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes.  [default: 1, with --cluster 2]")
def up(host: str, port: int, data: Path, cluster: bool, api_workers: int | None, workers: int | None) -> None:
    """Run the whole shop on this machine: servers, worker, API, a demo catalogue.

    A Valkey and a PostgreSQL server of its own are started on the data folder; where FIRSTCOME_REDIS_URL or
    FIRSTCOME_DATABASE_URL names a server, that one is used instead. Ctrl-C or SIGTERM stops all of it.

    With --cluster, users and products live on three Valkey primaries, each with a replica that takes its place.
    """
    several = 2 if cluster else 1
    console = Console()
    stopping = threading.Event()
    with stop_signals(stopping):
        try:
            settings = ApiSettings.from_environment()
            if read_keys(settings) is None:
                require_loopback(host)
            EngineSettings.from_environment()  # what cannot be used is refused before a server is started
            WorkerSettings.from_environment()
            if unknown := unknown_settings(os.environ):
                console.print(unknown, style="yellow", markup=False, soft_wrap=True)
            request = Request(host, port, data.absolute(), api_workers or several, workers or several, cluster)
            _Up(request, OperatorAuth(settings), console, stopping).run()
        except Interrupted:
            pass
        except (
            CannotListen,
            ProcessFailed,
            SettingError,
            StartRefused,
            DatabaseError,
            httpx.HTTPError,
            OSError,
        ) as error:
            raise click.ClickException(str(error)) from error
    console.print("Stopped; nothing is left running.")


class _Up:
    """One run, from the first server to the last one stopped."""

    def __init__(self, request: Request, operator: OperatorAuth, console: Console, stopping: threading.Event) -> None:
        self._request = request
        self._operator = operator
        self._console = console
        self._stopping = stopping
        self._supervisor = Supervisor(tell=lambda message: console.print(message, style="yellow", markup=False))
        self._ports: KeptPorts
        self._metrics_at: list[str] = []
        self._stores_at: list[tuple[str, Path]] = []

    def run(self) -> None:
        request = self._request
        make_data_folder(request.data)
        with FolderLock(request.data), contextlib.closing(self._supervisor):
            (request.data / ADDRESSES_FILE).unlink(missing_ok=True)  # of a run that was killed
            port = _checked_port(request.host, request.port)
            self._ports = KeptPorts(request.data / PORTS_FILE, taken=port)
            (request.data / "logs").mkdir(exist_ok=True)
            redis_url = self._redis()
            server = self._database()
            env = environment(FIRSTCOME_REDIS_URL=redis_url, **server)
            database_url = env["FIRSTCOME_DATABASE_URL"]
            with self._step("bringing the schema up to date"):
                self._migrate(env)
            judge(first_postgres_checks(database_url, EngineSettings.from_environment()))
            receiver_url, told_to_worker = self._receiver(env)
            addresses = Addresses(os.getpid(), http_url(request.host, port), redis_url, database_url)
            self._shop(env, told_to_worker, port, addresses)
            try:
                self._show(addresses, receiver_url)
                addresses.write(request.data)
                self._supervisor.watch(self._stopping)
            finally:
                (request.data / ADDRESSES_FILE).unlink(missing_ok=True)
                self._console.print("Stopping: requests under way are answered, the worker finishes its batch ...")

    def _redis(self) -> str:
        given = os.environ.get("FIRSTCOME_REDIS_URL")
        if given:
            # A PostgreSQL that is given is reached for its schema; a Redis by nothing before the workers.
            checks = first_redis_checks(EngineSettings.from_environment())
            judge(replace(check, decisive=check.decisive or check.name == "Redis") for check in checks)
            return given
        if self._request.cluster:
            return self._cluster()
        server = EmbeddedValkey(self._request.data / "valkey", stopping=self._stopping)
        with self._step("starting Valkey"):
            server.start()
        self._supervisor.add(server)
        self._stores_at.append(("Valkey's files", server.folder))
        return server.application_url

    def _cluster(self) -> str:
        cluster = EmbeddedCluster(self._request.data / "valkey-cluster", stopping=self._stopping)
        with self._step("starting Valkey, three primaries and three replicas"):
            cluster.start()
        for node in cluster.nodes:
            self._supervisor.add(node)
        self._stores_at.append(("Valkey's files", cluster.folder))
        return cluster.application_url

    def _database(self) -> dict[str, str]:
        """How the owner, the worker and the API log in."""
        given = os.environ.get("FIRSTCOME_DATABASE_URL")
        if given:
            return {"FIRSTCOME_DATABASE_URL": given}
        server = EmbeddedPostgres(self._request.data / "postgres", stopping=self._stopping)
        with self._step("starting PostgreSQL (some seconds the first time)"):
            server.start()
        self._supervisor.add(server)
        self._stores_at.append(("PostgreSQL's files", server.place or server.folder))
        return {
            "FIRSTCOME_OWNER_DATABASE_URL": server.url,
            "FIRSTCOME_DATABASE_URL": server.database_url(DATABASE, WORKER_LOGIN),
            "FIRSTCOME_READER_DATABASE_URL": server.database_url(DATABASE, API_LOGIN),
        }

    def _migrate(self, env: dict[str, str]) -> None:
        owner = OwnerSettings.from_environment(env).url
        upgrade(owner)
        if not os.environ.get("FIRSTCOME_DATABASE_URL"):
            add_login(owner, WORKER_LOGIN, WRITER)
            add_login(owner, API_LOGIN, READER)

    def _receiver(self, env: dict[str, str]) -> tuple[str | None, dict[str, str]]:
        """Starts the demo's data platform, unless there is a real one; where it is, and what the worker is told."""
        if env.get("FIRSTCOME_DATA_PLATFORM_URL"):
            return None, {}
        port = self._ports.of("receiver")
        file = self._request.data / "received.jsonl"
        secret = {"FIRSTCOME_DATA_PLATFORM_SECRETS": kept_secret(self._request.data / SECRET_FILE)}
        self._run_child("receiver", ["receiver", "--port", str(port), "--file", str(file)], env | secret)
        url = http_url("127.0.0.1", port)
        return url, {"FIRSTCOME_DATA_PLATFORM_URL": url, **secret}

    def _shop(self, env: dict[str, str], told_to_worker: dict[str, str], port: int, addresses: Addresses) -> None:
        request = self._request
        # The parts are stopped from the last to the first: the API drains while the workers still make things durable.
        for number in range(1, request.workers + 1):
            self._run_child(f"worker-{number}", ["worker"], env | told_to_worker | self._worker_metrics(env, number))
        listen_on = ["--host", request.host, "--port", str(port), "--processes", str(request.api_workers)]
        api = self._run_child("api", ["api", *listen_on], env, stop_timeout_s=DRAIN_S + 10)
        with httpx.Client(
            base_url=addresses.api_url, timeout=READY_POLL_TIMEOUT_S, trust_env=False, auth=self._operator
        ) as client:
            with self._step("starting the workers and the API"):
                recovering = self._await_ready(client, api)
            if recovering:
                self._console.print(
                    f"{recovering} partitions are still in recovery; {addresses.api_url}/admin/v1/alarms says why",
                    style="yellow",
                )
                return
            with self._step("making the demo catalogue"):
                make_demo(client)

    def _worker_metrics(self, env: dict[str, str], number: int) -> dict[str, str]:
        """Each worker's port for its metrics: from the one that is set on, else the one of its last start."""
        settings = WorkerSettings.from_environment(env)
        given = settings.worker_metrics_port
        port = given + number - 1 if given else self._ports.of(f"worker-{number}")
        self._metrics_at.append(f"{http_url(settings.worker_metrics_host, port)}/metrics")
        return {"FIRSTCOME_WORKER_METRICS_PORT": str(port)}

    def _run_child(
        self, name: str, arguments: list[str], env: dict[str, str], *, stop_timeout_s: float = 30
    ) -> ChildProcess:
        log = self._request.data / "logs" / f"{name}.log"
        child = ChildProcess(name, [*program(), *arguments], log, dict(env), stop_timeout_s=stop_timeout_s)
        child.start()
        self._supervisor.add(child)
        return child

    def _await_ready(self, client: httpx.Client, api: ChildProcess) -> int:
        """Waits until every partition is served; returns how many are not when that takes too long."""
        recovering: int | None = None

        def serves_everything() -> bool:
            nonlocal recovering
            self._supervisor.look()
            recovering = _recovering(client)
            return recovering == 0

        try:
            wait_until(serves_everything, timeout_s=READY_TIMEOUT_S, what="the shop is ready", stopping=self._stopping)
        except ProcessFailed as error:
            if recovering is None:
                logs = self._request.data / "logs"
                raise ProcessFailed(f"{error}; see {logs} and run `firstcome doctor`\n{api.log_tail()}") from error
        return recovering or 0

    @contextlib.contextmanager
    def _step(self, text: str) -> Iterator[None]:
        """Shows that something is under way, and how long it took."""
        if self._stopping.is_set():
            raise Interrupted(text)
        began = time.monotonic()
        with self._console.status(f"{text} ..."):
            yield
        took_s = time.monotonic() - began
        self._console.print(f"[green]✓[/] {text} [dim]{took_s:.1f} s[/]", highlight=False, soft_wrap=True)

    def _show(self, addresses: Addresses, receiver_url: str | None) -> None:
        rows = [("API", addresses.api_url), ("documentation", f"{addresses.api_url}/docs")]
        rows.append(("console", f"{addresses.api_url}/console"))
        if receiver_url is not None:
            rows.append(("paid orders received", receiver_url))
        rows += [
            ("Redis", without_password(addresses.redis_url)),
            ("PostgreSQL", without_password(addresses.database_url)),
        ]
        rows += [("metrics", " ".join([f"{addresses.api_url}/metrics", *self._metrics_at]))]
        rows += [("data", str(self._request.data))]
        rows += [(name, str(folder)) for name, folder in self._stores_at if self._request.data not in folder.parents]
        rows += [("logs", str(self._request.data / "logs"))]
        self._console.print("\n[bold green]The shop is open.[/] Ctrl-C closes it.\n")
        for name, value in rows:
            self._console.print(f"[bold]{name:22}[/]{escape(value)}", soft_wrap=True, highlight=False)
        if not self._operator.has_key:
            self._console.print(f"\n{OPEN_TO_ALL}", soft_wrap=True, highlight=False)
        self._console.print("\nA first purchase, from another terminal:\n")
        lines = first_purchase(
            addresses.api_url, with_token=self._operator.has_key, token_command=self._operator.token_command
        )
        for line in lines:
            self._console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
        self._console.print()


def kept_secret(file: Path) -> str:
    """The secret that the demo's deliveries are signed with: made at the first start, for this user's eyes only."""
    secret = file.read_text().strip() if file.exists() else ""
    if secret:
        return secret
    secret = make_secret()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as lines:
        lines.write(f"{secret}\n")
    return secret


def _checked_port(host: str, port: int) -> int:
    """The port to serve on, free at the moment. Raises CannotListen before anything is started."""
    number = port or free_port(host)
    listen(host, number)[0].close()
    return number


def _recovering(client: httpx.Client) -> int | None:
    """How many partitions are not served yet, None while the API serves nothing."""
    try:
        answer = client.get("/readyz")
    except httpx.TransportError:
        return None
    return len(answer.json()["recovering_partitions"]) if answer.status_code == httpx.codes.OK else None
