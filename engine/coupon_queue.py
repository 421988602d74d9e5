"""The queue before a campaign: whoever asks it for a coupon in one tick of the event loop is served by one call.

A campaign is one partition's business, whatever the number of servers: what its calls cost Redis is the limit of a
coupon rush. Many users who are served together take Redis little more than one does.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from msgspec import Struct

from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status, status_of

SERVED_MAX = 64
"""Most users of one call: all of them take Redis less than a millisecond, in which it does nothing else."""

DEADLINE_STEP_S = 0.25
"""Who is served together has the earliest deadline of all, which is at most so much before its own."""


class _BatchKey(NamedTuple):
    """What a call's users have in common: campaign, generation, time, and deadlines within `DEADLINE_STEP_S`."""

    campaign_id: str
    generation: str
    now_ms: str
    deadline_step: int


class _Asker(Struct, frozen=True):
    flow: Flow
    user_id: str
    answer: "asyncio.Future[Reply]"


class CouponQueue:
    """Belongs to one event loop. Users are served in the order in which they ask.

    Who comes first waits for the rest of the tick. Who is alone then asks alone, in its own task; several are asked for
    by a task of their own, so that one of them who goes away takes nothing from the others.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._batches: dict[_BatchKey, list[_Asker]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, flow: Flow, campaign_id: str, user_id: str) -> Reply:
        """Ask for the campaign's next coupon, in the name of ``flow``. Raises as `ScriptRunner.change` does.

        Status `UNKNOWN`; `ISSUED` or `ALREADY_ISSUED` (place, issue); `NOT_OPEN` (opens at, closes at, now, ms);
        `EXHAUSTED` (quantity).
        """
        batch = _BatchKey(campaign_id, flow.generation, flow.now_ms, int(flow.deadline / DEADLINE_STEP_S))
        asker = _Asker(flow, user_id, asyncio.get_running_loop().create_future())
        askers = self._batches.get(batch)
        if askers is not None:
            askers.append(asker)
            if len(askers) == SERVED_MAX:
                self._flush_through(batch)
            return await asker.answer
        self._batches[batch] = askers = [asker]
        try:
            await asyncio.sleep(0)  # the rest of the tick, in which others may come
        except BaseException:
            asker.answer.cancel()
            self._serve(batch, askers)
            raise
        if len(askers) > 1 or self._batches.get(batch) is not askers:
            self._serve(batch, askers)
            return await asker.answer
        del self._batches[batch]
        return _answer(await self._send(batch, flow, askers), 0)

    def _flush_through(self, batch: _BatchKey) -> None:
        """Serve a batch that is full, after those who have waited for longer."""
        for earlier, askers in [*self._batches.items()]:
            self._serve(earlier, askers)
            if earlier == batch:
                return

    def _serve(self, batch: _BatchKey, askers: list[_Asker]) -> None:
        """Serve those of a batch, unless they have been: it was full before the tick was over."""
        if self._batches.get(batch) is not askers:
            return
        del self._batches[batch]
        waiting = [asker for asker in askers if not asker.answer.done()]
        if waiting:
            deadline = min(asker.flow.deadline for asker in waiting)
            requests = ",".join(asker.flow.request for asker in waiting)
            together = Flow(batch.generation, deadline, batch.now_ms, requests)
            # At once, not in the call's own task: who asks alone in the next batch must not overtake this one.
            sent = self._send(batch, together, waiting)
            call = asyncio.get_running_loop().create_task(self._call(together, sent, waiting))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _send(self, batch: _BatchKey, flow: Flow, askers: Sequence[_Asker]) -> Awaitable[Reply]:
        runner, keys = self._runner, self._runner.keys
        partition = runner.partitions.of(batch.campaign_id)
        return runner.change(
            flow,
            partition,
            "issue_coupons",
            (
                keys.meta(partition),
                keys.events(partition),
                keys.campaign(partition, batch.campaign_id),
                keys.issues(partition, batch.campaign_id),
            ),
            (batch.campaign_id, *(asker.user_id for asker in askers)),
        )

    async def _call(self, together: Flow, sent: Awaitable[Reply], askers: Sequence[_Asker]) -> None:
        try:
            reply = await sent
            if together.sent_again:
                _note_sent_again(askers)
            for index, asker in enumerate(askers):
                if not asker.answer.done():
                    asker.answer.set_result(_answer(reply, index))
        except Exception as error:  # whatever it was, each of them waits for an answer
            _fail(askers, error)


def _fail(askers: Sequence[_Asker], error: Exception) -> None:
    for asker in askers:
        if not asker.answer.done():
            asker.answer.set_exception(error)


def _note_sent_again(askers: Sequence[_Asker]) -> None:
    """What a call finds that was sent again may be its own doing: an issue of before is no refusal then.

    But a user who asks twice has one coupon, so one of the two requests was refused: the second.
    """
    users = set()
    for asker in askers:
        if asker.user_id not in users:
            users.add(asker.user_id)
            asker.flow.sent_again = True


def _answer(reply: Reply, index: int) -> Reply:
    """What one of the users is told."""
    if reply.status is Status.UNKNOWN:
        return reply
    status, *values = reply.values[0][index]
    return Reply(status_of(status), values)
