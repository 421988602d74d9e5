"""Logs of a process: one event a line on stderr, JSON unless a person is looking."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from engine.settings import SettingError, read_settings, setting

FORMATS = ("auto", "json", "readable")
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How a process writes its log."""

    log_format: str = setting(
        "auto", unit="auto, json or readable", reason="one event a line; auto is readable where a person is looking"
    )
    log_level: str = setting(
        "info",
        unit="debug, info, warning or error",
        reason="error: an operator must act. warning: something is away or waits. info: what happened once. debug: each"
        " change with its request and position",
    )

    def __post_init__(self) -> None:
        for name, value, allowed in (("FORMAT", self.log_format, FORMATS), ("LEVEL", self.log_level, LEVELS)):
            if value not in allowed:
                raise SettingError(f"FIRSTCOME_LOG_{name} must be one of {', '.join(allowed)}, not {value!r}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "LogSettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)


def configure_logs() -> None:
    """Sends all logging, uvicorn's included, through structlog's renderers. Raises `SettingError`."""
    settings = LogSettings.from_environment()
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(["request_id", "position"]),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    person = sys.stderr.isatty() if settings.log_format == "auto" else settings.log_format == "readable"
    last: list[structlog.types.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if person:
        # Its default shows the variables of every frame, bodies and tokens among them.
        last.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    # They tell of each request to others, its headers among it.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
