"""Puts the section about alarms of docs/operations.md into the package: `python -m tests.tidy.runbook`."""

from tests.tidy.project_files import ROOT

OPERATIONS = ROOT / "docs" / "operations.md"
SERVED = ROOT / "api" / "static" / "runbook.md"


def section() -> str:
    """The entries, each a heading of the third level."""
    alarms = OPERATIONS.read_text(encoding="utf-8").partition("\n## Alarms\n")[2].partition("\n## ")[0]
    return "### " + alarms.partition("\n### ")[2].rstrip() + "\n"


if __name__ == "__main__":
    SERVED.write_text(section(), encoding="utf-8")
