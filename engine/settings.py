"""The engine's settings: one frozen object, read from ``FIRSTCOME_*`` in one place."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.policy import INTEGER_MAX, Policy
from engine.redis_address import parse_redis_addresses


class SettingError(ValueError):
    """A setting cannot be used; the message names it and what it takes."""


def setting(default: Any, *, unit: str, reason: str, env: str | None = None, secret: bool = False) -> Any:
    """A dataclass field that is read from the environment: its default, unit and why it is there.

    A secret one is left out wherever the settings are shown.
    """
    return field(default=default, repr=not secret, metadata={"unit": unit, "reason": reason, "env": env})


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A row of the settings table: what the documentation prints."""

    variable: str
    default: str
    unit: str
    reason: str


Settings = TypeVar("Settings")


def variable_of(name: str, metadata: Mapping[str, Any]) -> str:
    """The environment variable of a settings field."""
    return metadata.get("env") or f"FIRSTCOME_{name.upper()}"


def read_settings(settings: type[Settings], environ: Mapping[str, str] | None = None) -> Settings:
    """Make ``settings`` (a frozen dataclass of `setting` fields) from the environment.

    Raises `SettingError` where a value is not of its field's type.
    """
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for entry in fields(settings):  # type: ignore[arg-type]
        if "unit" not in entry.metadata:
            continue
        variable = variable_of(entry.name, entry.metadata)
        text = source.get(variable)
        if text is not None and text != "":
            values[entry.name] = _convert(variable, text, entry.default)
    return settings(**values)


def settings_table(settings: type[Any]) -> list[SettingRow]:
    """Every setting of a settings class, in its order."""
    return [
        SettingRow(
            variable_of(entry.name, entry.metadata),
            str(entry.default),
            entry.metadata["unit"],
            entry.metadata["reason"],
        )
        for entry in fields(settings)
        if "unit" in entry.metadata
    ]


def _convert(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise SettingError(f"{variable} must be true or false, not {text!r}")
    if isinstance(default, int | float):
        try:
            number = type(default)(text)
        except ValueError as error:
            raise SettingError(f"{variable} must be a number, not {text!r}") from error
        if number < 0:
            raise SettingError(f"{variable} must not be negative, not {text!r}")
        if not number <= INTEGER_MAX:
            raise SettingError(f"{variable} must not pass {INTEGER_MAX}, the largest exact integer, not {text!r}")
        return number
    return text


def without_password(url: str) -> str:
    """A server's URL for people to read: ``***`` in the place of the password.

    It rather hides too much than too little: all that stands between the first colon and the last ``@``, for a password
    may hold characters that ought to be escaped; and a password among the options.
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, address = (rest if separator else scheme).rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{scheme if separator else ''}{separator}{user}{colon and ':***'}{at}{address}"
    return re.sub(r"(password\s*=\s*)('[^']*'|[^&#\s]*)", r"\1***", shown)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs to know to run; every process of an installation uses the same values."""

    redis_url: str = setting(
        "redis://127.0.0.1:6379/0",
        unit="URL",
        reason="redis://, rediss:// or unix:// of the Redis that decides; redis+cluster:// and some nodes of a cluster",
    )
    partitions: int = setting(
        64,
        unit="partitions",
        reason="the shares that all state is divided into: fixed at the first start, recorded in PostgreSQL",
    )
    time_zone: str = setting(
        "Asia/Seoul",
        unit="IANA name",
        reason="the business day of coupon ids and best sellers: fixed at the first start",
    )
    currency: str = setting(
        "KRW",
        unit="ISO 4217",
        reason="shown with every price; amounts are in its minor unit: fixed at the first start",
    )
    backlog_max: int = setting(
        50_000, unit="events per partition", reason="new work is refused past it, so that memory and loss stay bounded"
    )
    backlog_headroom: int = setting(
        50_000, unit="events per partition", reason="room past the limit for what finishes orders: pay, cancel, release"
    )
    request_deadline_ms: int = setting(
        5_000, unit="ms", reason="a request that Redis has not decided by then is answered 503 or 504"
    )
    key_lease_ms: int = setting(
        15_000,
        unit="ms",
        reason="how long an idempotency key stays claimed by a request that never ended; longer than any request takes",
    )
    reply_timeout_ms: int = setting(
        1_500, unit="ms", reason="a Redis that is silent for so long is dropped and asked again"
    )
    in_flight_max: int = setting(8_192, unit="calls per process", reason="past it requests are shed at once")
    order_age_max_ms: int = setting(
        30_000, unit="ms", reason="an order id older than this is refused, so a late original does nothing"
    )
    charge_min: int = setting(1, unit="minor units", reason="lowest charge")
    charge_max: int = setting(10_000_000, unit="minor units", reason="highest charge")
    balance_max: int = setting(100_000_000, unit="minor units", reason="highest balance")
    payment_max: int = setting(50_000_000, unit="minor units", reason="highest payment")
    unit_price_max: int = setting(100_000_000, unit="minor units", reason="highest price of a product")
    line_quantity_max: int = setting(100_000, unit="units", reason="most units of one stock item in an order")
    lines_max: int = setting(500, unit="lines", reason="most lines of an order; real ones reach some hundreds")
    discount_min: int = setting(1, unit="minor units", reason="lowest discount that a coupon may give")
    discount_max: int = setting(
        1_000_000, unit="minor units", reason="highest discount; a campaign may set a lower one"
    )
    payment_deadline_ms: int = setting(86_400_000, unit="ms", reason="an order unpaid for longer fails (one day)")

    def __post_init__(self) -> None:
        try:
            parse_redis_addresses(self.redis_url)
        except ValueError as error:
            raise SettingError(f"FIRSTCOME_REDIS_URL: {error}") from None
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise SettingError(
                f"FIRSTCOME_TIME_ZONE must be an IANA name such as Asia/Seoul, not {self.time_zone!r}"
            ) from error
        if not 1 <= self.partitions <= 1024:
            raise SettingError(f"FIRSTCOME_PARTITIONS must be from 1 to 1024, not {self.partitions}")
        if not re.fullmatch("[A-Z]{3}", self.currency):
            raise SettingError(f"FIRSTCOME_CURRENCY must be a code of ISO 4217 such as KRW, not {self.currency!r}")
        for lower, upper in (("charge_min", "charge_max"), ("discount_min", "discount_max")):
            if getattr(self, lower) > getattr(self, upper):
                raise SettingError(
                    f"FIRSTCOME_{upper.upper()} is {getattr(self, upper)}, and must not be less than"
                    f" FIRSTCOME_{lower.upper()}, which is {getattr(self, lower)}"
                )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "EngineSettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)

    @property
    def policy(self) -> Policy:
        """The limits, for the modules that check them."""
        return Policy(
            **{
                entry.name: getattr(self, entry.name)
                for entry in fields(Policy)
                if entry.name in self.__dataclass_fields__
            }
        )
