"""Runs schemathesis against a served API, in a process of its own, and reads how many cases it has tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
CHECKS: Final = "tests.contract.fuzzing_checks"
REPORT_LENGTH_MAX: Final = 8_000


def fuzz(url: str, folder: Path, *arguments: str, token: str, timeout_s: float) -> int:
    """Asks the API at `url` in every way that its specification suggests, with all checks; how many cases it made.

    AssertionError shows the first failures, with the requests that repeat them.
    """
    report = folder / "report.json"
    command = [
        sys.executable, "-m", "schemathesis.cli.__main__", "--config-file", str(CONFIG), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {token}", "--no-color",
        "--report", "json", "--report-json-path", str(report),
        *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": CHECKS, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout[-REPORT_LENGTH_MAX:] + done.stderr[-REPORT_LENGTH_MAX:]
    summary: Any = json.loads(report.read_text())
    return int(summary["test_cases"]["generated"])
