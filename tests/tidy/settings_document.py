"""Makes docs/settings.md from the settings themselves: `python -m tests.tidy.settings_document`."""

from pathlib import Path

from api.commands.logs import LogSettings
from api.settings import ApiSettings
from api.tracing import TraceSettings
from engine.settings import EngineSettings, settings_table
from persistence.settings import HistorySettings, OwnerSettings, WorkerSettings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
PARTS = {
    "Engine: every process, the same everywhere": EngineSettings,
    "API": ApiSettings,
    "API: reading of histories": HistorySettings,
    "Worker": WorkerSettings,
    "Migration": OwnerSettings,
    "Logs: every process": LogSettings,
    "Traces: API and worker": TraceSettings,
}
HEAD = """# Settings

Each is an environment variable, read once when a process starts; a value that cannot be used is refused then, by name.
This page is made from the program: `python -m tests.tidy.settings_document`.
"""


def document() -> str:
    """The whole page. A variable that two parts read stands in both."""
    lines = [HEAD]
    for title, settings in PARTS.items():
        lines += [f"## {title}", "", "| variable | default | unit | why |", "|---|---|---|---|"]
        lines += [
            f"| `{row.variable}` | {f'`{row.default}`' if row.default else 'empty'} | {row.unit} | {row.reason} |"
            for row in settings_table(settings)
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
