"""Who asks: bearer tokens (JWT), the keys that they are verified with, and making one for development.

A deployment takes one algorithm, that of its keys; what a token's header says of its algorithm is only compared with
that. So a public key can never be taken for a secret, and `none` is just another algorithm.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from api.guards.recent import Recent
from api.settings import ApiSettings
from engine.settings import SettingError

HS256: Final = "HS256"
RS256: Final = "RS256"
EDDSA: Final = "EdDSA"
SECRET_BYTES_MIN: Final = 32
"""RFC 7518, 3.2: as long as the hash. A shorter one can be guessed from any token."""
RSA_BITS_MIN: Final = 2048
KEYS_MAX: Final = 16
AUTHORIZATION_BYTES_MAX: Final = 8192
ADMIN_SCOPE: Final = "admin"

_REMEMBERED_MIN: Final = 8192
_REMEMBERED_BYTES_MAX: Final = 2048
_LATEST: Final = 2**53
"""No token is remembered for longer: what an issuer means by "never" may be more than a float holds."""
_REQUIRED: Final = ("exp", "iat", "aud", "iss", "sub")
_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9_=.-]+)")
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_ALGORITHM_OF_KEY_TYPE: Final = {"oct": HS256, "RSA": RS256, "OKP": EDDSA}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a valid token speaks for: its `sub`, and whether its scope holds `admin`."""

    subject: str
    is_operator: bool


class NotAuthenticated(Exception):
    """A token is missing (`reason` is empty) or is not taken; the reason is plain ASCII, without quotes."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """What verifies a signature; `key_id` is what a token may name it by in `kid`."""

    material: Any
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a deployment, all of one algorithm. Several are there while one takes the place of another."""

    algorithm: str
    keys: tuple[Key, ...]

    def for_token(self, token: str) -> tuple[Key, ...]:
        """The keys to try: the one that the token names by its `kid`, all of them where either side has no ids.

        Raises jwt.PyJWTError for what is no token.
        """
        if all(key.key_id is None for key in self.keys):
            return self.keys
        key_id = jwt.get_unverified_header(token).get("kid")
        return self.keys if key_id is None else tuple(key for key in self.keys if key.key_id == key_id)


def read_keys(settings: ApiSettings) -> Keys | None:
    """The keys of the settings; None where none is configured. Raises SettingError for what cannot be used."""
    if settings.token_secret and settings.token_key_file:
        raise SettingError("FIRSTCOME_TOKEN_SECRET and FIRSTCOME_TOKEN_KEY_FILE are both set: unset one of them")
    if settings.token_secret:
        return _keys_of_text(settings.token_secret, "FIRSTCOME_TOKEN_SECRET")
    if settings.token_key_file:
        name = f"FIRSTCOME_TOKEN_KEY_FILE ({settings.token_key_file})"
        try:
            text = Path(settings.token_key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"{name} cannot be read: {error}") from error
        return _keys_of_text(text, name)
    return None


def _keys_of_text(text: str, name: str) -> Keys:
    """Secrets with white space between them, public keys in PEM, or a JWK Set."""
    if "-----BEGIN" in text:
        found = list(_pem_keys(text, name))
    elif text.lstrip().startswith("{"):
        found = list(_jwk_keys(text, name))
    else:
        found = [(HS256, Key(_secret(secret.encode(), name))) for secret in text.split()]
    if not 0 < len(found) <= KEYS_MAX:
        raise SettingError(f"{name} holds {len(found)} keys that can be used; 1 to {KEYS_MAX} are taken")
    algorithms = {algorithm for algorithm, _ in found}
    if len(algorithms) > 1:
        raise SettingError(f"{name} holds keys of {' and '.join(sorted(algorithms))}: a deployment takes one of them")
    return Keys(found[0][0], tuple(key for _, key in found))


def _secret(secret: bytes, name: str) -> bytes:
    if len(secret) < SECRET_BYTES_MIN:
        raise SettingError(
            f"{name} holds a secret of {len(secret)} bytes; at least {SECRET_BYTES_MIN} are needed: "
            "`firstcome token --new-key FILE` writes a good one"
        )
    return secret


def _pem_keys(text: str, name: str) -> Iterator[tuple[str, Key]]:
    for block in _PEM.finditer(text):
        if "PRIVATE" in block[1]:
            raise SettingError(
                f"{name} holds a private key, which only the issuer of tokens needs: give the public one"
            )
        try:
            key = load_pem_public_key(block[0].encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SettingError(f"{name} holds a {block[1].lower()} that cannot be read: {error}") from error
        yield _algorithm_of(key, name), Key(key)


def _jwk_keys(text: str, name: str) -> Iterator[tuple[str, Key]]:
    try:
        described = json.loads(text)
        entries = [entry for entry in described.get("keys", [described]) if isinstance(entry, dict)]
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise SettingError(f"{name} is no JWK Set: {error}") from error
    for entry in entries:
        algorithm = _ALGORITHM_OF_KEY_TYPE.get(str(entry.get("kty")))
        # Issuers publish keys for other purposes beside those that sign our tokens.
        if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
            continue
        if algorithm != HS256 and "d" in entry:
            raise SettingError(
                f"{name} holds a private key, which only the issuer of tokens needs: give the public one"
            )
        try:
            material = jwt.PyJWK(entry, algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise SettingError(f"{name} holds a key that cannot be read: {error}") from error
        if isinstance(material, bytes):
            _secret(material, name)
        else:
            _algorithm_of(material, name)
        key_id = entry.get("kid")
        yield algorithm, Key(material, key_id if isinstance(key_id, str) else None)


def _algorithm_of(key: object, name: str) -> str:
    if isinstance(key, RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            raise SettingError(f"{name} holds an RSA key of {key.key_size} bits; at least {RSA_BITS_MIN} are needed")
        return RS256
    if isinstance(key, Ed25519PublicKey):
        return EDDSA
    raise SettingError(f"{name} holds a {type(key).__name__}; RSA and Ed25519 keys are taken")


class Authenticator:
    """Verifies `Authorization` headers. What was verified is remembered until it expires, in bounded space."""

    def __init__(self, keys: Keys, settings: ApiSettings, *, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self._leeway_s = settings.token_leeway_ms / 1000
        self._now = now
        self._verified: Recent[bytes, tuple[Caller, float]] = Recent(_REMEMBERED_MIN)

    def remembered(self, authorization: bytes) -> Caller | None:
        """The caller of a header that was verified before and has not expired."""
        known = self._verified.get(authorization)
        return known[0] if known is not None and self._now() < known[1] else None

    def verify(self, authorization: bytes) -> Caller:
        """The caller of a header; raises NotAuthenticated."""
        bearer = _BEARER.fullmatch(authorization) if len(authorization) <= AUTHORIZATION_BYTES_MAX else None
        if bearer is None:
            raise NotAuthenticated("Expected the header Authorization: Bearer JWT, once and in 8 KiB")
        claims = self._claims(bearer[1].decode("ascii"))
        subject = claims["sub"]
        if not subject:
            raise NotAuthenticated("The token has an empty sub")
        caller = Caller(subject, ADMIN_SCOPE in _scopes(claims))
        if len(authorization) <= _REMEMBERED_BYTES_MAX:
            self._verified.put(authorization, (caller, min(int(claims["exp"]), _LATEST) + self._leeway_s))
        return caller

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            for key in self._keys.for_token(token):
                try:
                    return jwt.decode(
                        token,
                        key.material,
                        algorithms=[self._keys.algorithm],
                        issuer=self._issuer,
                        audience=self._audience,
                        leeway=self._leeway_s,
                        options={"require": list(_REQUIRED)},
                    )
                except jwt.InvalidSignatureError:
                    continue
        # A header that is nested deeply enough ends the decoder before any signature is looked at.
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise NotAuthenticated(self._reason(error)) from None
        raise NotAuthenticated("The signature of the token fits no key")

    def _reason(self, error: Exception) -> str:
        match error:
            case jwt.ExpiredSignatureError():
                return "The token has expired"
            case jwt.ImmatureSignatureError():
                return "The token is not valid yet"
            case jwt.InvalidAudienceError():
                return "The token is for another audience"
            case jwt.InvalidIssuerError():
                return "The token is of another issuer"
            case jwt.MissingRequiredClaimError():
                return f"The token has no {error.claim}"
            case jwt.InvalidAlgorithmError():
                return f"The token is not signed with {self._keys.algorithm}"
            case _:
                return "The token is no JWT that can be read"


def _scopes(claims: dict[str, Any]) -> list[str]:
    """The token's scopes (RFC 8693, 4.2: one string with spaces; some issuers write a list)."""
    scope = claims.get("scope")
    if isinstance(scope, str):
        return scope.split(" ")
    return scope if isinstance(scope, list) else []


def make_token(keys: Keys, settings: ApiSettings, subject: str, *, is_operator: bool, valid_s: int) -> str:
    """A token for development, signed with the first secret; ValueError where there are public keys only."""
    if keys.algorithm != HS256:
        raise ValueError("public keys verify tokens and make none; whoever holds the private key makes them")
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": settings.token_issuer,
        "aud": settings.token_audience,
        "sub": subject,
        "iat": now,
        "exp": now + valid_s,
    }
    if is_operator:
        claims["scope"] = ADMIN_SCOPE
    first = keys.keys[0]
    return jwt.encode(claims, first.material, HS256, headers=None if first.key_id is None else {"kid": first.key_id})
