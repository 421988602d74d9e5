"""The load tests tell a right outcome from a wrong one, by their exit code."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator

import httpx
import psutil
import pytest

from api.authentication import make_token, read_keys
from api.commands.listening import free_port
from api.settings import ApiSettings
from loadtests.scenarios.outcome import check
from loadtests.scenarios.plan import CAMPAIGN, Plan, open_campaign, prepare
from loadtests.scenarios.tally import Tally
from loadtests.scenarios.watch import Watch
from tests.running_shop import ROOT, RunningShop
from tests.servers import Databases
from tests.shop_servers import opened_shop

SECRET = "of-the-load-tests-and-long-enough-for-HS256"
WRONG_OUTCOME = 3
NOT_PREPARED = 4
CUT_SHORT = 5
WITHIN_S = 60


@pytest.fixture(scope="module")
def shop(databases: Databases) -> Iterator[RunningShop]:
    with opened_shop(databases, api_count=2, token_secret=SECRET, user_rate=0, address_rate=0) as shop:
        yield shop


def locust(shop: RunningShop, *arguments: str) -> subprocess.Popen[str]:
    """Locust under way, headless."""
    command = ["-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary", "--host", shop.url()]
    settings = {
        "FIRSTCOME_TOKEN_SECRET": SECRET,
        "FIRSTCOME_REDIS_URL": shop.redis_url,
        "FIRSTCOME_DATABASE_URL": shop.database_url,
        "FIRSTCOME_AUDIT_AGE_MS": "1000",
    }
    return subprocess.Popen(
        [sys.executable, *command, *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def loadtest(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """What `make loadtest` runs, under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "loadtests.loadtest", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code and what was printed; it may take no longer than a minute."""
    try:
        printed, _ = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"Locust has not ended:\n{process.communicate()[0]}")
    return process.returncode, printed


def test_a_rush_of_sixty_for_twenty_coupons_by_two_load_generators_is_found_right(shop: RunningShop) -> None:
    """All ask twice at the same moment, and who has a coupon once more."""
    arguments = ("--tags", "rush", "--users", "60", "--spawn-rate", "60", "--coupons", "20", "--run-name", "small")
    impatient = ("--impatient", "100", "--opens-in", "1")
    port = str(free_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    code, printed = ended(locust(shop, *arguments, *impatient, "--processes", "2", *ports))
    assert code == 0, printed
    for line in (
        "20  coupon\n",
        "40  coupon: 409 coupon-already-issued",
        "80  coupon: 409 coupons-exhausted",
        "✓ load generators that told their counts: expected 2, found 2",
        "✓ rush-small: coupons issued: expected 20, found 20",
        "✓ exit code of `firstcome audit`: expected 0, found 0",
    ):
        assert line in printed


def test_a_coupon_that_no_user_of_the_load_test_was_answered_makes_the_exit_code_say_wrong(shop: RunningShop) -> None:
    arguments = ("--tags", "rush", "--users", "5", "--spawn-rate", "5", "--coupons", "50", "--run-name", "false")
    process = locust(shop, *arguments, "--audit", "off", "--opens-in", "1")
    took = take_a_coupon_as_a_stranger(shop, "rush-false")
    code, printed = ended(process)
    assert took
    assert code == WRONG_OUTCOME, printed
    assert "✗ rush-false: coupons issued: expected 5, found 6" in printed


def take_a_coupon_as_a_stranger(shop: RunningShop, campaign: str) -> bool:
    """Asks until the campaign is there and open; whether there was a coupon."""
    settings = ApiSettings(token_secret=SECRET)
    keys = read_keys(settings)
    assert keys is not None
    token = make_token(keys, settings, "stranger", is_operator=False, valid_s=WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    with httpx.Client(base_url=shop.url(1), headers={"Authorization": f"Bearer {token}"}, verify=False) as client:
        while time.monotonic() < deadline:
            if (
                client.post("/v1/users/stranger/coupons", json={"campaign_id": campaign}).status_code
                == httpx.codes.CREATED
            ):
                return True
            time.sleep(0.01)
    return False


def test_coupons_that_nobody_got_though_users_asked_are_found(shop: RunningShop) -> None:
    """Whatever they were told: none was left for the last of them, and there were more than that."""
    plan = Plan("unserved", (CAMPAIGN,), coupons=20, stock=1, products=1, begun_at=time.time())
    options = Namespace(settle=30.0, lag_max=0.0, audit="off")
    token = make_operator_token()
    with httpx.Client(base_url=shop.url(), headers={"Authorization": f"Bearer {token}"}, verify=False) as client:
        prepare(client, plan)
        plan = open_campaign(client, plan, 0.0)
        tally = Tally()
        tally.asked[plan.campaign] = 30
        found = {finding.what: finding for finding in check(client, plan, tally, Watch(), options)}
        unserved = found["rush-unserved: coupons for the 30 users who asked for one of 20"]
        assert (unserved.holds, unserved.expected, unserved.found) == (False, 20, 0)
        tally.uncertain[f"campaign:{plan.campaign}"] = 20
        found = {finding.what: finding for finding in check(client, plan, tally, Watch(), options)}
        assert all(finding.holds for finding in found.values()), "each of twenty may have one and does not know it"


def make_operator_token() -> str:
    settings = ApiSettings(token_secret=SECRET)
    keys = read_keys(settings)
    assert keys is not None
    return make_token(keys, settings, "operator", is_operator=True, valid_s=WITHIN_S)


@pytest.mark.parametrize("scenario", ["rush", "browse"])
def test_a_run_that_is_interrupted_before_its_users_have_done_anything_is_no_right_outcome(
    shop: RunningShop, scenario: str
) -> None:
    arguments = ("--tags", scenario, "--users", "40", "--spawn-rate", "2", "--opens-in", "60", "--audit", "off")
    process = locust(shop, *arguments)
    wait_for_line(process, "Ramping to 40 users")
    process.send_signal(signal.SIGTERM)
    code, printed = ended(process)
    assert code == CUT_SHORT, printed
    assert printed.rstrip().splitlines()[-1].startswith("The run was CUT SHORT: "), printed


def test_a_run_that_is_ended_while_it_is_checked_is_no_right_outcome(shop: RunningShop) -> None:
    arguments = ("--tags", "rush", "--users", "5", "--spawn-rate", "5", "--coupons", "50", "--opens-in", "1")
    shop.workers[0].signal(signal.SIGSTOP)
    try:
        # What nobody writes does not become durable, so the check waits.
        process = locust(shop, *arguments, "--audit", "off", "--settle", "50")
        wait_for_line(process, "All 5 users have done what they came for")
        process.send_signal(signal.SIGTERM)
        code, printed = ended(process)
    finally:
        shop.workers[0].signal(signal.SIGCONT)
    assert code == CUT_SHORT, printed
    assert "The outcome is right" not in printed
    assert printed.rstrip().splitlines()[-1].startswith("The run was CUT SHORT: "), printed


def test_a_load_generator_that_is_lost_ends_a_rush_that_would_wait_for_it(shop: RunningShop) -> None:
    arguments = ("--tags", "rush", "--users", "20", "--spawn-rate", "20", "--coupons", "5", "--opens-in", "20")
    port = str(free_port())
    ports = ("--master-bind-port", port, "--master-port", port)
    process = locust(shop, *arguments, "--audit", "off", "--processes", "2", *ports)
    wait_for_line(process, "All users spawned")
    child = psutil.Process(process.pid).children()[0]
    child.kill()
    code, printed = ended(process)
    assert code == WRONG_OUTCOME, printed
    assert "✗ load generators that told their counts: expected 2, found 1" in printed


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"Locust has ended without {text!r}")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_shop_that_is_not_there_ends_the_run_before_it_begins_and_the_remedy_is_named(processes: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, printed = ended(loadtest("--url", url, "--scenario", "shopping", "--users", "20", "--processes", processes))
    assert code == NOT_PREPARED, printed
    assert f"The shop at {url} cannot be prepared: " in printed
    assert f"Is the shop running at {url}? `make run` starts one." in printed
    for further in ("Ramping to", "All users spawned", "# reqs"):
        assert further not in printed


def test_a_shop_of_its_own_that_does_not_start_is_no_verdict_on_requests() -> None:
    code, printed = ended(loadtest("--scenario", "browse", FIRSTCOME_HOT_DAYS="few"))
    assert code == NOT_PREPARED, printed
    assert "Error: the shop has ended" in printed
    assert "FIRSTCOME_HOT_DAYS" in printed


@pytest.mark.soak
def test_make_loadtest_of_five_thousand_users_for_five_hundred_coupons_ends_with_0() -> None:
    command = ["make", "loadtest", "SCENARIO=rush", "USERS=5000", "ARGS=--coupons 500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "       500  coupon\n",
        "coupons issued: expected 500, found 500",
    ):
        assert line in done.stdout
