"""The benchmark of growth: a shop that it has made larger adds up, and each path is measured in both."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests import traffic
from loadtests.growth import Size, saved, stand, summary
from loadtests.systems import Firstcome
from tests.servers import reachable_folder


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers of its own live, of a shop that is small at first."""
    monkeypatch.setattr(traffic, "USERS", 20)
    monkeypatch.setattr(traffic, "PRODUCTS", 5)
    monkeypatch.setattr(traffic, "ALL", (traffic.CHECKOUT, traffic.BEST_SELLERS))
    folder = reachable_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_shop_grows_and_still_adds_up(folder: Path) -> None:
    before = Size(users=20, products=5, orders=10, coupons=10)
    with Firstcome(folder, 1) as system:
        small, large = stand(system, before, 0.3), stand(system, before.times(20), 0.3)
        assert system.broken_laws() == []
        counts = system.counts()
    assert (large.size.users, large.size.products) == (400, 100)
    assert 10 <= small.size.orders < large.size.orders <= counts["orders"]
    assert large.size.coupons >= 200
    results = saved(small, large)
    assert [each["path"] for each in results["after"]["figures"]] == ["checkout", "best-sellers"]
    assert "400 users, 100 products" in summary(results)
