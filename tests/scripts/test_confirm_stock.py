import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id


@pytest.fixture
def order(partition: Partition) -> str:
    """An order that holds 2 of shirt M, 3 of shirt S and 1 hat."""
    partition.stock_shop()
    order = order_id()
    partition.reserve(order, ("shirt", "M", 2), ("hat", "one", 1), ("shirt", "S", 3))
    return order


def sold_on(partition: Partition, day: str) -> list[str]:
    ranking: list[str] = partition.run("rank_sales", repeated_keys=[partition.keys.sales(partition.index, day)])[1]
    return ranking


@pytest.mark.requirement("R0.3", "R5.2")
def test_what_was_held_is_sold_and_counted_for_the_day_of_the_payment(partition: Partition, order: str) -> None:
    lines = "shirt:M:2,hat:one:1,shirt:S:3"
    with partition.one_event("stock.confirmed", order=order, day="20270114", lines=lines, at=NOW + 5):
        reply = partition.run("confirm_stock", "shirt", "hat", order=order, day="20270114", now_ms=NOW + 5)
    assert reply == ["confirmed", "1-4"]
    assert (partition.units("M"), partition.units("S")) == ((3, 0, 2), (7, 0, 3))
    assert partition.units("one", "hat") == (2, 0, 1)
    reservation = partition.reservation(order)
    assert (reservation["state"], reservation["finished_at"], reservation["seq"]) == ("sold", str(NOW + 5), "1-4")
    assert sold_on(partition, "20270114") == ["shirt", "5", "hat", "1"]
    assert sold_on(partition, "20270115") == []


def test_a_repeated_confirm_counts_once(partition: Partition, order: str) -> None:
    partition.run("confirm_stock", "shirt", "hat", order=order)
    with partition.unchanged():
        assert partition.run("confirm_stock", "shirt", "hat", order=order) == ["confirmed", "1-4"]
        assert partition.run("confirm_stock", "shirt", "hat", order=order, day="20270116") == ["confirmed", "1-4"]


def test_what_was_given_back_is_not_sold(partition: Partition, order: str) -> None:
    partition.run("release_stock", "shirt", "hat", order=order)
    with partition.unchanged():
        assert partition.run("confirm_stock", "shirt", "hat", order=order) == ["released", "1-4"]


def test_an_order_that_holds_nothing_is_missing(partition: Partition, order: str) -> None:
    with partition.unchanged():
        assert partition.run("confirm_stock", "shirt", order=order_id()) == ["missing"]


@pytest.mark.parametrize("products", [(), ("shirt",), ("hat", "sock")])
def test_products_that_are_not_declared_change_nothing(
    partition: Partition, order: str, products: tuple[str, ...]
) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="other products"):
        partition.run("confirm_stock", *products, order=order)
