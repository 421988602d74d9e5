"""The settings of all parts together: what none of them can use, and what none of them reads, a slip of the pen."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from api.authentication import read_keys
from api.commands.logs import LogSettings
from api.settings import ApiSettings
from api.tracing import TraceSettings
from engine.settings import EngineSettings, SettingError, settings_table
from persistence.settings import HistorySettings, OwnerSettings, WorkerSettings

_log = logging.getLogger("firstcome.start")

PREFIX = "FIRSTCOME_"
PARTS = (EngineSettings, ApiSettings, HistorySettings, WorkerSettings, OwnerSettings, LogSettings, TraceSettings)
_READ: Final[tuple[Callable[[Mapping[str, str]], Any], ...]] = (
    *(part.from_environment for part in PARTS),
    lambda environ: read_keys(ApiSettings.from_environment(environ)),
)


def refused_settings(environ: Mapping[str, str]) -> list[str]:
    """Why parts of the program would not begin with these settings, each reason once."""
    refused = []
    for read in _READ:
        try:
            read(environ)
        except SettingError as error:
            refused.append(str(error))
    return list(dict.fromkeys(refused))


def warn_of_unknown_settings() -> None:
    """Log what no part of the program reads."""
    if unknown := unknown_settings(os.environ):
        _log.warning(unknown)


def unknown_settings(environ: Iterable[str]) -> str:
    """What to tell of variables that no part reads, with the setting that each may mean; "" where there are none."""
    known = {row.variable for part in PARTS for row in settings_table(part)}
    told = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            meant = get_close_matches(name, known, n=1, cutoff=0.8)
            told.append(f"{name} is no setting" + (f"; {meant[0]} is" if meant else ""))
    return ". ".join(told)
