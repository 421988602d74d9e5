"""adopt_stock: a live order whose reservation was lost takes its stock anew."""

import pytest
import redis

from tests.scripts.partition import NOW, Partition, order_id

LINES = "shirt:S:3,hat:one:1"


@pytest.fixture
def stocked(partition: Partition) -> Partition:
    partition.stock_shop()
    return partition


def adopt(
    partition: Partition, order: str, packed: str = LINES, products: tuple[str, ...] = ("shirt", "hat")
) -> object:
    return partition.run("adopt_stock", *products, order=order, packed=packed)


def test_a_lost_reservation_is_held_anew(stocked: Partition) -> None:
    order = order_id()
    with stocked.one_event("stock.adopted", order=order, user="kim", lines=LINES, short="") as event:
        assert adopt(stocked, order) == ["adopted", "1-3", ""]
    assert event["at"] == str(NOW)
    assert stocked.reservation(order) == {
        "user": "kim", "state": "held", "lines": LINES, "at": str(NOW), "seq": "1-3",
    }  # fmt: skip
    assert (stocked.units(), stocked.units("one", "hat")) == ((7, 3, 0), (2, 1, 0))
    assert stocked.product()["seq"] == "1-3"


def test_units_that_are_not_there_are_recorded_as_short(stocked: Partition) -> None:
    order = order_id()
    lines = "shirt:S:14,shirt:M:5,hat:one:4"
    with stocked.one_event("stock.adopted", lines=lines, short="shirt:S:4,hat:one:1"):
        assert adopt(stocked, order, lines) == ["adopted", "1-3", "shirt:S:4,hat:one:1"]
    assert stocked.units() == (0, 14, 0)
    assert stocked.units("M") == (0, 5, 0)
    assert stocked.units("one", "hat") == (0, 4, 0)


def test_what_was_given_back_is_held_again(stocked: Partition) -> None:
    order = order_id()
    stocked.reserve(order, ("shirt", "S", 3))
    stocked.run("release_stock", "shirt", order=order)
    assert adopt(stocked, order, "shirt:S:3", ("shirt",)) == ["adopted", "1-5", ""]
    held = stocked.reservation(order)
    assert (held["state"], "finished_at" in held) == ("held", False)
    assert stocked.units() == (7, 3, 0)
    assert stocked.confirm(order, "shirt")[0] == "confirmed"
    assert stocked.units() == (7, 0, 3)


def test_what_is_held_or_sold_stays_as_it_is(stocked: Partition) -> None:
    order = order_id()
    stocked.reserve(order, ("shirt", "S", 3))
    with stocked.unchanged():
        assert adopt(stocked, order) == ["exists", "1-3", "held"]
    stocked.confirm(order, "shirt")
    with stocked.unchanged():
        assert adopt(stocked, order) == ["exists", "1-4", "sold"]


def test_a_product_or_stock_item_that_is_not_there_is_named(stocked: Partition) -> None:
    with stocked.unchanged():
        assert adopt(stocked, order_id(), "shirt:XL:1", ("shirt",)) == ["unknown_reference", "shirt", "XL"]
        lost = adopt(stocked, order_id(), "shirt:S:1,cap:one:1", ("shirt", "cap"))
        assert lost == ["unknown_reference", "cap", "one"]


@pytest.mark.parametrize("packed", ["shirt:S:0", "shirt:S:-1", "shirt:S:x", "shirt:S:nan"])
def test_malformed_quantities_change_nothing(stocked: Partition, packed: str) -> None:
    with stocked.unchanged(), pytest.raises(redis.ResponseError):
        adopt(stocked, order_id(), packed, ("shirt",))


def test_undeclared_products_change_nothing(stocked: Partition) -> None:
    with stocked.unchanged(), pytest.raises(redis.ResponseError, match="RESERVATION"):
        adopt(stocked, order_id(), LINES, ("shirt",))
