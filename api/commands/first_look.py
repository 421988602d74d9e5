"""What an API looks at before it begins: what would lose data or cannot work is refused, what is unsafe is logged.

A server that does not answer yet is waited for: the process begins, and says that it is not ready.
"""

import logging
from collections.abc import Iterable

from api.commands.checks import Check
from api.commands.postgres_checks import first_postgres_checks
from api.commands.redis_checks import first_redis_checks
from engine.settings import EngineSettings
from persistence.settings import HistorySettings
from persistence.start_checks import StartRefused

_log = logging.getLogger("firstcome.start")


def look_first(engine: EngineSettings, history: HistorySettings) -> None:
    """Raises `StartRefused`, with everything that is decisive and its remedy."""
    judge([*first_redis_checks(engine), *first_postgres_checks(history.url, engine)])


def judge(checks: Iterable[Check]) -> None:
    """Refuses, or warns of, what these checks have found."""
    refused = []
    for check in checks:
        if not check.failed:
            continue
        told = f"{check.name}: {check.found.rstrip('.')}. Remedy: {check.remedy}"
        if check.decisive:
            refused.append(told)
        else:
            _log.warning(told)
    if refused:
        raise StartRefused("\n".join(refused))
