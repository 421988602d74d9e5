"""Trust: an empty Redis is begun, an unchanged one left alone, a restarted one recovered, a poorer one refused."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from api.commands.embedded_valkey import EmbeddedValkey
from engine.engine import Engine, open_engine
from engine.errors import Recovering
from engine.positions import position_of
from engine.recovery import FORMAT, Meta
from engine.settings import EngineSettings
from persistence.cursors import Cursor
from persistence.database import connect
from persistence.installation import register_installation
from persistence.recovery import Partition, RecoveryHeld
from persistence.trust import Trust
from tests.persistence.recovering import Past, restart, writing
from tests.persistence.shop import rows, value, write_all

Connection = AsyncConnection[TupleRow]


@pytest.fixture
def own_settings(own_valkey: EmbeddedValkey) -> EngineSettings:
    """Of a Redis that may be killed."""
    return EngineSettings(redis_url=own_valkey.url, partitions=4)


@pytest.fixture
async def own_engine(own_settings: EngineSettings, connection: Connection) -> AsyncIterator[Engine]:
    """An engine over it, with nothing trusted."""
    await register_installation(connection, own_settings)
    async with open_engine(own_settings) as engine:
        yield engine


async def test_an_empty_redis_is_begun_and_serves(own_engine: Engine, connection: Connection) -> None:
    with pytest.raises(Recovering):
        await own_engine.wallets.charge("ann", 5)

    assert await Trust(own_engine).look(connection)

    assert (await own_engine.wallets.charge("ann", 5)).balance == 5
    server = (own_engine.lanes.identity(0) or b"").decode()
    assert await rows(connection, "SELECT DISTINCT server FROM partition_cursor") == [(server,)]


async def test_two_workers_begin_one_redis_together(
    own_engine: Engine, connection: Connection, database_url: str
) -> None:
    async with await connect(database_url, "other worker") as other:
        looks = await asyncio.gather(Trust(own_engine).look(connection), Trust(own_engine).look(other))

    assert True in looks
    assert await Trust(own_engine).look(connection)
    assert await value(connection, "SELECT count(*) FROM alarm") == 0


async def test_a_begin_that_was_cut_short_is_finished(own_engine: Engine, connection: Connection) -> None:
    await own_engine.recovery.init(2, 1)

    assert await Trust(own_engine).look(connection)

    assert await value(connection, "SELECT count(*) FROM partition_cursor WHERE server IS NULL") == 0


async def test_an_unchanged_server_is_left_alone(engine: Engine, connection: Connection) -> None:
    assert await Trust(engine).look(connection)

    assert await value(connection, "SELECT generation FROM installation") == 1
    assert await value(connection, "SELECT count(*) FROM epoch_end") == 0


async def test_a_restarted_server_that_has_everything_is_trusted_in_a_new_epoch(
    own_engine: Engine, own_valkey: EmbeddedValkey, connection: Connection, database_url: str
) -> None:
    engine, trust = own_engine, Trust(own_engine)
    await trust.look(connection)
    await engine.wallets.charge("ann", 5)
    await write_all(engine, database_url)
    await engine.wallets.charge("ann", 7)
    await restart(own_valkey, engine)
    with pytest.raises(Recovering):
        await engine.wallets.balance("ann")

    async with writing(engine, database_url):
        assert await trust.look(connection)

    assert await engine.wallets.balance("ann") == 12
    assert await value(connection, "SELECT balance FROM wallet") == 12
    assert await value(connection, "SELECT generation FROM installation") == 2
    assert await rows(connection, "SELECT DISTINCT epoch FROM partition_cursor") == [(2,)]
    ann = engine.partitions.of("ann")
    assert await value(connection, "SELECT last_seq FROM epoch_end WHERE partition = %s", ann) == 2
    charge = await engine.wallets.charge("ann", 1)
    assert charge.positions[0].place == "2-3"
    await write_all(engine, database_url)
    assert await value(connection, "SELECT balance FROM wallet") == 13


async def test_what_happens_after_a_look_is_not_taken_for_what_the_look_has_seen(
    engine: Engine, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is paused between looking and noting that there was nothing to write. What comes meanwhile may be lost,
    and a reconciliation must look for it.
    """
    trust = Trust(engine)
    assert await trust.look(connection)
    await connection.execute("UPDATE partition_cursor SET updated_at = now() - interval '1 hour'")
    survey, paused_at_ms = trust._survey, list[int]()
    seen_ms = engine.lanes.now_ms(0)

    async def survey_and_pause(connection: Connection) -> list[Partition]:
        found = await survey(connection)
        paused_at_ms.append(engine.lanes.now_ms(0))
        while engine.lanes.now_ms(0) < paused_at_ms[0] + 50:  # noqa: ASYNC110 - a clock tells nobody
            await asyncio.sleep(0.01)
        await engine.wallets.charge("kim", 100)
        return found

    monkeypatch.setattr(trust, "_survey", survey_and_pause)
    assert await trust.look(connection)

    noted_ms = await value(
        connection, "SELECT (extract(epoch FROM max(updated_at)) * 1000)::bigint FROM partition_cursor"
    )
    assert seen_ms <= noted_ms <= paused_at_ms[0]


async def test_a_flow_that_began_before_the_recovery_is_stale_everywhere(
    own_engine: Engine, own_valkey: EmbeddedValkey, connection: Connection, database_url: str
) -> None:
    engine, trust = own_engine, Trust(own_engine)
    await trust.look(connection)
    await engine.wallets.charge("ann", 5)
    await restart(own_valkey, engine)
    async with writing(engine, database_url):
        await trust.look(connection)

    metas = [await engine.recovery.inspect(partition) for partition in range(4)]
    assert [meta.generation for meta in metas if meta] == [2, 2, 2, 2]


async def test_recovery_waits_for_the_writers_and_goes_on_at_the_next_look(
    own_engine: Engine,
    own_valkey: EmbeddedValkey,
    connection: Connection,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, trust = own_engine, Trust(own_engine)
    await trust.look(connection)
    await engine.wallets.charge("ann", 5)
    await restart(own_valkey, engine)
    monkeypatch.setattr("persistence.recovery.NO_PROGRESS_S", 0.1)

    assert not await trust.look(connection)
    with pytest.raises(Recovering):
        await engine.wallets.balance("ann")

    async with writing(engine, database_url):
        monkeypatch.setattr("persistence.recovery.NO_PROGRESS_S", 10)
        assert await trust.look(connection)
    assert await engine.wallets.balance("ann") == 5


async def test_a_redis_that_lost_what_was_durable_is_rebuilt_before_it_serves(
    own_engine: Engine, own_valkey: EmbeddedValkey, connection: Connection, database_url: str
) -> None:
    engine, trust = own_engine, Trust(own_engine)
    await trust.look(connection)
    await engine.wallets.charge("ann", 5)
    await write_all(engine, database_url)
    async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
        await client.flushall()
    await restart(own_valkey, engine)
    with pytest.raises(Recovering):
        await engine.wallets.balance("ann")

    async with writing(engine, database_url):
        assert await trust.look(connection)

    assert await engine.wallets.balance("ann") == 5
    ann = engine.partitions.of("ann")
    ((detail, cleared_at),) = await rows(connection, "SELECT detail, cleared_at FROM alarm WHERE partition = %s", ann)
    assert "nothing where PostgreSQL has 1-1" in detail
    assert cleared_at is not None


async def test_a_server_emptied_under_way_is_rebuilt(
    own_engine: Engine, own_valkey: EmbeddedValkey, connection: Connection, database_url: str
) -> None:
    engine, trust = own_engine, Trust(own_engine)
    await trust.look(connection)
    await engine.wallets.charge("ann", 5)
    await write_all(engine, database_url)
    async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
        await client.flushall()

    async with writing(engine, database_url):
        assert await trust.look(connection)

    assert await engine.wallets.balance("ann") == 5
    assert await value(connection, "SELECT count(*) FROM alarm WHERE kind = 'partition_untrusted'") == 4


async def test_a_partition_that_goes_back_while_its_server_lives_is_noticed_and_rebuilt(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    """Nothing of it says so but its sequence, which is below what is durable."""
    trust = Trust(engine)
    assert await trust.look(connection)
    await engine.wallets.charge("kim", 100)
    await write_all(engine, database_url)
    before = Past.of(engine, engine.partitions.of("kim"))
    await engine.wallets.charge("kim", 50)
    await write_all(engine, database_url)
    before.bring_back(server=None)
    assert await engine.wallets.balance("kim") == 100

    async with writing(engine, database_url):
        assert await trust.look(connection)

    assert await engine.wallets.balance("kim") == 150
    await engine.wallets.charge("kim", 1)
    await write_all(engine, database_url)
    assert await value(connection, "SELECT sum(amount)::bigint FROM ledger_entry") == 151


async def test_an_empty_database_beside_a_full_redis_is_an_alarm(
    own_engine: Engine, own_valkey: EmbeddedValkey, connection: Connection, database_url: str
) -> None:
    """PostgreSQL has lost everything, and Redis has not kept the events of the beginning."""
    engine = own_engine
    await Trust(engine).look(connection)
    ann = engine.partitions.of("ann")
    await engine.wallets.charge("ann", 5)
    await engine.wallets.charge("ann", 6)
    await write_all(engine, database_url)
    await engine.lanes.execute(
        ann, "XDEL", engine.keys.events(ann), "1-1", deadline=asyncio.get_running_loop().time() + 5
    )
    await connection.execute("UPDATE partition_cursor SET seq = 0, server = NULL WHERE partition = %s", (ann,))
    await connection.execute("TRUNCATE wallet, ledger_entry")

    async with writing(engine, database_url):
        assert not await Trust(engine).look(connection)
        assert not await Trust(engine).look(connection)

    kinds = await rows(connection, "SELECT kind, partition FROM alarm WHERE cleared_at IS NULL")
    assert kinds == [("postgres_behind", ann)]
    assert await engine.wallets.balance("ann") == 11

    async with writing(engine, database_url):
        with pytest.raises(RecoveryHeld):
            await Trust(engine).rebuild(connection, [ann], lambda *_: None)
        await Trust(engine).rebuild(connection, [ann], lambda *_: None, accept_loss=True)
    assert await engine.wallets.balance("ann") == 0
    assert await rows(connection, "SELECT epoch, last_seq FROM epoch_end WHERE partition = %s", ann) == [(1, 0)]
    assert (await engine.wallets.charge("ann", 1)).positions[0] == position_of(ann, "2-1")
    assert await value(connection, "SELECT count(*) FROM alarm WHERE cleared_at IS NULL") == 0


async def test_a_database_that_went_back_is_fed_again_from_the_kept_events(
    own_engine: Engine, own_valkey: EmbeddedValkey, connection: Connection, database_url: str
) -> None:
    """Over the end of an epoch that it has forgotten as well."""
    engine = own_engine
    await Trust(engine).look(connection)
    ann = engine.partitions.of("ann")
    await engine.wallets.charge("ann", 5)
    await engine.wallets.charge("ann", 6)
    await write_all(engine, database_url)
    server = await value(connection, "SELECT server FROM partition_cursor WHERE partition = %s", ann)
    await restart(own_valkey, engine)
    async with writing(engine, database_url):
        assert await Trust(engine).look(connection)
    await engine.wallets.charge("ann", 7)
    await write_all(engine, database_url)
    # Back to the moment after the first charge, when the first server was the trusted one.
    await connection.execute(
        "UPDATE partition_cursor SET epoch = 1, seq = 1, server = %s WHERE partition = %s", (server, ann)
    )
    await connection.execute("DELETE FROM epoch_end WHERE partition = %s", (ann,))
    await connection.execute("UPDATE installation SET generation = 1")
    await connection.execute("DELETE FROM ledger_entry WHERE seq > 1")
    await connection.execute("UPDATE wallet SET balance = 5, place = '1-1'")

    async with writing(engine, database_url):
        assert await Trust(engine).look(connection)

    assert await engine.wallets.balance("ann") == 18
    assert await value(connection, "SELECT balance FROM wallet") == 18
    assert await rows(connection, "SELECT epoch, amount FROM ledger_entry ORDER BY seq") == [(1, 5), (1, 6), (2, 7)]
    assert await rows(connection, "SELECT epoch, last_seq FROM epoch_end WHERE partition = %s ORDER BY 1", ann) == [
        (1, 2), (2, 3),
    ]  # fmt: skip
    meta = await engine.recovery.inspect(ann)
    assert meta is not None
    assert (meta.epoch, meta.generation) == (3, 3)


async def test_partitions_left_at_different_generations_are_made_equal(engine: Engine, connection: Connection) -> None:
    await connection.execute("UPDATE installation SET generation = 5")
    await engine.recovery.raise_generation(1, 5)

    assert await Trust(engine).look(connection)

    metas = [await engine.recovery.inspect(partition) for partition in range(4)]
    assert [meta.generation for meta in metas if meta] == [5, 5, 5, 5]


async def test_a_database_that_went_back_takes_up_the_highest_generation_there_is(
    engine: Engine, connection: Connection
) -> None:
    """Else partitions of different generations would never be made equal: a flow over two would be stale for ever."""
    await engine.recovery.raise_generation(1, 7)
    await engine.recovery.raise_generation(2, 5)

    assert await Trust(engine).look(connection)

    metas = [await engine.recovery.inspect(partition) for partition in range(4)]
    recorded = await rows(connection, "SELECT generation FROM installation")
    assert {meta.generation for meta in metas if meta} == {generation for (generation,) in recorded}


async def test_a_rebuild_from_a_database_that_knows_less_of_epochs_begins_one_that_redis_has_not_had(
    engine: Engine, connection: Connection, database_url: str
) -> None:
    """A position is never given twice."""
    ann = engine.partitions.of("ann")
    await engine.wallets.charge("ann", 5)
    await write_all(engine, database_url)
    async with writing(engine, database_url):
        await Trust(engine).rebuild(connection, [ann], lambda *_: None)
    before = (await engine.wallets.charge("ann", 6)).positions[0]
    await write_all(engine, database_url)
    await connection.execute("UPDATE partition_cursor SET epoch = epoch - 1, seq = 0 WHERE partition = %s", (ann,))
    await connection.execute("DELETE FROM epoch_end WHERE partition = %s", (ann,))

    async with writing(engine, database_url):
        await Trust(engine).rebuild(connection, [ann], lambda *_: None, accept_loss=True)

    assert (before.partition, before.epoch) == (ann, 2)
    assert (await engine.wallets.charge("ann", 1)).positions[0].epoch == 3


@pytest.mark.parametrize(
    ("epoch", "seq", "trusted"), [(2, 5, True), (2, 4, True), (2, 6, False), (1, 5, False), (3, 5, False)]
)
def test_a_partition_is_trusted_where_both_stores_are_in_one_epoch_and_redis_is_not_behind(
    epoch: int, seq: int, trusted: bool
) -> None:
    server = "run:replid"
    partition = Partition(0, server, Meta(FORMAT, server, 1, 2, 5, 5), Cursor(epoch, seq, server))

    assert partition.is_trusted is trusted
