"""Whoever is woken by an alert finds what to do: every alarm has a rule, every rule an entry in docs/operations.md."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from persistence import alarms
from persistence.alarms import KINDS
from tests.tidy.project_files import ROOT

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
OPERATIONS = ROOT / "docs" / "operations.md"
ALARM_EXPRESSION = re.compile(r'max\(firstcome_alarms_open\{kind="(\w+)"\}\) > 0')


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def entries() -> dict[str, str]:
    """The entries below `## Alarms` by their title."""
    section = OPERATIONS.read_text(encoding="utf-8").partition("\n## Alarms\n")[2].partition("\n## ")[0]
    return {entry.partition("\n")[0]: entry for entry in section.split("\n### ")[1:]}


def test_the_kinds_of_alarm_are_all_on_the_list() -> None:
    named = {value for name, value in vars(alarms).items() if name.isupper() and isinstance(value, str)}
    assert named == set(KINDS)


def test_every_kind_of_alarm_has_a_rule_and_an_entry() -> None:
    kinds = [found[1] for rule in rules() if (found := ALARM_EXPRESSION.fullmatch(rule["expr"]))]
    assert sorted(kinds) == sorted(KINDS)
    assert set(KINDS) <= entries().keys()


def test_every_rule_leads_to_an_entry_and_every_entry_is_led_to() -> None:
    anchors = {title.lower() for title in entries()}
    page = "docs/operations.md#"
    urls = [rule["annotations"]["runbook_url"] for rule in rules()]
    assert all(url.startswith(page) for url in urls)
    assert sorted(url.removeprefix(page) for url in urls) == sorted(anchors)


def test_every_entry_says_what_to_do() -> None:
    silent = [title for title, text in entries().items() if not re.search(r"^1\. \S", text, re.MULTILINE)]
    assert silent == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_rules_and_rings_for_every_alarm(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)
    ringing = [(rule, found[1]) for rule in rules() if (found := ALARM_EXPRESSION.fullmatch(rule["expr"]))]
    tests = [
        {
            "interval": "15s",
            "input_series": [{"series": f'firstcome_alarms_open{{kind="{kind}",instance="a"}}', "values": "0x4 1x40"}],
            "alert_rule_test": [
                {"eval_time": "30s", "alertname": rule["alert"], "exp_alerts": []},
                {
                    "eval_time": "5m",
                    "alertname": rule["alert"],
                    "exp_alerts": [{"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}],
                },
            ],
        }
        for rule, kind in ringing
    ]
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
