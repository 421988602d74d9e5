"""One run over all load generators: the plan goes out to them, what they counted comes back, then it is checked.

Locust's own order of stopping leaves a worker half a second to report, whatever its users are waiting for. So before it
stops anything, the master asks the workers to let what is under way end, and waits for what they have counted.
"""

from __future__ import annotations

import logging
import random
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import gevent
import httpx
from gevent.event import Event
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from engine.settings import SettingError
from loadtests.scenarios.outcome import Finding, check, printed, verdict
from loadtests.scenarios.plan import CUT_SHORT, NOT_PREPARED, Plan, admin_client, make_plan, open_campaign, prepare
from loadtests.scenarios.tally import Tally
from loadtests.scenarios.watch import EVERY_S, Watch

log = logging.getLogger("firstcome")
logging.getLogger("httpx").setLevel(logging.WARNING)

UNDER_WAY_S_MAX: Final = 15.0
"""What is under way when a run ends has so long to be answered."""
REPORTS_S_MAX: Final = UNDER_WAY_S_MAX + 15.0
SENT_WITHIN_S: Final = 0.5
"""What is told to load generators is on its way by then."""
POLL_S: Final = 0.05


class Session:
    """What the users of this process share, and, in the master or the only process, the whole run.

    Users take `plan` once `prepared` is set, wait for `opened`, and begin nothing any more once `closing` is set.
    """

    def __init__(self, environment: Environment, *, needs: Collection[str], one_shot: bool) -> None:
        assert environment.runner is not None
        self._environment = environment
        self._runner = environment.runner
        self._needs = needs
        self._one_shot = one_shot
        # Load generators that were forked from one process would else draw the same numbers.
        random.seed()
        self.token = secrets.token_hex(4)
        self.plan: Plan
        self.tally = Tally()
        self.prepared, self.opened, self.closing = Event(), Event(), Event()
        self._under_way = 0
        self._watch = Watch()
        self._finished: dict[str, int] = {}
        self._generators: set[str] = set()
        self._reports: dict[str, Tally] = {}
        self._checked = True
        self._wanted = 0
        self._verdict = ""
        events = environment.events
        events.test_start.add_listener(self._test_start)
        if isinstance(self._runner, WorkerRunner):
            self._listen("firstcome_plan", self._take_plan)
            self._listen("firstcome_close", self._close_and_report, concurrent=True)
            events.report_to_master.add_listener(self._report_finished)
            return
        if isinstance(self._runner, MasterRunner):
            self._listen("firstcome_plan_wanted", self._send_plan)
            self._listen("firstcome_tally", self._take_tally)
            events.worker_report.add_listener(self._worker_report)
        events.spawning_complete.add_listener(self._spawning_complete)
        events.test_stopping.add_listener(self._test_stopping)
        events.test_stop.add_listener(self._test_stop)
        events.quitting.add_listener(self._quitting)
        events.quit.add_listener(self._quit)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Holds up the end of the run; raises StopUser once that has come."""
        if self.closing.is_set():
            raise StopUser
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def user_finished(self) -> None:
        """One more user has done all that it came for."""
        self.tally.finished += 1
        if isinstance(self._runner, LocalRunner):
            self._end_when_all_have_finished(self.tally.finished)

    # A run, in the order of its steps; the master or the only process

    def _test_start(self, **_: Any) -> None:
        # Users hold on to the tally of their run, so a new run has a new one.
        self.tally = Tally()
        self._finished, self._generators, self._reports = {}, set(), {}
        # What is left of an earlier run keeps the events of that run.
        self.prepared, self.opened, self.closing = Event(), Event(), Event()
        if isinstance(self._runner, WorkerRunner):
            self._runner.send_message("firstcome_plan_wanted")
            return
        self._checked = False
        self._verdict = ""
        self._wanted = 0
        # Until there is a verdict; a run may be ended at any moment.
        self._environment.process_exit_code = CUT_SHORT
        try:
            self.plan = make_plan(self._environment.parsed_options, self._needs)
            with self._admin() as client:
                prepare(client, self.plan)
        except (httpx.HTTPError, SettingError) as error:
            self._give_up(error)
            return
        self.prepared.set()
        self._watch = Watch()
        gevent.spawn(self._keep_watch, self._watch, self.closing)

    def _give_up(self, error: Exception) -> None:
        """Ends the run before there are users; without a web page also the process, which has no figures to print."""
        log.error("The shop at %s cannot be prepared: %s", self._environment.host, _told(error))
        if isinstance(error, httpx.NetworkError | httpx.TimeoutException):
            log.error("Is the shop running at %s? `make run` starts one.", self._environment.host)
        self._checked = True
        self._environment.process_exit_code = NOT_PREPARED
        if self._environment.web_ui:
            gevent.spawn(self._runner.quit)
            return
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message("quit")
            gevent.sleep(SENT_WITHIN_S)
        raise SystemExit(NOT_PREPARED)

    def _keep_watch(self, watch: Watch, closing: Event) -> None:
        with self._admin() as client:
            while not closing.wait(EVERY_S):
                watch.look(client)
                if isinstance(self._runner, MasterRunner) and self._runner.worker_count < len(self._generators):
                    log.error("A load generator is lost: nobody can tell any more what its users were answered")
                    self.closing.set()
                    gevent.spawn(self._runner.quit)

    def _spawning_complete(self, **_: Any) -> None:
        if not self.prepared.is_set() or self.opened.is_set():
            return
        self._wanted = self._runner.target_user_count
        try:
            with self._admin() as client:
                self.plan = open_campaign(client, self.plan, self._environment.parsed_options.opens_in)
        except httpx.HTTPError as error:
            log.error("The campaign cannot be opened: %s", _told(error))
            gevent.spawn(self._runner.quit)
            return
        self.opened.set()
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message("firstcome_plan", self.plan.as_message())

    def _end_when_all_have_finished(self, finished: int) -> None:
        everybody = finished >= self._runner.target_user_count
        if self._one_shot and everybody and self.opened.is_set() and not self.closing.is_set():
            self.closing.set()
            log.info("All %d users have done what they came for", finished)
            gevent.spawn(self._runner.stop if self._environment.web_ui else self._runner.quit)

    def _test_stopping(self, **_: Any) -> None:
        self.closing.set()
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message("firstcome_close")
            self._wait_for(lambda: len(self._reports) >= self._runner.worker_count, REPORTS_S_MAX)
        else:
            self._wait_for(lambda: self._under_way == 0, UNDER_WAY_S_MAX)

    def _test_stop(self, **_: Any) -> None:
        """Checks the outcome once, and sets the exit code."""
        if self._checked:
            return
        self._checked = True
        tally: Tally = self.tally
        findings: list[Finding] = []
        if isinstance(self._runner, MasterRunner):
            tally = Tally()
            for report in self._reports.values():
                tally.add(report)
            told = len(self._reports)
            findings.append(Finding("load generators that told their counts", len(self._generators), told))
        findings += self._whether_all_came(tally)
        try:
            with self._admin() as client:
                findings += check(client, self.plan, tally, self._watch, self._environment.parsed_options)
        except httpx.HTTPError as error:
            findings.append(Finding("looks at what the shop holds", 1, 0, detail=_told(error)))
        sys.stdout.write(printed(self.plan, tally, self._watch, findings) + "\n")
        sys.stdout.flush()
        # None leaves the code to Locust, which says 1 where requests failed.
        self._verdict, self._environment.process_exit_code = verdict(findings)

    def _whether_all_came(self, tally: Tally) -> list[Finding]:
        wanted = self._wanted or self._environment.parsed_options.num_users or 1
        if self._one_shot:
            return [Finding("users who did what they came for", wanted, tally.finished, of_the_run=True)]
        idle = int(not tally.answered)
        return [
            Finding("users who were there at once", wanted, self._wanted, of_the_run=True),
            Finding("runs in which nothing was done", 0, idle, of_the_run=True),
        ]

    def _quit(self, exit_code: int, **_: Any) -> None:
        """The last line."""
        if not self._verdict and exit_code == CUT_SHORT and not isinstance(self._runner, WorkerRunner):
            self._verdict = "The run was CUT SHORT: nobody knows what the shop holds, as it was not checked."
        if self._verdict:
            failed = self._environment.stats.total.num_failures
            more = f" But {failed:,} requests failed." if failed else ""
            sys.stdout.write(f"{self._verdict}{more} Exit code {exit_code}.\n")
            sys.stdout.flush()

    def _quitting(self, **_: Any) -> None:
        # After Ctrl-C nothing has been stopped yet, and the exit code is read after this.
        self._runner.stop()

    # Messages between master and workers

    def _listen(self, kind: str, listener: Callable[..., None], *, concurrent: bool = False) -> None:
        self._runner.register_message(kind, listener, concurrent=concurrent)

    def _send_plan(self, msg: Any, **_: Any) -> None:
        self._generators.add(msg.node_id)
        if self.prepared.is_set():
            self._runner.send_message("firstcome_plan", self.plan.as_message(), msg.node_id)

    def _take_plan(self, msg: Any, **_: Any) -> None:
        self.plan = Plan(**msg.data)
        self.prepared.set()
        if self.plan.opens_at is not None:
            self.opened.set()

    def _report_finished(self, data: dict[str, Any], **_: Any) -> None:
        data["firstcome_finished"] = self.tally.finished

    def _worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        self._finished[client_id] = data.get("firstcome_finished", 0)
        self._end_when_all_have_finished(sum(self._finished.values()))

    def _close_and_report(self, **_: Any) -> None:
        self.closing.set()
        self._wait_for(lambda: self._under_way == 0, UNDER_WAY_S_MAX)
        self._runner.send_message("firstcome_tally", self.tally.as_message())

    def _take_tally(self, msg: Any, **_: Any) -> None:
        self._reports[msg.node_id] = Tally.from_message(msg.data)

    def _admin(self) -> httpx.Client:
        return admin_client(str(self._environment.host))

    @staticmethod
    def _wait_for(condition: Callable[[], bool], at_most_s: float) -> None:
        deadline = time.monotonic() + at_most_s
        while not condition() and time.monotonic() < deadline:
            gevent.sleep(POLL_S)


def _told(error: Exception) -> str:
    """What a shop's refusal says, or another error."""
    if not isinstance(error, httpx.HTTPStatusError):
        return str(error)
    answer = error.response
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.reason_phrase
    remedy = " FIRSTCOME_TOKEN_SECRET must be the shop's." if answer.status_code in {401, 403} else ""
    return f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {detail}{remedy}"
