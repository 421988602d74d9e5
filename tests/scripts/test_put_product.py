import pytest
import redis

from tests.scripts.partition import Partition


@pytest.mark.requirement("R2.1", "R2.2", "R2.6")
def test_a_product_is_made_with_its_stock_items(partition: Partition) -> None:
    with partition.one_event("product.put", product="shirt", name="셔츠", price=1000, stock="[…]", added="S,M"):
        reply = partition.run(
            "put_product", "S", "small", 10, "M", "middle", 0, name="셔츠", price=1000, stock_json="[…]"
        )
    assert reply == ["created", "1-1"]
    assert partition.product() == {
        "name": "셔츠", "price": "1000", "stocks": "S,M", "seq": "1-1",
        "o:S": "small", "a:S": "10", "r:S": "0", "s:S": "0",
        "o:M": "middle", "a:M": "0", "r:M": "0", "s:M": "0",
    }  # fmt: skip
    assert partition.run("list_ids", ids=partition.keys.products(partition.index)) == ["read", ["shirt"]]


@pytest.mark.requirement("R0.8")
def test_more_stock_items_than_a_product_may_have_change_nothing(partition: Partition) -> None:
    partition.stock_shop()
    with partition.unchanged():
        assert partition.run("put_product", "L", "", 1, "XL", "", 1, stock_items_max=3) == ["too_many_items", "4"]


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize("number", ["-1", "1.5", "abc", "", str(2**53)])
def test_malformed_numbers_change_nothing(partition: Partition, number: str) -> None:
    with partition.unchanged():
        with pytest.raises(redis.ResponseError):
            partition.run("put_product", "S", "", 1, price=number)
        with pytest.raises(redis.ResponseError):
            partition.run("put_product", "S", "", 1, "M", "", number)


def test_a_stock_item_without_its_quantity_changes_nothing(partition: Partition) -> None:
    with partition.unchanged(), pytest.raises(redis.ResponseError):
        partition.run("put_product", "S", "small")


def test_the_one_stock_item_of_a_product_is_noted_until_there_are_two(partition: Partition) -> None:
    partition.run("put_product", "S", "small", 10)
    assert partition.product()["only"] == "S"
    partition.run("put_product", "S", "small", 10, "M", "middle", 5)
    assert "only" not in partition.product()
