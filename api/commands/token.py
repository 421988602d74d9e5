"""`firstcome token`: a bearer token for development, and a secret to make it with."""

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import click
import httpx

from api import schemas
from api.authentication import HS256, Keys, make_token, read_keys
from api.operations import PATH_PARAMETERS
from api.settings import ApiSettings
from engine.settings import SettingError

VALID_S_DEFAULT = 24 * 3600
VALID_S_MAX = 365 * 24 * 3600
SECRET_BYTES = 48
OPERATOR = "firstcome-operator"

_NO_KEY = (
    "no key is configured here, and an API that is started so asks for no token: set FIRSTCOME_TOKEN_SECRET, or let "
    "`firstcome token --new-key FILE` write a secret and set FIRSTCOME_TOKEN_KEY_FILE to it, for the API too"
)


@click.command()
@click.option("--user", help="Whose token: the user_id of the paths.")
@click.option("--admin", is_flag=True, help="An operator's: the scope `admin`, good for every user and /admin/v1.")
@click.option(
    "--valid-s",
    type=click.IntRange(1, VALID_S_MAX),
    default=VALID_S_DEFAULT,
    show_default=True,
    help="Seconds until it expires.",
)
@click.option(
    "--new-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a new secret into this file for FIRSTCOME_TOKEN_KEY_FILE, unless it is there; makes no token.",
)
def token(user: str | None, admin: bool, valid_s: int, new_key: Path | None) -> None:
    """Make a token for development, signed with the configured secret, and print it.

    \b
    curl -H "Authorization: Bearer $(firstcome token --user mina)" http://127.0.0.1:8000/v1/users/mina/balance
    """
    if new_key is not None:
        if user is not None or admin:
            raise click.UsageError("--new-key makes no token: leave --user and --admin to the next call")
        _write_secret(new_key)
        return
    if user is None:
        raise click.UsageError("whose token? Name the user with --user")
    if not PATH_PARAMETERS["user_id"].allows(user):
        raise click.UsageError(f"{user!r} is no user id: 1 to {schemas.ID_LENGTH_MAX} of A-Z a-z 0-9 . _ ~ @ | -")
    try:
        settings = ApiSettings.from_environment()
        keys = read_keys(settings)
        if keys is None:
            raise click.ClickException(_NO_KEY)
        click.echo(make_token(keys, settings, user, is_operator=admin, valid_s=valid_s))
    except (SettingError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _write_secret(file: Path) -> None:
    """Writes a secret that only this user can read. A file that is there stays: tokens made with it are out."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        click.echo(f"{file} is there already and stays as it is", err=True)
        return
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}") from error
    with os.fdopen(handle, "w") as lines:
        lines.write(f"{secrets.token_urlsafe(SECRET_BYTES)}\n")
    click.echo(f"wrote a new secret; let the API read it: FIRSTCOME_TOKEN_KEY_FILE={file.absolute()}", err=True)


def token_command(key_file: str, program: str) -> str:
    """How a token is made in another terminal, whatever folder it is in. A secret that stands in the environment has to
    be set there too: it is not shown.

    ``program`` is what this process was called by.
    """
    key = f"FIRSTCOME_TOKEN_KEY_FILE={shlex.quote(str(Path(key_file).absolute()))} " if key_file else ""
    is_ours = Path(program).name == "firstcome"
    on_path = shutil.which("firstcome")
    elsewhere = is_ours and (on_path is None or not Path(on_path).samefile(program))
    return f"{key}{shlex.quote(str(Path(program).absolute())) if elsewhere else 'firstcome'} token"


class OperatorAuth(httpx.Auth):
    """Signs this program's own requests to an API that has the key of our settings; without a key it adds nothing.

    Raises SettingError where there are public keys only, with which nobody makes tokens.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._keys: Keys | None = read_keys(settings)
        if self._keys is not None and self._keys.algorithm != HS256:
            raise SettingError(
                "FIRSTCOME_TOKEN_KEY_FILE holds public keys, with which this command cannot make the operator's token "
                "that it needs: run it with a secret"
            )
        self._token = "" if self._keys is None else self._made(self._keys)

    @property
    def has_key(self) -> bool:
        """Whether the API asks for tokens."""
        return self._keys is not None

    @property
    def token_command(self) -> str:
        """How a user's token is made for that API, but for the user."""
        return token_command(self._settings.token_key_file, sys.argv[0])

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """One request, with the token if there is one."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    def _made(self, keys: Keys) -> str:
        return make_token(keys, self._settings, OPERATOR, is_operator=True, valid_s=VALID_S_DEFAULT)
