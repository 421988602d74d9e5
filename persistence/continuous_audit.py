"""The worker's audit: gently, for ever. What stays wrong is an alarm; an alarm that is right again is closed."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from engine.engine import Engine
from persistence.alarms import AUDIT_MISMATCH, Alarm, raise_alarm
from persistence.audited import SUBJECTS, Connection, Entity, Mark, Subject
from persistence.auditor import CHECKS, AuditLimits, Auditor, Mismatch
from persistence.database import translated
from persistence.settings import WorkerSettings

ALARMS_MAX = 20
"""Open alarms that are looked at again in one step."""

_REMEDY = (
    "Run `firstcome audit --full` to see all of it and find the cause; nothing is repaired by itself. Where an event"
    " was set aside, correct PostgreSQL by hand. The alarm closes when the audit finds it right"
)

_log = logging.getLogger("firstcome.auditor")


class ContinuousAudit:
    """Step by step through the partitions of a share, and through every table."""

    def __init__(self, engine: Engine, settings: WorkerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._limits = AuditLimits(
            page_rows=settings.audit_page_rows,
            age_s=settings.audit_age_ms / 1000,
            confirm_s=settings.audit_confirm_ms / 1000,
        )
        self._marks: dict[Subject, Mark | None] = dict.fromkeys(SUBJECTS)
        self._last = -1
        self.steps = self.compared = self.mismatches = 0

    async def run(self, connection: Connection, share: Callable[[], Sequence[int]]) -> None:
        """Audit until cancelled. Raises `DatabaseError`.

        It begins when whatever was left behind before the start has had its time to settle.
        """
        await asyncio.sleep(self._limits.age_s)
        while True:
            await self.step(connection, share())
            await asyncio.sleep(self._settings.audit_every_ms / 1000)

    async def step(self, connection: Connection, share: Sequence[int]) -> None:
        """The next partition's last changes, the next page of every table, and the alarms that are open."""
        if not share:
            return
        auditor = Auditor(self._engine, connection, self._limits)
        self._last = next((number for number in sorted(share) if number > self._last), min(share))
        await auditor.recent(self._last)
        for subject in SUBJECTS:
            # Each campaign's issues are counted: that is as much as a walk through them, so it is done once for each.
            if (
                subject is not Subject.CAMPAIGN
                or self._marks[Subject.ISSUE] is None
                or self._marks[subject] is not None
            ):
                self._marks[subject] = await auditor.walk(subject, self._marks[subject], share)
        self.steps += 1
        self.compared += sum(tally.compared for tally in auditor.report.tallies.values())
        self.mismatches += auditor.report.mismatches
        for mismatch in auditor.report.examples:
            await self._raise(connection, mismatch)
        await self._look_again(connection, share)

    async def _raise(self, connection: Connection, mismatch: Mismatch) -> None:
        entity = mismatch.entity
        subject = f"{mismatch.check}:{entity.name}"
        if await raise_alarm(connection, Alarm(AUDIT_MISMATCH, entity.partition, subject, mismatch.detail, _REMEDY)):
            _log.error("Mismatch: %s: %s. %s", subject, mismatch.detail, _REMEDY)

    async def _look_again(self, connection: Connection, share: Sequence[int]) -> None:
        """Close the alarms of the share whose entities are right again."""
        with translated():
            cursor = await connection.execute(
                """SELECT id, partition, subject FROM alarm
                   WHERE kind = %s AND cleared_at IS NULL AND partition = ANY(%s) ORDER BY random() LIMIT %s""",
                (AUDIT_MISMATCH, list(share), ALARMS_MAX),
            )
            alarms = await cursor.fetchall()
        auditor = Auditor(self._engine, connection, self._limits)
        for alarm_id, partition, subject in alarms:
            slug, _, name = subject.partition(":")
            check = next((check for check in CHECKS if check.slug == slug), None)
            if check is None:
                continue
            owner, _, id = name.rpartition(":")
            tally = auditor.report.tallies[slug]
            compared = tally.compared
            wrong = await auditor.examine([Entity(check.subject, partition, id, owner)], [check])
            if not wrong and tally.compared > compared:
                await self._close(connection, alarm_id)

    async def _close(self, connection: Connection, alarm_id: int) -> None:
        with translated():
            await connection.execute("UPDATE alarm SET cleared_at = now() WHERE id = %s", (alarm_id,))
