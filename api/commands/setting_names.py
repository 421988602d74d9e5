"""Variables that are called as settings are, and are none: a slip of the pen that would otherwise do nothing."""

from collections.abc import Iterable
from difflib import get_close_matches

from api.commands.logs import LogSettings
from api.settings import ApiSettings
from api.tracing import TraceSettings
from engine.settings import EngineSettings, settings_table
from persistence.settings import HistorySettings, OwnerSettings, WorkerSettings

PREFIX = "FIRSTCOME_"
PARTS = (EngineSettings, ApiSettings, HistorySettings, WorkerSettings, OwnerSettings, LogSettings, TraceSettings)


def unknown_settings(environ: Iterable[str]) -> str:
    """What to tell of variables that no part reads, with the setting that each may mean; "" where there are none."""
    known = {row.variable for part in PARTS for row in settings_table(part)}
    told = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            meant = get_close_matches(name, known, n=1, cutoff=0.8)
            told.append(f"{name} is no setting" + (f"; {meant[0]} is" if meant else ""))
    return ". ".join(told)
