"""`firstcome token`: tokens for development, and secrets to make them with."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.authentication import Authenticator, read_keys
from api.commands import main
from api.commands.demo import first_purchase
from api.commands.token import OperatorAuth, token_command
from api.settings import ApiSettings
from engine.settings import SettingError

SECRET = "the-secret-of-these-tests-is-long-enough"


def run(*arguments: str, **environment: str | None) -> Result:
    unset = {"FIRSTCOME_TOKEN_SECRET": None, "FIRSTCOME_TOKEN_KEY_FILE": None}
    return CliRunner().invoke(main, ["token", *arguments], env={**unset, **environment})


def verify(token: str, settings: ApiSettings) -> tuple[str, bool]:
    keys = read_keys(settings)
    assert keys is not None
    caller = Authenticator(keys, settings).verify(f"Bearer {token}".encode())
    return caller.subject, caller.is_operator


@pytest.mark.parametrize("admin", [False, True])
def test_a_token_for_a_user_is_printed_and_nothing_else(admin: bool) -> None:
    result = run("--user", "mina", *(["--admin"] if admin else []), FIRSTCOME_TOKEN_SECRET=SECRET)
    assert result.exit_code == 0, result.output
    assert verify(result.stdout.removesuffix("\n"), ApiSettings(token_secret=SECRET)) == ("mina", admin)


def test_a_new_secret_is_written_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert run("--new-key", str(file)).exit_code == 0
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    secret = file.read_text()
    again = run("--new-key", str(file))
    assert again.exit_code == 0
    assert "stays as it is" in again.output
    assert file.read_text() == secret
    assert secret.strip() not in again.output
    result = run("--user", "mina", FIRSTCOME_TOKEN_KEY_FILE=str(file))
    assert verify(result.stdout.strip(), ApiSettings(token_key_file=str(file))) == ("mina", False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--user"),
        (["--user", "no id"], "is no user id"),
        (["--user", ".."], "is no user id"),
        (["--user", "mina"], "no key is configured"),
        (["--user", "mina", "--new-key", "file"], "makes no token"),
        (["--new-key", "/nowhere/at/all/key"], "cannot be written"),
    ],
)
def test_what_makes_no_token_says_why(arguments: list[str], complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert complaint in result.output


def test_this_programs_own_requests_are_signed_where_there_is_a_key() -> None:
    def authorization(settings: ApiSettings) -> str:
        request = httpx.Request("GET", "http://shop/")
        next(OperatorAuth(settings).auth_flow(request))
        return str(request.headers.get("authorization", ""))

    assert authorization(ApiSettings()) == ""
    settings = ApiSettings(token_secret=SECRET)
    header = authorization(settings)
    assert verify(header.removeprefix("Bearer "), settings) == ("firstcome-operator", True)


def test_with_public_keys_alone_it_cannot_sign(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    key = Ed25519PrivateKey.generate().public_key()
    file.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    settings = ApiSettings(token_key_file=str(file))
    with pytest.raises(SettingError, match="public keys"):
        OperatorAuth(settings)
    assert "whoever holds the private key" in run("--user", "mina", FIRSTCOME_TOKEN_KEY_FILE=str(file)).output


def test_the_first_purchase_is_typed_with_a_token_only_where_one_is_asked_for() -> None:
    assert not any("token" in line for line in first_purchase("http://shop"))
    lines = first_purchase("http://shop", with_token=True)
    assert lines[1] == "token=$(firstcome token --user $user)"
    assert lines != first_purchase("http://shop", with_token=True, token_command="other")
    assert all("Bearer $token" in line for line in lines if "/users/" in line)


def test_the_first_purchase_buys_with_the_coupon_and_sends_a_key_of_its_own_for_each_thing_wanted() -> None:
    lines = first_purchase("http://shop")
    keys = [found for line in lines for found in re.findall(r'"Idempotency-Key: ([^"]+)"', line)]
    assert keys == ["charge-$user", "coupon-$user", "checkout-$user"]
    assert len(keys) == sum(" -d " in line for line in lines)
    (checkout,) = (line for line in lines if "/checkout" in line)
    assert '"coupon_id": "\'${coupon:?was not given}\'"' in checkout


def test_the_printed_command_for_a_token_works_in_another_terminal(tmp_path: Path) -> None:
    """Of a clone's environment, which is on nobody's PATH, with the key that this process has."""
    key = tmp_path / "a key"
    run("--new-key", str(key))
    program = Path(sys.executable).parent / "firstcome"
    command = token_command(str(key), str(program))
    shell = ["/bin/sh", "-c", f"{command} --user mina"]
    made = subprocess.run(shell, env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, text=True, check=True)
    assert made.stdout.count(".") == 2
    assert token_command("", "/site-packages/api/commands/__main__.py") == "firstcome token"
