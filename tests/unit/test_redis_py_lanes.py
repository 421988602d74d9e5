import asyncio
from collections.abc import AsyncIterator
from hashlib import sha1

import pytest
from fakeredis import FakeAsyncRedis

from engine.errors import ServerError
from engine.redis_py_lanes import RedisPyLanes
from engine.scripts import Script, ScriptHead

SOURCE = "return {ARGV[1], KEYS[1], ARGV[2], redis.call('INCRBY', KEYS[1], ARGV[3])}"
SCRIPT = Script("add", SOURCE, sha1(SOURCE.encode()).hexdigest().encode(), ScriptHead("", (), (), (), ()))


@pytest.fixture
async def lanes() -> AsyncIterator[RedisPyLanes]:
    lanes = RedisPyLanes(FakeAsyncRedis(protocol=2), identity=b"run:replid")
    await lanes.start()
    yield lanes
    await lanes.close()


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


async def test_a_script_runs_with_the_fixed_identity_as_its_first_argument(lanes: RedisPyLanes) -> None:
    assert await lanes.call(0, SCRIPT, ["k"], ["x", 3], deadline=soon()) == [b"run:replid", b"k", b"x", 3]
    assert await lanes.call(5, SCRIPT, ["k"], ["x", 4], deadline=soon()) == [b"run:replid", b"k", b"x", 7]
    assert lanes.identity(0) == b"run:replid"


async def test_replies_are_as_on_a_lane(lanes: RedisPyLanes) -> None:
    assert await lanes.execute(0, "SET", "a", "1", deadline=soon()) == b"OK"
    assert await lanes.execute(0, "GET", "none", deadline=soon()) is None
    await lanes.execute(0, "HSET", "h", "f", "v", deadline=soon())
    assert await lanes.execute(0, "HGETALL", "h", deadline=soon()) == [b"f", b"v"]
    await lanes.execute(0, "XADD", "s", "1-1", "f", "v", deadline=soon())
    assert await lanes.execute(0, "XRANGE", "s", "-", "+", deadline=soon()) == [[b"1-1", [b"f", b"v"]]]


async def test_calls_made_together_all_get_their_own_reply(lanes: RedisPyLanes) -> None:
    replies = await asyncio.gather(*(lanes.execute(0, "ECHO", str(n), deadline=soon()) for n in range(50)))
    assert replies == [str(n).encode() for n in range(50)]


async def test_an_error_reply_has_its_code(lanes: RedisPyLanes) -> None:
    await lanes.execute(0, "SET", "a", "1", deadline=soon())
    with pytest.raises(ServerError) as wrong_type:
        await lanes.execute(0, "HGET", "a", "f", deadline=soon())
    assert wrong_type.value.code == "WRONGTYPE"
    with pytest.raises(ServerError) as unknown:
        await lanes.execute(0, "NOSUCH", deadline=soon())
    assert unknown.value.code == "ERR"
