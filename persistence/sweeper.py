"""The sweeper: what is overdue. Unpaid orders past their deadline, and reservations that a flow has left behind."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from engine.engine import Engine
from engine.errors import EngineError, MayBeCold
from engine.packed_lines import products_of
from engine.statuses import Status
from engine.together import answers_of, parts
from persistence.alarms import clear_passed
from persistence.cooler import Cooler, hot_ms
from persistence.database import translated
from persistence.settings import WorkerSettings
from persistence.settler import Confirm, Release, Settler
from persistence.spent_keys import forget_old

FINISHED_FOR_S = 2.0
"""The API gives back, and the fast path confirms, within this time; the walk does what they did not."""

_FIRST = (datetime(1970, 1, 1, tzinfo=UTC), 0, UUID(int=0))
_FIRST_DUE = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class Sweeper:
    """Looks in PostgreSQL, acts through the engine. Each call is a step of bounded size."""

    def __init__(self, engine: Engine, settler: Settler, settings: WorkerSettings) -> None:
        self._engine = engine
        self._settler = settler
        self._settings = settings
        self._cooler = Cooler(engine, settings, hot_ms(settings, engine.settings))
        self.expired = self.voided = self.walked = self.cooled = 0
        self._walked_to: tuple[datetime, int, UUID] = _FIRST
        self._expired_to: tuple[datetime, UUID] = _FIRST_DUE

    async def step(self, connection: AsyncConnection[TupleRow], share: Sequence[int]) -> None:
        """One step of everything, for the partitions of this share. Raises `DatabaseError`."""
        await self.expire(connection, share)
        await self.walk(connection, share)
        await self._settler.grant(connection, share)
        self.cooled += await self._cooler.step(connection, share)
        await clear_passed(connection)
        await forget_old(connection)

    async def expire(self, connection: AsyncConnection[TupleRow], share: Sequence[int]) -> int:
        """Fail the next orders past their deadline, round and round, and give back what they hold; how many expired.

        What has expired is due here until PostgreSQL has it, in a stopped partition for long: others have their turn.
        """
        with translated():
            cursor = await connection.execute(
                """SELECT pay_before, order_id, user_id FROM orders
                   WHERE status = 'awaiting_payment' AND pay_before <= now() AND (pay_before, order_id) > (%s, %s)
                     AND partition = ANY(%s)
                   ORDER BY pay_before, order_id LIMIT %s""",
                (*self._expired_to, list(share), self._settings.settle_in_flight_max),
            )
            rows = await cursor.fetchall()
        self._expired_to = rows[-1][:2] if len(rows) == self._settings.settle_in_flight_max else _FIRST_DUE
        expired = 0
        expire = self._engine.orders.expire
        for answer in await answers_of(expire(user_id, str(order_id)) for _, order_id, user_id in rows):
            if isinstance(answer, EngineError):
                continue
            status, positions = answer
            if status is Status.EXPIRED:
                expired += 1
                # The first is the order's own.
                self._settler.released += len(positions) - 1
        self.expired += expired
        return expired

    async def walk(self, connection: AsyncConnection[TupleRow], share: Sequence[int]) -> int:
        """The next stretch of all held reservations, oldest first and round again; how many rows it had.

        A completed order's is confirmed, a failed one's released. One whose order nobody knows after a while belongs
        to a flow that died: `void` says what became of it, and then there is never an order.
        """
        with translated():
            cursor = await connection.execute(
                """SELECT r.at, r.partition, r.order_id, r.user_id, r.lines, o.status,
                          (extract(epoch FROM o.paid_at) * 1000)::bigint,
                          o.finished_at < now() - %s * interval '1 s',
                          r.at < now() - %s * interval '1 ms'
                   FROM (SELECT at, partition, order_id, user_id, lines FROM reservation
                         WHERE state = 'held' AND (at, partition, order_id) > (%s, %s, %s) AND partition = ANY(%s)
                         ORDER BY at, partition, order_id LIMIT %s) r
                   LEFT JOIN orders o ON o.order_id = r.order_id
                   ORDER BY r.at, r.partition, r.order_id""",
                (
                    FINISHED_FOR_S,
                    self._settings.orphan_age_ms,
                    *self._walked_to,
                    list(share),
                    self._settings.walk_rows_max,
                ),
            )
            rows = await cursor.fetchall()
        self._walked_to = rows[-1][:3] if len(rows) == self._settings.walk_rows_max else _FIRST
        self.walked += len(rows)
        confirms, releases, orphans = [], [], []
        for _, partition, order_id, user_id, lines, status, paid_at_ms, is_over, is_old in rows:
            release = Release(partition, str(order_id), products_of(lines))
            if status is None and is_old:
                orphans.append((user_id, release))
            elif status == "completed" and is_over:
                day = self._settler.day_of(paid_at_ms)
                confirms.append(Confirm(partition, release.order_id, release.product_ids, day))
            elif status in {"failed", "void"} and is_over:
                releases.append(release)
        await self._settler.confirm(connection, confirms)
        await self._settler.release(connection, releases + await self._void(connection, orphans))
        return len(rows)

    async def _void(
        self, connection: AsyncConnection[TupleRow], orphans: Sequence[tuple[str, Release]]
    ) -> list[Release]:
        """Those whose order never will be. One that is on record after all is soon in PostgreSQL too, and only what is
        there may be acted on: Redis may yet lose that it has failed.
        """
        answers = await self._void_all([(user_id, release, "") for user_id, release in orphans])
        over = [orphan[1] for orphan, answer in zip(orphans, answers, strict=True) if answer == "void"]
        cold = [
            (user_id, release, answer.asked)
            for (user_id, release), answer in zip(orphans, answers, strict=True)
            if isinstance(answer, MayBeCold)
        ]
        if cold:
            # They began so long ago that they may have left Redis; but PostgreSQL did not know them, and is asked anew.
            with translated():
                cursor = await connection.execute(
                    "SELECT order_id::text FROM orders WHERE order_id = ANY(%s::uuid[])",
                    ([release.order_id for _, release, _ in cold],),
                )
                known = {order_id for (order_id,) in await cursor.fetchall()}
            cold = [each for each in cold if each[1].order_id not in known]
            answers = await self._void_all(cold)
            over += [each[1] for each, answer in zip(cold, answers, strict=True) if answer == "void"]
        self.voided += len(over)
        return over

    async def _void_all(self, orphans: Sequence[tuple[str, Release, str]]) -> list[str | EngineError]:
        void = self._engine.orders.void
        answers: list[str | EngineError] = []
        for some in parts(orphans, self._settings.settle_in_flight_max):
            answers += await answers_of(void(user_id, release.order_id, asked) for user_id, release, asked in some)
        return answers
