"""The queue before a campaign: whoever asks it for a coupon in one tick of the event loop is served by one call.

A campaign is one partition's business, whatever the number of servers: what its calls cost Redis is the limit of a
coupon rush. Many users who are served together take Redis little more than one does.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from engine.runner import Flow, Reply, ScriptRunner
from engine.statuses import Status, status_of

SERVED_MAX = 64
"""Most users of one call: all of them take Redis less than a millisecond, in which it does nothing else."""

DEADLINE_STEP_S = 0.25
"""Who is served together has the earliest deadline of all, which is at most so much before its own."""


class _Line(NamedTuple):
    """Who may be served together: flows of one generation and time, whose deadlines are close."""

    campaign_id: str
    generation: str
    now_ms: str
    deadline_step: int


class _Asker(NamedTuple):
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
        self._lines: dict[_Line, list[_Asker]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, flow: Flow, campaign_id: str, user_id: str) -> Reply:
        """Ask for the campaign's next coupon, in the name of ``flow``. Raises as `ScriptRunner.change` does.

        Status `UNKNOWN`; `ISSUED` or `ALREADY_ISSUED` (place, issue); `NOT_OPEN` (opens at, closes at, now, ms);
        `EXHAUSTED` (quantity).
        """
        line = _Line(campaign_id, flow.generation, flow.now_ms, int(flow.deadline / DEADLINE_STEP_S))
        asker = _Asker(flow, user_id, asyncio.get_running_loop().create_future())
        askers = self._lines.get(line)
        if askers is not None:
            askers.append(asker)
            if len(askers) == SERVED_MAX:
                self._serve_until(line)
            return await asker.answer
        self._lines[line] = askers = [asker]
        try:
            await asyncio.sleep(0)  # the rest of the tick, in which others may come
        except BaseException:
            asker.answer.cancel()
            self._serve(line, askers)
            raise
        if len(askers) > 1 or self._lines.get(line) is not askers:
            self._serve(line, askers)
            return await asker.answer
        del self._lines[line]
        return _answer(await self._send(line, flow, askers), 0)

    def _serve_until(self, line: _Line) -> None:
        """Serve a line that is full, after those who have waited for longer."""
        for earlier, askers in [*self._lines.items()]:
            self._serve(earlier, askers)
            if earlier == line:
                return

    def _serve(self, line: _Line, askers: list[_Asker]) -> None:
        """Serve those in line, unless they have been: it was full before the tick was over."""
        if self._lines.get(line) is not askers:
            return
        del self._lines[line]
        waiting = [asker for asker in askers if not asker.answer.done()]
        if waiting:
            deadline = min(asker.flow.deadline for asker in waiting)
            requests = ",".join(asker.flow.request for asker in waiting)
            together = Flow(line.generation, deadline, line.now_ms, requests)
            # At once, not in the call's own task: who asks alone in the next line must not overtake this one.
            sent = self._send(line, together, waiting)
            call = asyncio.get_running_loop().create_task(self._call(together, sent, waiting))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _send(self, line: _Line, flow: Flow, askers: Sequence[_Asker]) -> Awaitable[Reply]:
        runner, keys = self._runner, self._runner.keys
        partition = runner.partitions.of(line.campaign_id)
        return runner.change(
            flow,
            partition,
            "issue_coupons",
            (
                keys.meta(partition),
                keys.events(partition),
                keys.campaign(partition, line.campaign_id),
                keys.issues(partition, line.campaign_id),
            ),
            (line.campaign_id, *(asker.user_id for asker in askers)),
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
