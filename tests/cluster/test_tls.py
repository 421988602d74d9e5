"""A cluster whose nodes speak TLS themselves, to clients and to each other; users log in with what they may do."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.commands.doctor import examine
from api.commands.embedded_cluster import HOST
from api.commands.listening import free_port
from api.commands.processes import wait_until
from api.commands.redis_users import APPLICATION, APPLICATION_RULE
from api.commands.server_files import RedisProgram, redis_programs
from engine.catalog import NewStockItem
from engine.engine import open_engine
from engine.errors import ServerError, Unavailable
from engine.partitions import CLUSTER_SLOTS
from engine.settings import EngineSettings
from engine.stock import LineRequest
from tests.engine.shop import execute
from tests.engine.test_lane_faults import self_signed_certificate
from tests.servers import reachable_folder

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

PASSWORD = "s3cret"
ADMINISTRATOR = "r00t"
PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class TlsCluster:
    """Three primaries that speak nothing but TLS, and whose word for it is taken."""

    ports: list[int]
    authorities: Path

    def url(self, user: str = APPLICATION, password: str = PASSWORD, authorities: Path | None = None) -> str:
        """For a user; the administrator is `default`."""
        seeds = ",".join(f"{HOST}:{port}" for port in self.ports)
        return f"rediss+cluster://{user}:{password}@{seeds}?ssl_ca_certs={authorities or self.authorities}"

    def ask(self, node: int, *command: str | int) -> object:
        """The administrator's command to one node."""
        client = redis.Redis(
            port=self.ports[node],
            password=ADMINISTRATOR,
            ssl=True,
            ssl_ca_certs=str(self.authorities),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=10,
        )
        with client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def answers(self, node: int) -> bool:
        """Whether the node is up."""
        try:
            return bool(self.ask(node, "PING"))
        except (redis.RedisError, OSError):
            return False

    def is_whole(self, node: int) -> bool:
        """Whether the node sees every slot served by three."""
        state = str(self.ask(node, "CLUSTER", "INFO"))
        return "cluster_state:ok" in state and "cluster_size:3" in state


@pytest.fixture(scope="module", params=redis_programs(), ids=lambda program: program.flavour)
def tls_cluster(request: pytest.FixtureRequest) -> Iterator[TlsCluster]:
    """On every server program that is installed and was built with TLS."""
    program: RedisProgram = request.param
    folder = reachable_folder()
    certificate = folder / "server.pem"
    certificate.write_bytes(self_signed_certificate())
    ports = [free_port(HOST, with_bus=True) for _ in range(3)]
    cluster = TlsCluster(ports, certificate)
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for node, port in enumerate(ports):
            (folder / str(node)).mkdir()
            own = [
                *("--port", "0", "--tls-port", str(port), "--bind", HOST, "--dir", str(folder / str(node))),
                *("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)),
                *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--tls-cluster", "yes"),
                *(
                    "--cluster-enabled",
                    "yes",
                    "--cluster-announce-ip",
                    HOST,
                    "--save",
                    "",
                    "--requirepass",
                    ADMINISTRATOR,
                ),
            ]
            with (folder / f"{node}.log").open("wb") as log:
                nodes.append(subprocess.Popen([str(program.program), *own], stdout=log, stderr=log))
        wait_until(
            lambda: nodes[0].poll() is not None or all(map(cluster.answers, range(3))),
            timeout_s=20,
            what="every node answers",
        )
        if nodes[0].poll() is not None:
            said = (folder / "0.log").read_text()
            assert "tls" in said.lower(), said
            pytest.skip(f"{program.flavour} was built without TLS")
        for node in range(3):
            first, last = (CLUSTER_SLOTS * each // 3 for each in (node, node + 1))
            cluster.ask(node, "CLUSTER", "ADDSLOTS", *range(first, last))
            cluster.ask(node, "ACL", "SETUSER", APPLICATION, "on", f">{PASSWORD}", *APPLICATION_RULE.split())
            if node:
                cluster.ask(0, "CLUSTER", "MEET", HOST, ports[node])
        wait_until(lambda: all(map(cluster.is_whole, range(3))), timeout_s=20, what="the nodes have met")
        yield cluster
    finally:
        for process in nodes:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


async def test_an_order_goes_over_tls_to_every_node_with_the_rights_of_the_application(tls_cluster: TlsCluster) -> None:
    async with open_engine(EngineSettings(redis_url=tls_cluster.url(), partitions=PARTITIONS)) as engine:
        for partition in range(PARTITIONS):
            assert await engine.recovery.init(partition, 1)
        assert len({engine.lanes.identity(partition) for partition in range(PARTITIONS)}) == 3
        products = [f"p{number}" for number in range(12)]
        for product in products:
            await engine.catalog.put(product, "P", 10, [NewStockItem("one", "", 5)])
        await engine.wallets.charge("mina", 1_000)
        order = await engine.orders.checkout("mina", [LineRequest(product, "one", 1) for product in products], None)
        assert (order.status, order.total) == ("completed", 120)
        assert len({engine.lanes.identity(position.partition) for position in order.positions}) == 3
        with pytest.raises(ServerError, match=r"NOPERM|no permissions"):
            await execute(engine, "FLUSHALL")


async def test_a_certificate_that_nobody_vouches_for_is_refused(tls_cluster: TlsCluster, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers.pem"
    strangers.write_bytes(self_signed_certificate())
    with pytest.raises(Unavailable):
        async with open_engine(EngineSettings(redis_url=tls_cluster.url(authorities=strangers), partitions=PARTITIONS)):
            pass


def test_doctor_examines_a_cluster_over_tls(tls_cluster: TlsCluster, database_url: str) -> None:
    url = tls_cluster.url("default", ADMINISTRATOR)
    settings = {"FIRSTCOME_REDIS_URL": url, "FIRSTCOME_DATABASE_URL": database_url}
    found = {check.name: check for check in examine(settings)}
    assert found["partitions per node"].found == "21, 22, 21"
