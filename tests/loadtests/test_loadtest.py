"""The command of the load tests says what there is, and refuses what there is not, before it starts anything."""

import json
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from loadtests import loadtest
from loadtests.scenarios.names import SCENARIOS, UnknownScenario, chosen
from loadtests.scenarios.options import PARAMETERS
from tests.tidy.project_files import ROOT

WRONG_USAGE = 2


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of every Locust that would have been started, with the shop; neither is."""
    begun: list[list[str]] = []

    @contextmanager
    def no_shop(*_: object) -> Iterator[None]:
        pytest.fail("a shop was started")
        yield

    def no_locust(_: str, arguments: list[str], *__: object) -> int:
        begun.append(arguments)
        return 0

    monkeypatch.setattr(loadtest, "_own_shop", no_shop)
    monkeypatch.setattr(loadtest, "_locust", no_locust)
    return begun


@pytest.mark.parametrize("arguments", [["--help"], ["--scenario", "rush", "--users", "100", "--", "--help"]])
def test_help_lists_the_scenarios_and_their_parameters_and_starts_nothing(
    arguments: list[str], started: list[list[str]]
) -> None:
    result = CliRunner().invoke(loadtest.main, arguments)
    assert (result.exit_code, started) == (0, []), result.output
    for scenario in SCENARIOS:
        assert f"{scenario.tag}, {scenario.name} " in result.output
    for parameter in PARAMETERS:
        assert f"--{parameter.name} " in result.output


@pytest.mark.parametrize("name", ["nope", "rush,nope", ""])
def test_a_scenario_that_there_is_not_is_refused_before_a_shop_is_started(name: str) -> None:
    result = CliRunner().invoke(loadtest.main, ["--scenario", name])
    assert result.exit_code == WRONG_USAGE
    assert "no scenario is called" in result.output
    assert "rush, sale, shopping" in " ".join(result.output.split())


def test_scenarios_are_chosen_by_tag_or_by_name_and_each_once(started: list[list[str]]) -> None:
    for text in ("browse,ChargeStorm", "Browse, charges browse"):
        CliRunner().invoke(loadtest.main, ["--url", "http://shop.example", "--scenario", text])
    assert [arguments[:3] for arguments in started] == [["--tags", "browse", "charges"]] * 2
    with pytest.raises(UnknownScenario):
        chosen("RUSH")


def test_only_scenarios_that_have_no_end_are_given_one(started: list[list[str]]) -> None:
    for text in ("rush,sale", "rush,shopping"):
        CliRunner().invoke(loadtest.main, ["--url", "http://shop.example", "--scenario", text])
    assert ["--run-time" in arguments for arguments in started] == [False, True]


def test_the_time_is_counted_from_when_all_users_are_there(started: list[list[str]]) -> None:
    """Locust counts it from the start; users come within five seconds, or one a second."""
    for users, text in (("100", "1h2m"), ("3", "90"), ("12", "5s")):
        CliRunner().invoke(loadtest.main, ["--url", "http://shop.example", "--users", users, "--run-time", text])
    assert [arguments[arguments.index("--run-time") + 1] for arguments in started] == ["3725s", "93s", "11s"]


@pytest.mark.parametrize("text", ["0", "0s", "abc", "", "-5s", "5x"])
def test_a_time_that_is_none_is_refused_before_a_shop_is_started(text: str) -> None:
    """Whatever the scenario: whoever gives a time has meant one."""
    result = CliRunner().invoke(loadtest.main, ["--scenario", "rush", "--run-time", text])
    assert result.exit_code == WRONG_USAGE
    assert "is no time: write 90, 90s, 20m, 4h or 1h30m" in result.output


@pytest.mark.parametrize("text", ["-1", "nan", "1e13", "many", "0"])
def test_a_number_out_of_its_range_is_refused(text: str) -> None:
    coupons = next(each for each in PARAMETERS if each.name == "coupons")
    with pytest.raises(ArgumentTypeError, match=f"{text} is no number from 1 to 1,000,000"):
        coupons.read(text)
    assert coupons.read("7") == 7


def test_the_names_are_those_of_the_scenarios_that_locust_runs() -> None:
    script = (
        "import json; from loadtests.locustfile import SCENARIOS; "
        "print(json.dumps([[each.scenario, each.__name__, each.one_shot] for each in SCENARIOS]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[each.tag, each.name, each.one_shot] for each in SCENARIOS]
