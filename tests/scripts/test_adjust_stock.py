import pytest
import redis

from tests.scripts.partition import Partition


@pytest.mark.requirement("R0.3", "R2.3")
def test_an_adjustment_changes_the_available_units_alone(partition: Partition) -> None:
    partition.stock_shop()
    with partition.one_event("stock.adjusted", product="shirt", stock="S", delta=-4, available=6, reason="broken"):
        reply = partition.run("adjust_stock", stock="S", delta=-4, reason="broken")
    assert reply == ["adjusted", "1-3", "6", "small"]
    assert partition.units("S") == (6, 0, 0)
    assert partition.product()["seq"] == "1-3"


@pytest.mark.requirement("R0.3", "R0.8")
def test_the_available_units_never_fall_below_zero_or_pass_the_most(partition: Partition) -> None:
    partition.stock_shop()
    with partition.unchanged():
        assert partition.run("adjust_stock", stock="S", delta=-11) == ["stock_limit", "10"]
        assert partition.run("adjust_stock", stock="S", delta=1, available_max=10) == ["stock_limit", "10"]
    assert partition.run("adjust_stock", stock="S", delta=1, available_max=11)[2] == "11"
    assert partition.run("adjust_stock", stock="S", delta=-11)[2] == "0"


def test_what_is_not_there_cannot_be_adjusted(partition: Partition) -> None:
    partition.stock_shop()
    with partition.unchanged():
        assert partition.run("adjust_stock", stock="XL", delta=1) == ["unknown"]
        assert partition.run("adjust_stock", product="sock", stock="S", delta=1) == ["unknown"]


@pytest.mark.parametrize("delta", ["", "1.5", "1e2", "abc", "-0", "nan", str(2**53)])
def test_malformed_numbers_change_nothing(partition: Partition, delta: str) -> None:
    partition.stock_shop()
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("adjust_stock", stock="S", delta=delta, available_max=2**53 - 1)
