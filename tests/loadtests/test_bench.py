"""The benchmark's own conscience: it measures what happened, and a wrong outcome fails it."""

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from api.commands.processes import ProcessFailed
from loadtests import traffic
from loadtests.bench import Run, main
from loadtests.ceilings import COPY_BATCH, COPY_BATCHES
from loadtests.generators import closed_loop_generator
from loadtests.measure import Plan, measure
from loadtests.systems import Firstcome, OneScript, WrongOutcome
from loadtests.tables import of, ratios, summary
from tests.servers import reachable_folder

TINY = Plan(seconds=0.3, connections=4, rate=100)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers of its own live, of a shop that is stocked within a second."""
    monkeypatch.setattr(traffic, "USERS", 40)
    monkeypatch.setattr(traffic, "PRODUCTS", 10)
    folder = reachable_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_tiny_run_measures_firstcome_and_finds_every_law_kept(folder: Path) -> None:
    run = Run(0.3, 1, 4, [traffic.COUPON, traffic.CHECKOUT_GONE], short=True)
    run.system(Firstcome, folder)
    run.once_more(Firstcome, folder / "again", 1)
    results = run.results()
    coupons, gone = of(results, "firstcome", "coupon"), of(results, "firstcome", "checkout-gone")
    assert coupons is not None
    assert gone is not None
    assert coupons["durable_per_s"] > 0
    assert coupons["cpu_us"].keys() == {"api", "redis", "worker", "postgres", "generator"}
    assert (coupons["refused"], gone["accepted"]) == (0, 0)
    assert results["outcome_checked"] == ["firstcome"]
    assert "coupon issue" in summary(results)
    (again,) = results["rounds"]
    assert (again["round"], again["system"], again["path"]) == (1, "firstcome", "coupon")
    assert again["durable_per_s"] > 0


def test_systems_are_compared_within_each_round() -> None:
    def found(system: str, rate: float, **more: int) -> dict[str, Any]:
        durable = rate if system == "firstcome" else None
        figures = {
            "system": system,
            "path": "coupon",
            "loop": "closed",
            "accepted_per_s": rate,
            "durable_per_s": durable,
        }
        return figures | more

    first = [found("firstcome", 1_000), found("one-script", 500), found("redis-locks", 100)]
    once = {"figures": first}
    again = [found("firstcome", 300, round=1), found("one-script", 100, round=1)]
    third = [found("firstcome", 400, round=2), found("one-script", 400, round=2)]

    assert ratios(once) == [["coupon issue", "", "10.0 x", "2.0 x"]]
    assert ratios({**once, "rounds": again + third}) == [["coupon issue", "", "10.0 x", "2.0 x (1.0 to 3.0)"]]


def test_the_ceilings_and_what_no_client_asks_for_are_measured(folder: Path) -> None:
    run = Run(0.3, 1, 4, [], short=True, extras=True)
    run.system(Firstcome, folder)
    found = run.results()["ceilings"]
    assert found["bare echo"]["answered_per_s"] > 0
    assert found["best sellers"]["p99_ms"] > 0
    assert all(found[f"{path} without HTTP"]["durable_per_s"] > 0 for path in ("coupon", "checkout"))
    assert found["COPY"]["orders"] == COPY_BATCH * COPY_BATCHES
    assert round(found["writer catching up"]["redis_calls_per_order"], 1) <= 3
    assert found["rebuild of Redis"]["rows"] > 0


def test_an_order_that_was_answered_and_is_not_on_record_fails_the_run(folder: Path) -> None:
    class Forgetful(OneScript):
        application = "tests.loadtests.sabotaged:make_app"

    with Forgetful(folder, 1) as system, pytest.raises(WrongOutcome, match="more orders on record"):
        measure(system, traffic.CHECKOUT, TINY)


@pytest.mark.parametrize(
    ("path", "told"),
    [(traffic.COUPON_GONE, "500 and not coupons-exhausted"), (traffic.COUPON, "nothing was accepted")],
)
def test_failures_are_neither_refusals_nor_a_rate(folder: Path, path: traffic.Path, told: str) -> None:
    class Failing(OneScript):
        application = "tests.loadtests.sabotaged:make_failing"
        starves = True  # which is forgiven single requests, and not all of them

    with Failing(folder, 1) as system, pytest.raises(WrongOutcome, match=told):
        measure(system, path, TINY)


def test_refusals_under_load_that_are_not_the_one_meant_fail_the_run(folder: Path) -> None:
    class Lenient(Firstcome):
        starves = True  # so that it is not the number of refusals that fails the run

    with Lenient(folder, 1) as system:
        assert measure(system, traffic.COUPON_GONE, TINY).refused > 0
        with pytest.raises(WrongOutcome, match=r"coupon, none left: answered \d+ times coupons-exhausted$"):
            measure(system, replace(traffic.COUPON_GONE, refusal=""), TINY)


def test_refusals_that_the_shop_knows_nothing_of_fail_the_run(folder: Path) -> None:
    class Uncounted(Firstcome):
        def refusals(self) -> Counter[str]:
            return Counter()

    with Uncounted(folder, 1) as system, pytest.raises(WrongOutcome, match=r"\d+ refused, 0 with coupons-exhausted$"):
        measure(system, traffic.COUPON_GONE, TINY)


@pytest.mark.skipif(closed_loop_generator() != "wrk", reason="python_load itself fails where it is not answered")
@pytest.mark.parametrize(
    ("warm_up_s", "told"), [(0.0, "coupon issue: nothing was answered$"), (0.5, "nothing was answered in 0.5 s$")]
)
def test_what_answers_nothing_has_no_figures(
    folder: Path, warm_up_s: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is open still, so requests are taken in."""
    monkeypatch.setattr("loadtests.generators.WRK_TIMEOUT_S", 1)
    with OneScript(folder, 1) as system:
        system.apis[0].signal(signal.SIGSTOP)
        try:
            with pytest.raises(WrongOutcome, match=told):
                measure(system, traffic.COUPON, Plan(seconds=0.5, connections=4, warm_up_s=warm_up_s))
        finally:
            system.apis[0].signal(signal.SIGCONT)


def test_a_process_that_ends_ends_the_run(folder: Path) -> None:
    with OneScript(folder, 2) as system:
        measure(system, traffic.COUPON, TINY)
        system.apis[1].signal(signal.SIGKILL)
        with pytest.raises(ProcessFailed, match="api-2 was ended from outside, by SIGKILL"):
            measure(system, traffic.COUPON, Plan(seconds=1.0, connections=16))


def test_numbers_that_were_given_twice_are_found(folder: Path) -> None:
    with OneScript(folder, 1) as system:
        measure(system, traffic.COUPON, TINY)
        assert system.broken_laws() == []
        coupons = system.redis.hgetall(f"issued:{traffic.CAMPAIGN}")
        one, other = list(coupons)[:2]
        system.redis.hset(f"issued:{traffic.CAMPAIGN}", one, coupons[other])
        assert system.broken_laws() == [f"{len(coupons)} coupons have {len(coupons) - 1} numbers"]


def test_units_that_went_elsewhere_are_found(folder: Path) -> None:
    with OneScript(folder, 1) as system:
        measure(system, traffic.CHECKOUT, TINY)
        assert system.broken_laws() == []
        system.redis.hincrby("product:product-3", "available:one", -1)
        assert system.broken_laws() == ["units went elsewhere: ['product-3']"]


@pytest.mark.parametrize("asked", [("--only", "nope"), ("--path", "nope")])
def test_what_there_is_not_is_not_measured(asked: tuple[str, str]) -> None:
    result = CliRunner().invoke(main, asked)

    assert result.exit_code == 2
    assert "checkout-hot" in result.output or "row-locks" in result.output
    assert "every law holds" not in result.output


def test_a_baseline_that_accepts_nothing_has_no_ratio() -> None:
    figures = {"path": "coupon", "loop": "closed", "durable_per_s": None, "answered_per_s": 0.0}
    found = [
        figures | {"system": name, "accepted_per_s": rate} for name, rate in (("firstcome", 9), ("redis-locks", 0))
    ]

    assert ratios({"figures": found}) == []
