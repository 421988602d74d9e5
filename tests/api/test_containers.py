"""What containers are started with, run here without any: the installation's own secrets, and Redis by them."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from api.authentication import Authenticator, read_keys
from api.commands import COMMANDS
from api.commands.api import program
from api.commands.listening import free_port
from api.commands.processes import ChildProcess
from api.commands.server_files import redis_programs
from api.settings import ApiSettings
from tests.running_shop import ROOT, RunningShop, eventually
from tests.servers import Databases, redis_client
from tests.tidy.image import copied

DEPLOY = ROOT / "deploy"
WITHIN_S = 20.0


def run(script: str, *arguments: str, folder: Path, **environment: str) -> str:
    """What a script of `deploy/` prints, with this program on its PATH as it is in the image."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = {"PATH": path, "SECRETS_FOLDER": str(folder), "USERS_TEMPLATE": str(DEPLOY / "redis.acl")}
    done = subprocess.run(
        [str(DEPLOY / script), *arguments], capture_output=True, text=True, check=False, env={**known, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    run("make-secrets", str(folder), folder=folder)
    return folder


@contextlib.contextmanager
def valkey(secrets: Path, data: Path, port: int, *settings: str) -> Iterator[None]:
    """A server on the configuration of the containers, its paths brought here."""
    data.mkdir()
    text = (DEPLOY / "valkey.conf").read_text(encoding="utf-8")
    configuration = data / "valkey.conf"
    configuration.write_text(text.replace("/run/firstcome", str(secrets)).replace("dir /data", f"dir {data}"))
    command = [str(redis_programs()[0].program), str(configuration), "--port", str(port), "--bind", "127.0.0.1"]
    with (data / "log").open("wb") as log, subprocess.Popen([*command, *settings], stdout=log) as process:
        try:
            yield
        finally:
            process.terminate()


def answering(url: str) -> redis.Redis:
    """A client of a server that is starting."""
    client = redis_client(url)
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            assert time.monotonic() < deadline, "Valkey does not answer"
            time.sleep(0.02)
        else:
            return client


def read(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_every_installation_has_secrets_of_its_own_and_keeps_them(secrets: Path, tmp_path: Path) -> None:
    first = read(secrets)
    run("make-secrets", str(secrets), folder=secrets)
    again = read(secrets)
    assert {name for name in first if first[name] != again[name]} <= {"prometheus-token"}
    other = run_make_secrets(tmp_path)
    assert {name for name in first if first[name] == other[name]} == set()
    passwords = [first[name] for name in first if name.startswith(("redis-", "postgres-", "grafana-"))]
    assert len(set(passwords)) == 7
    assert min(map(len, passwords)) == 64


def run_make_secrets(folder: Path) -> dict[str, str]:
    run("make-secrets", str(folder), folder=folder)
    return read(folder)


def test_prometheus_has_an_operators_token_of_the_same_key(secrets: Path) -> None:
    settings = ApiSettings(token_key_file=str(secrets / "token-secrets"))
    keys = read_keys(settings)
    assert keys is not None
    token = (secrets / "prometheus-token").read_text().strip()
    assert Authenticator(keys, settings).verify(f"Bearer {token}".encode()).is_operator


def test_redis_lets_the_application_in_with_its_password_and_its_rights(secrets: Path, tmp_path: Path) -> None:
    port = free_port()
    with valkey(secrets, tmp_path / "data", port):
        url = run(
            "with-secrets",
            "printenv",
            "FIRSTCOME_REDIS_URL",
            folder=secrets,
            FIRSTCOME_REDIS_URL=f"redis://firstcome:{{redis-firstcome}}@127.0.0.1:{port}",
        ).strip()
        with answering(url) as client:
            assert client.hset("fc:{x}:user:u", "balance", "1") == 1
            info = client.info()
            assert (info["maxmemory_policy"], info["aof_enabled"]) == ("noeviction", 1)
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
        for stranger in ("", "operator:change-me-too@"):
            client = redis_client(f"redis://{stranger}127.0.0.1:{port}")
            with client, pytest.raises(redis.AuthenticationError):
                client.ping()


SPELLINGS = (
    "/v1/users/mina/balance/charges",
    "/v1/users/mina/balance%2Fcharges",
    "/v1/users/mina/balance/charge%73",
)
"""Each is a charge for an API."""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on the PATH")
def test_the_load_balancer_blocks_charges_by_the_location_of_the_operations_page_and_nothing_else(
    tmp_path: Path,
) -> None:
    (location,) = re.findall(r"^```nginx\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.M | re.DOTALL)
    inner, outer = free_port(), free_port()
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8").replace("/tmp/", f"{tmp_path}/")
    text = re.sub(r"server api-2.*", "", text.replace("api-1:8000", f"127.0.0.1:{inner}"))
    text = re.sub(r"listen 8080[^;]*;", f"listen 127.0.0.1:{outer};\n{location}", text)
    config = tmp_path / "nginx.conf"
    config.write_text(text)
    nginx = ["nginx", "-c", str(config), "-g", "daemon off; master_process off;"]
    with contextlib.ExitStack() as stack:
        for name, command in (("mock", [*program(), "mock", "--port", str(inner)]), ("nginx", nginx)):
            child = ChildProcess(name, command, tmp_path / f"{name}.log", cwd=tmp_path, stop_timeout_s=10)
            child.start()
            stack.callback(child.stop)
        client = stack.enter_context(httpx.Client(trust_env=False))

        def status(port: int, method: str, path: str) -> int:
            body = {"amount": 100} if method == "POST" else None
            try:
                return client.request(method, f"http://127.0.0.1:{port}{path}", json=body).status_code
            except httpx.TransportError:
                return 0

        eventually(lambda: status(outer, "GET", "/livez") == 200, within_s=60, what="the mock answers behind nginx")
        for path in SPELLINGS:
            assert (status(inner, "POST", path), status(outer, "POST", path)) == (201, 403), path
        for path in ("/v1/users/mina/balance", "/v1/users/mina/balance/entries"):
            assert status(outer, "GET", path) == 200, path


@pytest.mark.soak
def test_what_the_image_is_built_of_is_all_that_its_commands_need(tmp_path: Path) -> None:
    """The steps of the Dockerfile in an environment of its own, as no engine is at hand."""
    tree, made = tmp_path / "source", tmp_path / "firstcome"
    for file in copied():
        if file.stage == 0:
            (tree / file.target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file.source, tree / file.target)
    python = str(made / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", str(made)],
        [python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "."],
        [python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip"],
    ):
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    firstcome = [str(DEPLOY / "with-secrets"), str(made / "bin" / "firstcome")]
    for name in COMMANDS:
        done = subprocess.run([*firstcome, name, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
    port = free_port()
    healthy = [python, str(DEPLOY / "is-healthy")]
    asked = {**os.environ, "HEALTH_URL": f"http://127.0.0.1:{port}/readyz"}
    mock = ChildProcess(
        "mock", [*firstcome, "mock", "--port", str(port)], tmp_path / "mock.log", cwd=tmp_path, stop_timeout_s=10
    )
    mock.start()
    try:
        eventually(lambda: subprocess.run(healthy, env=asked, check=False).returncode == 0, within_s=60, what="healthy")
    finally:
        mock.stop()
    assert subprocess.run(healthy, env=asked, check=False).returncode == 1


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not on the PATH")
def test_six_nodes_become_a_cluster_once_and_a_shop_sells_on_it(
    secrets: Path, tmp_path: Path, databases: Databases
) -> None:
    ports = [free_port(with_bus=True) for _ in range(6)]
    settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(valkey(secrets, tmp_path / str(port), port, *settings))
        addresses = [f"127.0.0.1:{port}" for port in ports]
        for _ in range(2):
            said = run("create-cluster", *addresses, folder=secrets, CLI="redis-cli")
            assert said.endswith("the cluster is there\n")
        password = (secrets / "redis-operator").read_text()
        with redis.Redis(port=ports[0], username="operator", password=password, decode_responses=True) as client:
            nodes = client.cluster("nodes")
        roles = [node["flags"].removeprefix("myself,") for node in nodes.values()]
        assert sorted(roles) == ["master"] * 3 + ["slave"] * 3
        for port in ports:
            with redis.Redis(port=port, username="operator", password=password) as client:
                wait_for_link(client)
        seeds = ",".join(addresses[:3])
        url = f"redis+cluster://firstcome:{(secrets / 'redis-firstcome').read_text()}@{seeds}"
        with RunningShop(tmp_path, url, databases.make_migrated()) as shop:
            for user in range(20):
                answer = shop.client().post(
                    f"/v1/users/u{user}/balance/charges", json={"amount": 100}, headers={"Prefer": "durable, wait=10"}
                )
                assert answer.json()["durable"], answer.text


def wait_for_link(client: redis.Redis) -> None:
    """A replica has found its primary, and logged in there."""
    deadline = time.monotonic() + WITHIN_S
    while (info := client.info("replication"))["role"] == "slave" and info["master_link_status"] != "up":
        assert time.monotonic() < deadline, info
        time.sleep(0.05)
