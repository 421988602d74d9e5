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
    lines = "shirt:M:2,shirt:S:3,hat:one:1"
    with partition.one_event("stock.confirmed", orders=order, day="20270114", lines=lines, at=NOW + 5):
        reply = partition.confirm(order, "shirt", "hat", day="20270114", now_ms=NOW + 5)
    assert reply == ["confirmed", "1-4"]
    assert (partition.units("M"), partition.units("S")) == ((3, 0, 2), (7, 0, 3))
    assert partition.units("one", "hat") == (2, 0, 1)
    reservation = partition.reservation(order)
    assert (reservation["state"], reservation["finished_at"], reservation["seq"]) == ("sold", str(NOW + 5), "1-4")
    assert sold_on(partition, "20270114") == ["shirt", "5", "hat", "1"]
    assert sold_on(partition, "20270115") == []


def test_a_repeated_confirm_counts_once(partition: Partition, order: str) -> None:
    partition.confirm(order, "shirt", "hat")
    with partition.unchanged():
        assert partition.confirm(order, "shirt", "hat") == ["confirmed", "1-4"]
        assert partition.confirm(order, "shirt", "hat", day="20270116") == ["confirmed", "1-4"]


def test_what_was_given_back_is_not_sold(partition: Partition, order: str) -> None:
    partition.run("release_stock", "shirt", "hat", order=order)
    with partition.unchanged():
        assert partition.confirm(order, "shirt", "hat") == ["released", "1-4"]


def test_an_order_that_holds_nothing_is_missing(partition: Partition, order: str) -> None:
    with partition.unchanged():
        assert partition.confirm(order_id(), "shirt") == ["missing", ""]


@pytest.mark.parametrize("products", [(), ("shirt",), ("hat", "sock")])
def test_products_that_are_not_declared_change_nothing(
    partition: Partition, order: str, products: tuple[str, ...]
) -> None:
    with partition.unchanged():
        assert partition.confirm(order, *products) == ["mismatched", "1-3"]


@pytest.mark.requirement("R5.2")
def test_many_orders_are_sold_in_one_event_and_a_bad_one_holds_up_no_other(partition: Partition, order: str) -> None:
    second, foreign, missing, released = (order_id() for _ in range(4))
    partition.run("put_product", "one", "", 3, product="sock", name="Sock")
    partition.reserve(second, ("shirt", "M", 1), ("shirt", "L", 1))  # there is no L: it holds nothing
    partition.reserve(second, ("shirt", "M", 1), ("hat", "one", 2))
    partition.reserve(foreign, ("sock", "one", 1))
    partition.reserve(released, ("shirt", "S", 1))
    partition.run("release_stock", "shirt", order=released)
    orders = (order, missing, foreign, second, released)
    with partition.one_event("stock.confirmed", orders=f"{order},{second}", lines="shirt:M:3,shirt:S:3,hat:one:3"):
        reply = partition.run("confirm_stock", *orders, "shirt", "hat", orders=len(orders))
    place = f"1-{partition.seq()}"
    outcomes = ["confirmed", place, "missing", "", "mismatched", "1-6", "confirmed", place, "released", "1-8"]
    assert reply == ["confirmed", outcomes]
    assert (partition.units("M"), partition.units("S")) == ((2, 0, 3), (7, 0, 3))
    assert partition.units("one", "hat") == (0, 0, 3)
    assert [partition.reservation(each).get("state") for each in orders] == ["sold", None, "held", "sold", "released"]
    assert sold_on(partition, "20270115") == ["shirt", "6", "hat", "3"]
    with partition.unchanged():
        assert partition.run("confirm_stock", *orders, "shirt", "hat", orders=len(orders)) == reply


def test_an_order_given_twice_is_an_error_and_changes_nothing(partition: Partition, order: str) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="given twice"):
        partition.run("confirm_stock", order, order, "shirt", "hat", orders=2)
