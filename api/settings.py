"""The API's settings: one frozen object, read from ``FIRSTCOME_*`` in one place."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.guards.addresses import TrustedProxies
from api.guards.origins import CrossOrigin
from engine.settings import SettingError, read_settings, setting


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What an API process needs to know beside the engine's settings."""

    durable_by_default: bool = setting(
        False, unit="true or false", reason="changing requests wait for durable as if each had sent Prefer: durable"
    )
    token_secret: str = setting(
        "",
        unit="secrets, with spaces between",
        reason="HS256, at least 32 bytes each: all of them verify tokens, the first makes those of `firstcome token`",
        secret=True,
    )
    token_key_file: str = setting(
        "",
        unit="file",
        reason="instead of the secret: a file of secrets, of public keys in PEM (RS256 or EdDSA), or a JWK Set",
    )
    token_issuer: str = setting("firstcome", unit="iss", reason="who makes the tokens that are taken")
    token_audience: str = setting("firstcome", unit="aud", reason="whom tokens must be for; a token may list several")
    token_leeway_ms: int = setting(5_000, unit="ms", reason="how far the issuer's clock may be off")
    user_rate: int = setting(50, unit="requests/s per process", reason="what a user may send; 0 is no limit")
    user_burst: int = setting(200, unit="requests", reason="what a user may send at once after a pause")
    address_rate: int = setting(
        500,
        unit="requests/s per process",
        reason="what an address may send without a valid token; 0 is no limit. Many users share one",
    )
    address_burst: int = setting(2_000, unit="requests", reason="what an address may send so at once after a pause")
    trusted_proxies: str = setting(
        "", unit="addresses and networks", reason="whose X-Forwarded-For is believed when addresses are counted"
    )
    cors_origins: str = setting("", unit="origins, or *", reason="web pages that may ask: https://shop.example")
    requests_in_flight_max: int = setting(
        4_096, unit="requests per process", reason="past it requests are answered 503 at once"
    )
    connections_max: int = setting(
        8_192, unit="connections per process", reason="past it, or past what the system lets open, new ones are closed"
    )
    head_timeout_ms: int = setting(10_000, unit="ms", reason="a request's headers must be complete by then")
    body_timeout_ms: int = setting(10_000, unit="ms", reason="a request's body must be complete by then")
    send_timeout_ms: int = setting(
        30_000, unit="ms", reason="a client that has not taken its answer by then is disconnected"
    )

    def __post_init__(self) -> None:
        for variable, value, rule in (
            ("FIRSTCOME_TRUSTED_PROXIES", self.trusted_proxies, TrustedProxies),
            ("FIRSTCOME_CORS_ORIGINS", self.cors_origins, CrossOrigin),
        ):
            try:
                rule(value)
            except ValueError as error:
                raise SettingError(f"{variable}: {error}") from error
        for name in ("requests_in_flight_max", "connections_max", "head_timeout_ms", "body_timeout_ms"):
            if not getattr(self, name):
                raise SettingError(f"FIRSTCOME_{name.upper()} must be more than 0")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "ApiSettings":
        """Read ``FIRSTCOME_*``; raises `SettingError`."""
        return read_settings(cls, environ)
