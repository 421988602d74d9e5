"""Whoever is woken by an alert finds what to do: every alarm has a rule, every rule an entry in docs/operations.md,
which the shop serves at `/runbook`; each kind of alarm is brought about in a test, and every rule rings."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from persistence import alarms
from persistence.alarms import KINDS
from tests.faults.test_alarms import PROVOCATIONS
from tests.tidy.project_files import ROOT
from tests.tidy.runbook import SERVED, section

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
ALARM_EXPRESSION = re.compile(r'max\(firstcome_alarms_open\{kind="(\w+)"\}\) > 0')


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def entries() -> dict[str, str]:
    """The entries below `## Alarms` by their title."""
    return {entry.partition("\n")[0]: entry for entry in section().removeprefix("### ").split("\n### ")}


def test_the_shop_serves_the_entries_as_they_are() -> None:
    assert SERVED.read_text(encoding="utf-8") == section(), "run: make docs"


def test_the_kinds_of_alarm_are_all_on_the_list() -> None:
    named = {value for name, value in vars(alarms).items() if name.isupper() and isinstance(value, str)}
    assert named == set(KINDS)


def test_every_kind_of_alarm_is_brought_about_in_a_test() -> None:
    assert sorted(PROVOCATIONS) == sorted(KINDS)


def test_every_kind_of_alarm_has_a_rule_and_an_entry() -> None:
    kinds = [found[1] for rule in rules() if (found := ALARM_EXPRESSION.fullmatch(rule["expr"]))]
    assert sorted(kinds) == sorted(KINDS)
    assert set(KINDS) <= entries().keys()


def test_every_rule_leads_to_an_entry_and_every_entry_is_led_to() -> None:
    anchors = {title.lower() for title in entries()}
    page = "{{ $externalLabels.shop }}/runbook#"
    urls = [rule["annotations"]["runbook_url"] for rule in rules()]
    assert all(url.startswith(page) for url in urls)
    assert sorted(url.removeprefix(page) for url in urls) == sorted(anchors)


def test_every_entry_says_what_to_do() -> None:
    silent = [title for title, text in entries().items() if not re.search(r"^1\. \S", text, re.MULTILINE)]
    assert silent == []


@dataclass(frozen=True)
class Ringing:
    """Series that must make a rule ring by ``after``, and at ``before`` not yet."""

    series: dict[str, str]
    before: str = "30s"
    after: str = "10m"
    labels: dict[str, str] = field(default_factory=dict)


API = {"job": "firstcome-api", "instance": "a"}
WORKER = {"job": "firstcome-worker", "instance": "a"}
DUTY = {"duty": "writer", "instance": "a"}
METRIC_RULES = {
    "FirstcomeApiDown": Ringing({'up{job="firstcome-api",instance="a"}': "1x2 0x60"}, labels=API),
    "FirstcomeNoWorker": Ringing({'up{job="firstcome-worker"}': "1x2 0x60"}),
    "FirstcomeWorkerDown": Ringing({'up{job="firstcome-worker",instance="a"}': "1x2 0x60"}, labels=WORKER),
    "FirstcomeLag": Ringing({'firstcome_partition_lag_seconds{partition="3"}': "0x4 6x60"}),
    "FirstcomeBacklog": Ringing(
        {
            'firstcome_partition_backlog_events{partition="3"}': "0x4 501x60",
            "firstcome_backlog_limit_events": "1000x64",
        }
    ),
    "FirstcomeUntrusted": Ringing({'firstcome_partition_trusted{partition="3"}': "1x4 0x60"}),
    "FirstcomeBlind": Ringing({"firstcome_watch_age_seconds": "2x4 31x60"}),
    "FirstcomeDutyDown": Ringing({'firstcome_duty_running{duty="writer",instance="a"}': "1x4 0x60"}, labels=DUTY),
    "FirstcomeFailures": Ringing({'firstcome_refusals_total{problem="internal-error"}': "0x4 1x60"}, after="3m"),
    "FirstcomeOverloaded": Ringing({'firstcome_refusals_total{problem="overloaded"}': "0x4 0+60x60"}),
    "FirstcomeUnknownOutcomes": Ringing({'firstcome_refusals_total{problem="outcome-unknown"}': "0x4 0+1x60"}),
    "FirstcomeSlow": Ringing(
        {
            'firstcome_request_seconds_bucket{operation="checkout",le="0.5"}': "0x4 0+9x60",
            'firstcome_request_seconds_bucket{operation="checkout",le="1.0"}': "0x4 0+10x60",
            'firstcome_request_seconds_bucket{operation="checkout",le="+Inf"}': "0x4 0+10x60",
        },
        after="12m",
    ),
    "FirstcomeReconnecting": Ringing(
        {'firstcome_lane_connections_total{job="a"}': "1x4 1+1x60"}, after="9m", labels={"job": "a"}
    ),
}
"""What only the metrics show, rule by rule."""


def test_every_rule_that_is_of_no_alarm_is_rung() -> None:
    assert METRIC_RULES.keys() == {rule["alert"] for rule in rules() if not ALARM_EXPRESSION.fullmatch(rule["expr"])}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_rules_and_each_rings_when_it_must(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)
    file = tmp_path / "test.yml"
    tests = [_promtool_test(rule) for rule in rules()]
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _promtool_test(rule: dict[str, Any]) -> dict[str, Any]:
    found = ALARM_EXPRESSION.fullmatch(rule["expr"])
    if found:
        ringing = Ringing({f'firstcome_alarms_open{{kind="{found[1]}",instance="a"}}': "0x4 1x40"}, after="5m")
    else:
        ringing = METRIC_RULES[rule["alert"]]
    annotations = {
        name: text.replace("{{ $externalLabels.shop }}", "https://shop.example")
        for name, text in rule["annotations"].items()
    }
    rung = {"exp_labels": rule["labels"] | ringing.labels, "exp_annotations": annotations}
    return {
        "interval": "15s",
        "external_labels": {"shop": "https://shop.example"},
        "input_series": [{"series": name, "values": values} for name, values in ringing.series.items()],
        "alert_rule_test": [
            {"eval_time": ringing.before, "alertname": rule["alert"], "exp_alerts": []},
            {"eval_time": ringing.after, "alertname": rule["alert"], "exp_alerts": [rung]},
        ],
    }
