"""The benchmark of growth: a shop that it has made larger adds up, and each path is measured in both."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests import traffic
from loadtests.growth import Size, compare, summary
from loadtests.systems import Firstcome, WrongOutcome
from tests.servers import reachable_folder


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers of its own live, of shops that are small at first."""
    monkeypatch.setattr(traffic, "USERS", 20)
    monkeypatch.setattr(traffic, "PRODUCTS", 5)
    monkeypatch.setattr(traffic, "ALL", (traffic.CHECKOUT, traffic.BEST_SELLERS))
    folder = reachable_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


SIZE = Size(users=20, products=5, orders=10, coupons=10)


def test_a_shop_beside_a_larger_one_is_measured_path_by_path_and_both_add_up(folder: Path) -> None:
    results = compare(folder, SIZE, times=20, seconds=0.3, rounds=2)
    small, large = results["small"], results["large"]
    assert (large["size"]["users"], large["size"]["products"]) == (400, 100)
    assert 10 <= small["size"]["orders"] < small["size_at_the_end"]["orders"]
    assert large["size"]["orders"] >= 200
    assert large["size"]["coupons"] >= 200
    for shop in (small, large):
        # What adds to the record comes last.
        assert {path: len(found) for path, found in shop["figures"].items()} == {"best-sellers": 2, "checkout": 2}
        assert list(shop["figures"]) == ["best-sellers", "checkout"]
    told = summary(results)
    assert "400 users, 100 products" in told
    assert "| checkout, two of all products |" in told
    assert {"user", "order", "product", "reservation"} <= large["entities"].keys()
    # Best sellers by the orders on record: of each shop at first and at the end.
    orders = [shop["figures"]["best-sellers"][0]["on_record"]["orders"] for shop in (small, large)]
    orders += [shop["best_sellers_at_the_end"]["on_record"]["orders"] for shop in (small, large)]
    assert all(f"| {count:,} " in told for count in orders)
    assert large["best_sellers_at_the_end"]["on_record"]["orders"] == large["size_at_the_end"]["orders"]


def test_a_shop_that_does_not_add_up_has_no_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Firstcome, "broken_laws", lambda self: [f"{self.users} users broke it"])
    with pytest.raises(WrongOutcome, match="20 users broke it; 40 users broke it"):
        compare(folder, SIZE, times=2, seconds=0.2, rounds=1)
