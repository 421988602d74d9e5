"""How far the writer is behind is told of the partition that is furthest behind."""

import time

import pytest
import redis

from engine.keys import Keys
from engine.partitions import Partitions
from loadtests.lag import Lag, oldest_waiting_ms
from loadtests.systems import redis_client

KEYS = Keys(Partitions(3))


def write(client: redis.Redis, partition: int, ages_ms: list[int], durable: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    for seq, age_ms in enumerate(ages_ms, 1):
        client.xadd(KEYS.events(partition), {"at": now_ms - age_ms}, id=f"2-{seq}")
    client.hset(KEYS.meta(partition), mapping={"epoch": 2, "seq": len(ages_ms), "durable": durable})


@pytest.mark.one_redis
def test_one_partition_that_is_left_behind_does_not_hide_among_those_that_are_kept_up_with(redis_url: str) -> None:
    with redis_client(redis_url) as client:
        assert oldest_waiting_ms(client, KEYS, 3) == 0, "of a shop in which nothing has happened"
        write(client, 0, [90_000, 80_000], durable=2)
        assert oldest_waiting_ms(client, KEYS, 3) == 0, "however long ago it was"
        write(client, 1, [50_000, *(20 for _ in range(1_000))], durable=1)
        assert 20 <= oldest_waiting_ms(client, KEYS, 3) < 10_000
        write(client, 2, [50_000, 40_000, 30_000, 0], durable=1)
        assert 40_000 <= oldest_waiting_ms(client, KEYS, 3) < 50_000


def test_what_was_not_watched_to_the_end_was_not_in_time() -> None:
    looks = iter([7.0])

    def look() -> float:
        late_ms = next(looks, None)
        if late_ms is None:
            raise ConnectionError("Redis is away")
        return late_ms

    lag = Lag(look)
    with pytest.raises(ConnectionError, match="Redis is away"), lag:
        lag._thread.join()
    assert [late_ms for _, late_ms in lag.found_ms] == [7.0]


def test_a_load_that_is_over_before_the_first_look_is_looked_at_too() -> None:
    with Lag(lambda: 3.0) as lag:
        pass
    assert [late_ms for _, late_ms in lag.found_ms] == [3.0]
