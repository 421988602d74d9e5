"""Tokens: which keys are taken, which tokens are, and what is remembered of them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from math import nextafter
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from api.authentication import Authenticator, Caller, Keys, NotAuthenticated, make_token, read_keys
from api.settings import ApiSettings
from engine.settings import SettingError

SECRET: Final = "a secret of this test, which is long enough".replace(" ", "-")
OTHER_SECRET: Final = "another secret of this test, long enough too".replace(" ", "-")
SETTINGS: Final = ApiSettings(token_secret=SECRET)
RSA_KEY: Final = generate_rsa(65537, 2048)
ED_KEY: Final = Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; a claim that is changed to None is left out."""
    now = int(time.time())
    whole = {"iss": "firstcome", "aud": "firstcome", "sub": "mina", "iat": now, "exp": now + 60, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return b"Bearer " + jwt.encode(claims(**changes), key, algorithm, headers=headers).encode()


def by_hand(header: object, payload: object, signature: bytes = b"none") -> bytes:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return b"Bearer " + b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def authenticator(settings: ApiSettings = SETTINGS, now: Callable[[], float] = time.time) -> Authenticator:
    keys = read_keys(settings)
    assert keys is not None
    return Authenticator(keys, settings, now=now)


def refusal(header: bytes, settings: ApiSettings = SETTINGS) -> str:
    with pytest.raises(NotAuthenticated) as refused:
        authenticator(settings).verify(header)
    return refused.value.reason


def key_file(folder: Path, text: str) -> ApiSettings:
    file = folder / "keys"
    file.write_text(text)
    return ApiSettings(token_key_file=str(file))


def test_a_good_token_names_its_user() -> None:
    assert authenticator().verify(signed()) == Caller("mina", is_operator=False)


@pytest.mark.parametrize("scheme", [b"bearer ", b"BEARER ", b"Bearer   "])
def test_the_scheme_is_written_in_any_case(scheme: bytes) -> None:
    header = signed().replace(b"Bearer ", scheme)
    assert authenticator().verify(header).subject == "mina"


@pytest.mark.parametrize("scope", ["admin", "openid admin", ["openid", "admin"]])
def test_the_scope_admin_makes_an_operator(scope: object) -> None:
    assert authenticator().verify(signed(scope=scope)).is_operator


@pytest.mark.parametrize("scope", [None, "", "administrator", "Admin", "admin,users", {"admin": True}, 1, ["a", 1]])
def test_no_other_scope_does(scope: object) -> None:
    assert not authenticator().verify(signed(scope=scope)).is_operator


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub"])
def test_every_claim_is_required(claim: str) -> None:
    without: dict[str, Any] = {claim: None}
    assert refusal(signed(**without)) == f"The token has no {claim}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1}, "The token has expired"),
        ({"exp": "soon"}, "The token is no JWT that can be read"),
        ({"exp": 1e400}, "The token is no JWT that can be read"),
        ({"exp": [1]}, "The token is no JWT that can be read"),
        ({"iat": int(time.time()) + 3600}, "The token is not valid yet"),
        ({"nbf": int(time.time()) + 3600}, "The token is not valid yet"),
        ({"aud": "another"}, "The token is for another audience"),
        ({"aud": ["another", "firstcome2"]}, "The token is for another audience"),
        ({"aud": {"firstcome": 1}}, "The token is for another audience"),
        ({"iss": "another"}, "The token is of another issuer"),
        ({"sub": ""}, "The token has an empty sub"),
    ],
)
def test_a_token_with_wrong_claims_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refusal(signed(**changes)) == reason


def test_a_subject_is_a_string() -> None:
    assert refusal(by_hand({"alg": "HS256"}, claims(sub=7))) != ""
    key = jwt.get_algorithm_by_name("HS256").prepare_key(SECRET)
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub=7)).encode()).rstrip(b"=")
    signature = jwt.get_algorithm_by_name("HS256").sign(head + b"." + body, key)
    token = b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")))
    assert refusal(b"Bearer " + token) == "The token is no JWT that can be read"


def test_one_audience_of_several_is_enough() -> None:
    assert authenticator().verify(signed(aud=["web", "firstcome"])).subject == "mina"


def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time.time())
    lenient = authenticator(ApiSettings(token_secret=SECRET, token_leeway_ms=600_000))
    assert lenient.verify(signed(exp=now - 60)).subject == "mina"
    assert lenient.verify(signed(iat=now + 60)).subject == "mina"
    assert refusal(signed(exp=now - 60)) == "The token has expired"


def test_a_token_without_a_signature_is_refused() -> None:
    for header in ({"alg": "none"}, {"alg": "None"}, {"alg": ""}, {}, {"alg": ["HS256"]}):
        assert refusal(by_hand(header, claims(), b""))


def test_another_algorithm_is_refused_whatever_its_key() -> None:
    assert refusal(signed(SECRET * 2, "HS512")) == "The token is not signed with HS256"
    assert refusal(signed(RSA_KEY, "RS256")) == "The token is not signed with HS256"


def test_a_public_key_is_never_taken_for_a_secret(tmp_path: Path) -> None:
    settings = key_file(tmp_path, pem(RSA_KEY))
    forged = by_hand({"alg": "HS256"}, claims(scope="admin"))
    head, body, _ = forged.removeprefix(b"Bearer ").split(b".")
    hmac = jwt.get_algorithm_by_name("HS256")
    signature = hmac.sign(head + b"." + body, pem(RSA_KEY).encode())
    token = b"Bearer " + b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")))
    assert refusal(token, settings) == "The token is not signed with RS256"


def test_another_secret_is_refused() -> None:
    assert refusal(signed(OTHER_SECRET)) == "The signature of the token fits no key"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic bWluYTpzZWNyZXQ=",
        b"Bearer a.b.c, Bearer d.e.f",
        b"Bearer a b",
        b"Bearer ....",
        b"Bearer a",
        b"Bearer \xff\xfe",
        b"Bearer " + b"a" * 8192,
        b"Bearer " + base64.urlsafe_b64encode(b"[" * 3000) + b".e30.e30",
        b"Bearer " + base64.urlsafe_b64encode(b'{"alg":"HS256","kid":[]}').rstrip(b"=") + b".e30.e30",
        b"Bearer " + base64.urlsafe_b64encode(b'{"alg":"HS256","crit":["x"]}').rstrip(b"=") + b".e30.e30",
    ],
)
def test_what_is_no_token_is_refused(header: bytes) -> None:
    assert refusal(header)


def test_a_reason_can_stand_in_a_header() -> None:
    for header in (b"", b"Bearer a", signed(exp=1), signed(iss=None), signed(OTHER_SECRET)):
        reason = refusal(header)
        assert reason.isascii()
        assert '"' not in reason
        assert "\\" not in reason


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (ED_KEY, "EdDSA")], ids=["rsa", "ed25519"])
def test_public_keys_verify(tmp_path: Path, key: Any, algorithm: str) -> None:
    settings = key_file(tmp_path, pem(key))
    assert authenticator(settings).verify(signed(key, algorithm)).subject == "mina"
    assert refusal(signed(SECRET), settings) == f"The token is not signed with {algorithm}"


def test_two_keys_are_live_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    for settings in (
        ApiSettings(token_secret=f"{OTHER_SECRET} {SECRET}"),
        key_file(tmp_path, f"{OTHER_SECRET}\n{SECRET}\n"),
    ):
        verify = authenticator(settings).verify
        assert verify(signed(SECRET)) == verify(signed(OTHER_SECRET)) == Caller("mina", is_operator=False)
    first, second = generate_rsa(65537, 2048), RSA_KEY
    verify = authenticator(key_file(tmp_path, pem(first) + pem(second))).verify
    assert verify(signed(first, "RS256")) == verify(signed(second, "RS256"))


def test_a_token_that_names_its_key_is_verified_with_that_one_only(tmp_path: Path) -> None:
    def entry(secret: str, key_id: str, **more: str) -> dict[str, str]:
        encoded = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
        return {"kty": "oct", "k": encoded, "kid": key_id, **more}

    keys = [entry(SECRET, "march"), entry(OTHER_SECRET, "april"), entry("x" * 40, "other", use="enc")]
    settings = key_file(tmp_path, json.dumps({"keys": keys}))
    assert authenticator(settings).verify(signed(headers={"kid": "march"})).subject == "mina"
    assert authenticator(settings).verify(signed()).subject == "mina"
    assert refusal(signed(headers={"kid": "april"}), settings)
    assert refusal(signed(headers={"kid": "may"}), settings)
    assert refusal(signed("x" * 40, headers={"kid": "other"}), settings)
    assert authenticator().verify(signed(headers={"kid": "whatever"})).subject == "mina"


def test_a_published_key_set_is_read(tmp_path: Path) -> None:
    rsa: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)
    elliptic = jwt.algorithms.ECAlgorithm.to_jwk(generate_ec(SECP256R1()).public_key(), as_dict=True)
    published = [{**rsa, "kid": "one", "use": "sig"}, {**rsa, "alg": "RS512", "kid": "two"}, elliptic]
    settings = key_file(tmp_path, json.dumps({"keys": published}))
    assert authenticator(settings).verify(signed(RSA_KEY, "RS256", {"kid": "one"})).subject == "mina"
    assert refusal(signed(RSA_KEY, "RS256", {"kid": "two"}), settings)


def private_pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("short", "a secret of 5 bytes; at least 32"),
        ("x" * 31, "a secret of 31 bytes; at least 32"),
        (f"{SECRET} short", "a secret of 5 bytes"),
        ("", "0 keys"),
        (" ".join([SECRET] * 17), "17 keys"),
        (private_pem(RSA_KEY), "a private key"),
        (private_pem(ED_KEY), "a private key"),
        (pem(RSA_KEY) + pem(ED_KEY), "keys of EdDSA and RS256"),
        (pem(generate_rsa(65537, 1024)), "1024 bits"),
        (pem(generate_ec(SECP256R1())), "RSA and Ed25519 keys are taken"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read"),
        ("-----BEGIN PUBLIC KEY-----", "0 keys"),
        ("{", "no JWK Set"),
        ('{"keys": 1}', "no JWK Set"),
        ('{"keys": [{"kty": "EC"}]}', "0 keys"),
        ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', "a secret of 3 bytes"),
        ('{"keys": [{"kty": "RSA", "d": "AAAA"}]}', "a private key"),
        ('{"keys": [{"kty": "RSA"}]}', "cannot be read"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_by_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint) as refused:
        read_keys(key_file(tmp_path, text))
    assert "FIRSTCOME_TOKEN_KEY_FILE" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_secret_of_just_as_many_bytes_as_are_needed_is_taken() -> None:
    settings = ApiSettings(token_secret="x" * 32)
    assert authenticator(settings).verify(signed("x" * 32)).subject == "mina"


def test_a_public_key_is_no_secret_by_setting_it_as_one() -> None:
    keys = read_keys(ApiSettings(token_secret=pem(RSA_KEY)))
    assert keys is not None
    assert keys.algorithm == "RS256"


def test_keys_that_are_not_there_or_set_twice_are_refused(tmp_path: Path) -> None:
    assert read_keys(ApiSettings()) is None
    with pytest.raises(SettingError, match="cannot be read"):
        read_keys(ApiSettings(token_key_file=str(tmp_path / "nowhere")))
    with pytest.raises(SettingError, match="both set"):
        read_keys(ApiSettings(token_secret=SECRET, token_key_file="keys"))


def test_the_secret_is_never_shown() -> None:
    settings = ApiSettings.from_environment({"FIRSTCOME_TOKEN_SECRET": SECRET})
    assert settings.token_secret == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in repr(read_keys(settings))


def test_a_token_is_remembered_until_it_expires() -> None:
    moment = time.time()
    known = authenticator(now=lambda: moment)
    header = signed(exp=int(moment) + 60)
    assert known.remembered(header) is None
    caller = known.verify(header)
    assert known.remembered(header) == caller
    moment += 66
    assert known.remembered(header) is None


def test_a_token_that_is_remembered_has_expired_at_the_very_instant() -> None:
    expires = int(time.time()) + 60
    instant = expires + SETTINGS.token_leeway_ms / 1000
    moment = nextafter(instant, 0)
    known = authenticator(now=lambda: moment)
    header = signed(exp=expires)
    caller = known.verify(header)
    assert known.remembered(header) == caller
    moment = instant
    assert known.remembered(header) is None


def test_a_token_that_expires_when_no_clock_ever_will_is_taken_and_remembered() -> None:
    header = signed(exp=10**400)
    never = authenticator()
    assert never.verify(header).subject == "mina"
    assert never.remembered(header) == never.verify(header)


def test_what_was_refused_or_is_large_is_not_remembered() -> None:
    known = authenticator()
    large = signed(note="x" * 3000)
    known.verify(large)
    with pytest.raises(NotAuthenticated):
        known.verify(signed(exp=1))
    assert known.remembered(large) is None
    assert known.remembered(signed(exp=1)) is None


def test_a_token_for_development_is_taken() -> None:
    keys = read_keys(SETTINGS)
    assert keys is not None
    for is_operator in (False, True):
        token = make_token(keys, SETTINGS, "auth0|1", is_operator=is_operator, valid_s=60)
        assert authenticator().verify(b"Bearer " + token.encode()) == Caller("auth0|1", is_operator)


def test_public_keys_make_no_token(tmp_path: Path) -> None:
    settings = key_file(tmp_path, pem(ED_KEY))
    keys = read_keys(settings)
    assert isinstance(keys, Keys)
    with pytest.raises(ValueError, match="private key"):
        make_token(keys, settings, "mina", is_operator=False, valid_s=60)
