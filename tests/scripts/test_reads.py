"""list_ids, rank_sales, read_fields and read_hashes: nothing is shown from a partition that is not trusted."""

from typing import Any

import pytest
import redis

from tests.scripts.partition import READ_SCRIPTS, Partition


def call(partition: Partition, name: str, *rest: str, **arguments: Any) -> Any:
    given = {
        "ids": partition.keys.products(partition.index),
        "hash": partition.keys.wallet(partition.index, "kim"),
        "repeated_keys": [],
        **arguments,
    }
    return partition.run(name, *rest, **given)


@pytest.mark.parametrize("script", READ_SCRIPTS)
def test_nothing_is_shown_from_a_partition_that_is_not_trusted(partition: Partition, script: str) -> None:
    with partition.unchanged():
        assert call(partition, script, "balance")[0] == "read"
        assert call(partition, script, "balance", server="run:other", generation=3) == ["unverified"]
        assert call(partition, script, "balance", generation=2) == ["stale", "1"]
    partition.client.delete(partition.keys.meta(partition.index))
    assert call(partition, script, "balance") == ["unverified"]


@pytest.mark.requirement("R2.5")
def test_ids_are_listed_in_their_order_page_by_page(partition: Partition) -> None:
    for product in ("b", "a", "C", "b-2"):
        partition.run("put_product", product=product)
    assert call(partition, "list_ids") == ["read", ["C", "a", "b", "b-2"]]
    assert call(partition, "list_ids", count_max=2) == ["read", ["C", "a"]]
    assert call(partition, "list_ids", after="a", count_max=2) == ["read", ["b", "b-2"]]
    assert call(partition, "list_ids", after="b-2") == ["read", []]


@pytest.mark.requirement("R1.4")
def test_fields_that_are_absent_are_nothing_and_hide_none_that_follow(partition: Partition) -> None:
    partition.run("charge_wallet", amount=5)
    assert call(partition, "read_fields", "open_order", "balance", "last_order") == ["read", [None, "5", None]]


@pytest.mark.requirement("R2.4")
def test_hashes_are_read_whole_and_empty_where_there_is_none(partition: Partition) -> None:
    partition.stock_shop()
    keys = [partition.keys.product(partition.index, product) for product in ("hat", "sock", "shirt")]
    status, (hat, sock, shirt) = call(partition, "read_hashes", repeated_keys=keys)
    assert status == "read"
    assert (dict(zip(hat[::2], hat[1::2], strict=True)), sock) == (partition.product("hat"), [])
    assert len(shirt) == 2 * len(partition.product())


@pytest.mark.requirement("R5.1")
def test_sales_are_summed_over_the_days_and_ranked(partition: Partition) -> None:
    days = [partition.keys.sales(partition.index, day) for day in ("20270113", "20270114", "20270115")]
    partition.client.zadd(days[0], {"b": 4, "a": 1})
    partition.client.zadd(days[2], {"a": 3, "c": 5, "B": 4})
    ranking = call(partition, "rank_sales", repeated_keys=days)
    assert ranking == ["read", ["c", "5", "B", "4", "a", "4", "b", "4"]]
    assert call(partition, "rank_sales", repeated_keys=days, count_max=2) == ["read", ["c", "5", "B", "4"]]
    assert call(partition, "rank_sales", repeated_keys=days[:1]) == ["read", ["b", "4", "a", "1"]]


def test_large_sales_are_exact_to_the_unit(partition: Partition) -> None:
    days = [partition.keys.sales(partition.index, day) for day in ("20270113", "20270114")]
    partition.client.zadd(days[0], {"a": 10**15})
    partition.client.zadd(days[1], {"a": 7})
    assert call(partition, "rank_sales", repeated_keys=days) == ["read", ["a", str(10**15 + 7)]]


def test_a_count_that_is_no_number_is_refused(partition: Partition) -> None:
    with pytest.raises(redis.ResponseError):
        call(partition, "list_ids", count_max="all")
    with pytest.raises(redis.ResponseError):
        call(partition, "rank_sales", count_max="all")
