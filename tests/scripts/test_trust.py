"""init_partition, raise_generation, trust_partition and mark_durable: what the worker does to a partition's meta."""

import pytest
import redis

from tests.scripts.partition import SERVER, Partition


def meta(partition: Partition) -> dict[str, str]:
    return partition.hash(partition.keys.meta(partition.index))


def test_an_empty_partition_is_begun_once(partition: Partition) -> None:
    fresh = {"format": "1", "generation": "1", "epoch": "1", "seq": "0", "durable": "0", "server": SERVER}
    assert meta(partition) == fresh
    with partition.unchanged():
        assert partition.run("init_partition", generation=9, server="run:other") == ["exists"]
    partition.client.delete(partition.keys.meta(partition.index))
    partition.client.xadd(partition.keys.events(partition.index), {"type": "left over"})
    with partition.unchanged():
        assert partition.run("init_partition", generation=1) == ["exists"]


def test_a_generation_is_raised_and_never_lowered(partition: Partition) -> None:
    partition.run("charge_wallet", amount=1)
    assert partition.run("raise_generation", generation=10) == ["raised", "1"]
    assert meta(partition)["generation"] == "10"
    assert partition.run("charge_wallet", amount=1) == ["stale", "10"]
    with partition.unchanged():
        assert partition.run("raise_generation", generation=9) == ["raised", "1"]
        assert partition.run("raise_generation", generation=10) == ["raised", "1"]
        assert partition.run("raise_generation", generation=11, server="run:other") == ["unverified"]


def test_a_recovered_partition_begins_a_new_epoch_on_its_server(partition: Partition) -> None:
    partition.run("charge_wallet", amount=1)
    mark = "recovering:token:run:new"
    with partition.unchanged():
        assert partition.run("hold_partition", server=mark, expected_server="run:other") == ["changed"]
        assert partition.run("begin_epoch", server=mark, generation=2, next_epoch=2, seq=1) == ["unverified"]
        assert partition.run("trust_partition", server=mark, claim="recovering:token:", seq=1) == ["unverified"]
    assert partition.run("hold_partition", server=mark, expected_server=SERVER) == ["held", "1", "1"]
    with partition.unchanged():
        assert partition.run("charge_wallet", amount=1) == ["unverified"]
        assert partition.run("begin_epoch", server=mark, generation=2, next_epoch=2, seq=0) == ["changed"]
        assert partition.run("begin_epoch", server=mark, generation=2, epoch=3, next_epoch=4, seq=1) == ["changed"]
    for _ in range(2):
        assert partition.run("begin_epoch", server=mark, generation=2, next_epoch=2, seq=1) == ["begun"]
    with partition.unchanged():
        assert partition.run("trust_partition", server=mark, claim="recovering:token:", epoch=2, seq=0) == ["changed"]
        assert partition.run("trust_partition", server=mark, claim="recovering:token:", seq=1) == ["changed"]
    for _ in range(2):
        assert partition.run("trust_partition", server=mark, claim="recovering:token:", epoch=2, seq=1) == ["trusted"]
    trusted = {"format": "1", "generation": "2", "epoch": "2", "seq": "1", "durable": "1", "server": "run:new"}
    assert meta(partition) == trusted
    with partition.unchanged():
        assert partition.run("charge_wallet", amount=1, generation=2) == ["unverified"]
    assert partition.run("charge_wallet", amount=1, generation=2, server="run:new")[1] == "2-2"


@pytest.fixture
def five_events(partition: Partition) -> Partition:
    for _ in range(5):
        partition.run("charge_wallet", amount=1)
    return partition


def test_what_is_durable_goes_forward_alone(five_events: Partition) -> None:
    assert five_events.run("mark_durable", seq=3) == ["marked"]
    assert meta(five_events)["durable"] == "3"
    with five_events.unchanged():
        assert five_events.run("mark_durable", seq=2) == ["marked"]
        assert five_events.run("mark_durable", seq=6) == ["changed"]
        assert five_events.run("mark_durable", seq=5, epoch=2) == ["changed"]
        assert five_events.run("mark_durable", seq=5, server="run:other") == ["unverified"]
    five_events.client.delete(five_events.keys.meta(five_events.index))
    assert five_events.run("mark_durable", seq=5) == ["unverified"]


def test_only_durable_events_may_leave_the_stream(five_events: Partition) -> None:
    with five_events.unchanged(), pytest.raises(redis.ResponseError, match="not durable"):
        five_events.run("mark_durable", seq=3, keep_from_seq=5)
    five_events.client.config_set("stream-node-max-entries", 1)
    try:
        assert five_events.run("mark_durable", seq=3, keep_from_seq=4) == ["marked"]
    finally:
        five_events.client.config_set("stream-node-max-entries", 100)
    left = [place for place, _ in five_events.events()]
    assert left[-2:] == ["1-4", "1-5"]


@pytest.mark.parametrize("argument", ["seq", "keep_from_seq"])
@pytest.mark.parametrize("number", ["", "-1", "1.5", "abc"])
def test_malformed_numbers_change_nothing(five_events: Partition, argument: str, number: str) -> None:
    with five_events.unchanged(), pytest.raises(redis.ResponseError):
        five_events.run("mark_durable", **{"seq": 3, argument: number})
