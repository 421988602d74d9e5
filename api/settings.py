"""The API's settings: one frozen object, read from ``FIRSTCOME_*`` in one place."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.settings import read_settings, setting


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What an API process needs to know beside the engine's settings."""

    durable_by_default: bool = setting(
        False, unit="true or false", reason="changing requests wait for durable as if each had sent Prefer: durable"
    )
    body_timeout_ms: int = setting(10_000, unit="ms", reason="a request's body must be complete by then")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "ApiSettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)
