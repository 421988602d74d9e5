"""A primary is cut off from the other nodes, with clients and a worker: what both sides say is true afterwards."""

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import httpx
import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from api.commands.processes import wait_until
from api.commands.redis_users import APPLICATION_RULE
from tests.cluster.divided import DividedNetwork
from tests.cluster.moves import primaries, replica_of, role
from tests.faults.buyers import stock_shop
from tests.faults.losses import SETTINGS, whole
from tests.running_shop import LOST, RunningShop
from tests.servers import CLUSTER_SETTINGS, Databases, reachable_folder

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(600)]

LONELY = "lonely"
DIVIDED_S = 6.0
"""How long it stays so once the others have a new primary."""

NODE_TIMEOUT_S = int(CLUSTER_SETTINGS["cluster-node-timeout"]) / 1000


@dataclass(slots=True)
class Chargers:
    """Clients of one API process who charge one user after the other, each once, and remember what they were told."""

    shop: RunningShop
    name: str
    accepted: dict[str, bool] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    _users: "count[int]" = field(default_factory=count)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._charge(stop))

    async def _charge(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self.shop.url(), timeout=30, verify=False) as client:
            while not stop.is_set():
                user = f"{self.name}-{next(self._users)}"
                try:
                    answer = await client.post(f"/v1/users/{user}/balance/charges", json={"amount": 1})
                except LOST:
                    continue
                if answer.is_success:
                    self.accepted[user] = bool(answer.json()["durable"])
                    self.at[user] = time.monotonic()
                else:
                    self.refused.append(f"{answer.status_code} {answer.json().get('type')}")
                    await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Sides:
    """One cluster and one database, with a shop on each side."""

    cluster: EmbeddedCluster
    network: DividedNetwork
    lonely: RunningShop
    others: RunningShop


@pytest.fixture
def sides(databases: Databases) -> Iterator[Sides]:
    """Two shops, each of an API and a worker, that answer before it is durable; all is one as long as it is whole."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    settings = {**SETTINGS, "FIRSTCOME_DURABLE_BY_DEFAULT": "false"}
    password = secrets.token_hex(16)
    try:
        with (
            EmbeddedCluster(folder / "cluster", settings=CLUSTER_SETTINGS) as cluster,
            DividedNetwork(cluster, LONELY) as network,
        ):
            for node in range(len(cluster.nodes)):
                cluster.ask(node, "ACL", "SETUSER", LONELY, "on", f">{password}", *APPLICATION_RULE.split())
            urls = {
                "lonely": network.url(LONELY, password),
                "others": network.url("default", cluster.administrator_password),
            }
            for name in urls:
                (folder / name).mkdir()
            shops = {
                name: RunningShop(
                    folder / name, cluster.url, database_url, 1, 1, {**settings, "FIRSTCOME_REDIS_URL": url}
                )
                for name, url in urls.items()
            }
            with shops["others"], shops["lonely"]:
                stock_shop(shops["others"])
                yield Sides(cluster, network, shops["lonely"], shops["others"])
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)


async def test_what_a_lonely_primary_accepts_is_lost_and_nothing_durable_is(sides: Sides) -> None:
    """It goes on for up to the node timeout; who is with it is refused then, and the others go on without it."""
    alone = primaries(sides.cluster)[0]
    replica = replica_of(sides.cluster, alone)
    chargers = [Chargers(sides.lonely, "lonely"), Chargers(sides.others, "other")]
    stop = asyncio.Event()
    running = [asyncio.create_task(each.run(stop)) for each in chargers]
    await asyncio.sleep(1.0)
    divided_at = time.monotonic()
    sides.network.divide(alone)
    await asyncio.to_thread(
        wait_until, lambda: role(sides.cluster, replica) == "master", timeout_s=20, what="the replica is promoted"
    )
    promoted_s = time.monotonic() - divided_at
    await asyncio.to_thread(sides.others.wait_until_ready)
    served_s = time.monotonic() - divided_at
    await asyncio.sleep(DIVIDED_S)
    sides.network.join()
    joined_at = time.monotonic()
    await asyncio.to_thread(
        wait_until, lambda: role(sides.cluster, alone) == "slave", timeout_s=30, what="the lonely one follows"
    )
    await asyncio.to_thread(sides.cluster.wait_until_whole)
    await asyncio.to_thread(sides.lonely.wait_until_ready)
    whole_s = time.monotonic() - joined_at
    await asyncio.sleep(1.0)
    stop.set()
    await asyncio.gather(*running)
    books = await asyncio.to_thread(whole, sides.others)

    cut = f"promoted {promoted_s:.1f} s, served again {served_s:.1f} s after the cut"
    print(f"{cut}, whole {whole_s:.1f} s after its end")  # noqa: T201
    for each in chargers:
        assert {text.partition(" ")[0] for text in each.refused} <= {"503", "504"}, set(each.refused)
        lost = [user for user in each.accepted if books.balances.get(user, 0) != 1]
        durable = [user for user in lost if each.accepted[user]]
        latest = max((each.at[user] - divided_at for user in lost), default=0.0)
        counted = f"of {len(each.accepted)} accepted charges {len(lost)} were lost, {len(durable)} of them durable"
        print(f"{each.name}: {counted}, the latest of them {latest:.2f} s after the cut")  # noqa: T201
        assert durable == []
        assert latest <= NODE_TIMEOUT_S + 1.0
        assert any(at > joined_at for at in each.at.values())
