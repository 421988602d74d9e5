"""Six Valkey processes and a whole shop on them, for all tests of a module."""

import shutil
from collections.abc import Iterator

import httpx
import pytest

from api.commands.embedded_cluster import EmbeddedCluster
from tests.faults.buyers import stock_shop
from tests.faults.losses import SETTINGS, Lossy
from tests.running_shop import RunningShop
from tests.servers import CLUSTER_SETTINGS, Databases, reachable_folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    """Three primaries and three replicas, which find out within seconds that a node is gone."""
    folder = reachable_folder()
    try:
        with EmbeddedCluster(folder / "cluster", settings=CLUSTER_SETTINGS) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shop(cluster: EmbeddedCluster, databases: Databases) -> Iterator[RunningShop]:
    """Two API processes and two workers, logged in as the application; all waits until it is durable."""
    folder = reachable_folder()
    database_url = databases.make_migrated()
    settings = {**SETTINGS, "FIRSTCOME_REDIS_URL": cluster.application_url}
    try:
        with RunningShop(folder, cluster.url, database_url, 2, 2, settings) as shop:
            stock_shop(shop)
            yield shop
    finally:
        databases.drop(database_url)
        shutil.rmtree(folder)


@pytest.fixture
def client(shop: RunningShop) -> httpx.Client:
    """Holds every answer to the specification."""
    return shop.client()


@pytest.fixture
def lossy(shop: RunningShop, cluster: EmbeddedCluster) -> Lossy:
    """The shop with the Redis that it may lose."""
    return shop, cluster
