import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id


@pytest.fixture
def order(partition: Partition) -> str:
    """An order that holds 2 of shirt M and 1 hat."""
    partition.stock_shop()
    order = order_id()
    partition.reserve(order, ("shirt", "M", 2), ("hat", "one", 1))
    return order


@pytest.mark.requirement("R3.16", "R0.3")
def test_every_line_is_given_back(partition: Partition, order: str) -> None:
    with partition.one_event("stock.released", order=order, lines="shirt:M:2,hat:one:1", at=NOW + 5):
        reply = partition.run("release_stock", "hat", "shirt", order=order, now_ms=NOW + 5)
    assert reply == ["released", "1-4"]
    assert (partition.units("M"), partition.units("one", "hat")) == ((5, 0, 0), (3, 0, 0))
    reservation = partition.reservation(order)
    assert (reservation["state"], reservation["finished_at"], reservation["seq"]) == ("released", str(NOW + 5), "1-4")
    assert partition.product()["seq"] == partition.product("hat")["seq"] == "1-4"


def test_a_repeated_release_gives_back_once(partition: Partition, order: str) -> None:
    partition.run("release_stock", "shirt", "hat", order=order)
    with partition.unchanged():
        assert partition.run("release_stock", "shirt", "hat", order=order) == ["released", "1-4"]


def test_what_is_sold_is_not_given_back(partition: Partition, order: str) -> None:
    partition.confirm(order, "shirt", "hat")
    with partition.unchanged():
        assert partition.run("release_stock", "shirt", "hat", order=order) == ["sold", "1-4"]


def test_an_order_that_holds_nothing_gives_nothing_back(partition: Partition, order: str) -> None:
    with partition.unchanged():
        assert partition.run("release_stock", "shirt", order=order_id()) == ["missing"]


@pytest.mark.parametrize("products", [(), ("shirt",), ("hat",), ("sock",), ("shirt", "sock")])
def test_products_that_are_not_declared_change_nothing(
    partition: Partition, order: str, products: tuple[str, ...]
) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="other products"):
        partition.run("release_stock", *products, order=order)


def test_only_the_orders_own_units_come_back(partition: Partition, order: str) -> None:
    other = order_id()
    partition.reserve(other, ("shirt", "M", 3))
    partition.run("release_stock", "shirt", "hat", order=order)
    assert partition.units("M") == (2, 3, 0)
    assert partition.reservation(other)["state"] == "held"
