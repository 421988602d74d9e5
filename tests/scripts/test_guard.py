"""What every changing script begins with: the guard, and the refusal of an older epoch."""

from typing import Any

import pytest
import redis

from engine.scripts import load_scripts
from tests.scripts.partition import CHANGING_SCRIPTS, META_SCRIPTS, NOW, READ_SCRIPTS, Partition, order_id

HELD, AWAITING, DUE = order_id(), order_id(), NOW + 10**9

CALLS: dict[str, tuple[tuple[str | int, ...], dict[str, Any]]] = {
    "adjust_stock": ((), {"stock": "S", "delta": 1}),
    "adopt_issue": ((), {}),
    "adopt_stock": (("shirt",), {"order": order_id(), "packed": "shirt:S:1"}),
    "cancel_order": ((), {"order": AWAITING}),
    "charge_wallet": ((), {"amount": 1}),
    "checkout_order": ((), {"order": order_id(), "user": "lee"}),
    "confirm_stock": ((HELD, "shirt"), {"orders": 1}),
    "expire_order": ((), {"order": AWAITING, "now_ms": DUE}),
    "fail_order": ((), {"order": AWAITING}),
    "grant_coupon": ((), {}),
    "issue_coupons": (("kim",), {}),
    "pay_order": ((), {"order": AWAITING}),
    "place_order": ((), {"order": order_id(), "user": "lee"}),
    "put_campaign": ((), {}),
    "put_product": (("S", "small", 1), {}),
    "release_stock": (("shirt",), {"order": HELD}),
    "reserve_stock": ((1, "shirt", "S", 1), {"order": order_id()}),
    "void_order": ((), {"order": order_id()}),
}
"""A call of each changing script that changes something in the partition of these tests."""


@pytest.fixture(autouse=True)
def shop(partition: Partition) -> None:
    partition.stock_shop()
    partition.run("put_campaign")
    partition.reserve(HELD, ("shirt", "S", 1))
    partition.run("charge_wallet", amount=5_000)
    partition.place(AWAITING)


@pytest.fixture(params=CHANGING_SCRIPTS)
def script(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def call(partition: Partition, name: str, **arguments: Any) -> Any:
    rest, given = CALLS[name]
    return partition.run(name, *rest, **{**given, **arguments})


def test_every_script_is_of_a_known_sort() -> None:
    assert {name for name, script in load_scripts().items() if script.head.events} == set(CHANGING_SCRIPTS)
    assert set(CHANGING_SCRIPTS) <= set(CALLS)
    assert {"init_partition", "mark_durable", "raise_generation", "trust_partition"} <= set(META_SCRIPTS)
    assert set(READ_SCRIPTS) >= {"list_ids", "rank_sales", "read_fields", "read_hashes"}


def test_a_trusted_partition_is_changed_by_one_event(partition: Partition, script: str) -> None:
    before, seq = partition.dump(), partition.seq()
    call(partition, script)
    assert partition.dump() != before
    assert partition.seq() == seq + 1
    assert [place for place, _ in partition.events()] == [f"1-{number}" for number in range(1, seq + 2)]
    assert partition.events()[-1][1]["type"] in load_scripts()[script].head.events


def test_an_event_says_which_request_it_is_for(partition: Partition, script: str) -> None:
    call(partition, script, request="of-this-test")
    assert partition.events()[-1][1]["request"] == "of-this-test"


def test_another_server_is_refused(partition: Partition, script: str) -> None:
    with partition.unchanged():
        assert call(partition, script, server="run:other") == ["unverified"]
        assert call(partition, script, server="run:other", generation=2, backlog_max=0) == ["unverified"]
        assert call(partition, script, server="") == ["unverified"]


def test_a_partition_without_a_meta_is_refused(partition: Partition, script: str) -> None:
    partition.client.delete(partition.keys.meta(partition.index))
    with partition.unchanged():
        assert call(partition, script) == ["unverified"]
        assert call(partition, script, server="") == ["unverified"]


@pytest.mark.parametrize("generation", [0, 2, "", "1.0"])
def test_another_generation_is_stale(partition: Partition, script: str, generation: int | str) -> None:
    with partition.unchanged():
        assert call(partition, script, generation=generation, backlog_max=0) == ["stale", "1"]


def test_too_many_events_that_are_not_durable_are_refused(partition: Partition, script: str) -> None:
    backlog = partition.seq()
    with partition.unchanged():
        assert call(partition, script, backlog_max=backlog) == ["overloaded"]
        assert call(partition, script, backlog_max=0) == ["overloaded"]
    partition.run("mark_durable", seq=1)
    assert call(partition, script, backlog_max=backlog) != ["overloaded"]
    assert partition.seq() == backlog + 1


def test_an_entry_of_an_older_epoch_is_refused_before_anything_is_written(partition: Partition, script: str) -> None:
    partition.client.xadd(partition.keys.events(partition.index), {"type": "later"}, id="2-1")
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="equal or smaller"):
        call(partition, script)


def test_a_sequence_that_is_taken_is_refused_before_anything_is_written(partition: Partition, script: str) -> None:
    partition.client.xadd(partition.keys.events(partition.index), {"type": "later"}, id=f"1-{partition.seq() + 1}")
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="equal or smaller"):
        call(partition, script)


def test_the_next_epoch_goes_on_with_the_next_sequence(partition: Partition, script: str) -> None:
    seq = partition.seq()
    partition.client.hset(partition.keys.meta(partition.index), "epoch", "2")
    call(partition, script)
    assert partition.events()[-1][0] == f"2-{seq + 1}"


def test_a_call_whose_keys_are_of_several_slots_is_refused_by_the_server(partition: Partition) -> None:
    other = partition.keys.product(partition.index + 1, "shirt")
    with partition.unchanged(), pytest.raises(redis.ResponseError, match="same slot"):
        partition.run("read_hashes", repeated_keys=[other])
