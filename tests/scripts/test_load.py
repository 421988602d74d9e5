"""begin_load, clear_keys, load_keys and finish_load: a partition made anew, by one recovery at a time."""

from typing import Any

import pytest
import redis

from tests.scripts.partition import SERVER, Partition

CLAIM = "recovering:token:"
MARK = CLAIM + SERVER
OTHER_CLAIM = "recovering:later:"
OTHER = OTHER_CLAIM + SERVER


def meta(partition: Partition) -> dict[str, str]:
    return partition.hash(partition.keys.meta(partition.index))


def begin(partition: Partition, expected: str, claim: str = CLAIM, server: str = SERVER) -> Any:
    return partition.run("begin_load", server=claim + server, claim=claim, expected=expected)


@pytest.fixture
def loading(partition: Partition) -> Partition:
    """A partition with a shop in it, whose server has changed; a recovery has begun to load it."""
    partition.stock_shop()
    partition.run("charge_wallet", amount=5)
    partition.client.hset(partition.keys.meta(partition.index), "server", "run:old")
    assert begin(partition, "run:old") == ["loading"]
    return partition


def test_the_meta_of_a_partition_that_is_loaded_is_the_mark_alone(loading: Partition) -> None:
    assert meta(loading) == {"loading": MARK}
    assert loading.run("charge_wallet", amount=1) == ["unverified"]
    assert loading.run("charge_wallet", amount=1, server=MARK) == ["unverified"]
    assert begin(loading, "run:old") == ["loading"]


def test_a_trusted_partition_is_not_loaded(partition: Partition) -> None:
    with partition.unchanged():
        assert begin(partition, SERVER) == ["trusted"]
        assert begin(partition, "") == ["trusted"]


def test_what_was_looked_at_before_it_changed_is_not_loaded(partition: Partition) -> None:
    key = partition.keys.meta(partition.index)
    partition.client.hset(key, "server", OTHER)
    with partition.unchanged():
        assert begin(partition, "run:old") == ["changed"]
        assert begin(partition, "") == ["changed"]
    assert begin(partition, OTHER) == ["loading"]
    with partition.unchanged():
        assert begin(partition, "run:old", OTHER_CLAIM) == ["changed"]
    assert begin(partition, MARK, OTHER_CLAIM) == ["loading"]
    partition.client.flushall()
    assert begin(partition, "") == ["loading"]


def test_keys_are_removed_but_never_the_meta(loading: Partition) -> None:
    every = [key for key in loading.dump() if ":" in key]
    for _ in range(2):
        assert loading.run("clear_keys", server=MARK, repeated_keys=every) == ["cleared"]
    assert list(loading.dump()) == [loading.keys.meta(loading.index)]


def test_hashes_and_sorted_sets_are_loaded(loading: Partition) -> None:
    kim, lee = loading.keys.wallet(loading.index, "kim"), loading.keys.wallet(loading.index, "lee")
    products, hat = loading.keys.products(loading.index), loading.keys.product(loading.index, "cap")

    def load(command: str, names: int, keys: list[str], *content: str | int) -> Any:
        return loading.run("load_keys", *content, server=MARK, command=command, names=names, repeated_keys=keys)

    for _ in range(2):
        users = load("HSET", 2, [kim, lee], "balance", "seq", 7, "1-1", 9007199254740991, "")
        members = load("ZADD", 0, [products], 4, 0, "cap", 0, "한")
        fields = load("HSET", 0, [hat, hat], 2, "name", "Cap, 'red'", 4, "price", 5, "seq", "1-3")
        assert (users, members, fields) == (["loaded"], ["loaded"], ["loaded"])
    dump = loading.dump()
    assert dump[kim] == {"balance": "7", "seq": "1-1"}
    assert dump[lee] == {"balance": "9007199254740991", "seq": ""}
    assert dump[hat] == {"name": "Cap, 'red'", "price": "5", "seq": "1-3"}
    assert dump[products][::2] == ["cap", "hat", "shirt", "한"]


def test_nothing_but_hashes_and_sorted_sets_is_loaded(loading: Partition) -> None:
    key = loading.keys.wallet(loading.index, "kim")
    with loading.unchanged(), pytest.raises(redis.ResponseError, match="neither"):
        loading.run("load_keys", 0, server=MARK, command="FLUSHALL", names=0, repeated_keys=[key])


@pytest.mark.parametrize("server", [SERVER, OTHER, CLAIM + "run:copied", "recovering:"])
def test_only_the_recovery_that_began_goes_on_loading(loading: Partition, server: str) -> None:
    kim = [loading.keys.wallet(loading.index, "kim")]
    with loading.unchanged():
        assert loading.run("clear_keys", server=server, repeated_keys=kim) == ["unverified"]
        load = loading.run("load_keys", "balance", 1, server=server, command="HSET", names=1, repeated_keys=kim)
        assert load == ["unverified"]
        assert loading.run("finish_load", server=server, generation=3, next_epoch=2, seq=9) == ["unverified"]


def test_a_loaded_partition_is_held_in_a_new_epoch(loading: Partition) -> None:
    for _ in range(2):
        finished = loading.run("finish_load", server=MARK, generation=3, next_epoch=2, seq=9)
        assert finished == ["held", "2", "9"]
    assert meta(loading) == {
        "format": "1", "generation": "3", "epoch": "2", "seq": "9", "durable": "9", "server": MARK,
    }  # fmt: skip
    with loading.unchanged():
        assert loading.run("charge_wallet", amount=1, generation=3) == ["unverified"]
        kim = [loading.keys.wallet(loading.index, "kim")]
        assert loading.run("clear_keys", server=MARK, repeated_keys=kim) == ["unverified"]
    assert loading.run("charge_wallet", amount=1, generation=3, server=MARK)[:2] == ["charged", "2-10"]
