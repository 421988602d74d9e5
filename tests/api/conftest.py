"""One running shop for the tests of the HTTP surface: each test uses users and products of its own."""

from collections.abc import Iterator

import httpx
import pytest

from tests.running_shop import RunningShop
from tests.servers import Databases
from tests.shop_servers import opened_shop


@pytest.fixture(scope="package")
def shop(databases: Databases) -> Iterator[RunningShop]:
    """Two API processes and a worker. Nothing that the tests did may break a law of conservation."""
    with opened_shop(databases, api_count=2) as shop:
        yield shop
        shop.assert_conserved()
        assert shop.errors_logged() == []


@pytest.fixture(scope="package")
def client(shop: RunningShop) -> httpx.Client:
    """Holds every answer to the specification."""
    return shop.client()
