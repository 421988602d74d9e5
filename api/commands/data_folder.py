"""The folder that keeps an embedded server's state between runs: its lock, its addresses, its short socket paths."""

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from api.commands.processes import ProcessFailed

SOCKET_PATH_BYTES_MAX = 100
"""A unix socket's path may have 107 bytes on Linux and 103 on macOS; some room is left for suffixes."""

ADDRESSES_FILE = "addresses.json"


class FolderInUse(ProcessFailed):
    """Another process works on this data folder."""


def make_data_folder(folder: Path) -> None:
    """The folder, unless it is there. Raises ProcessFailed, with what to do, where it cannot be."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(folder, error) from error


def unusable(folder: Path, error: OSError) -> ProcessFailed:
    """What to tell about a folder in which nothing can be kept."""
    return ProcessFailed(f"nothing can be kept in {folder}: {error.strerror or error}. Choose another --data")


class FolderLock:
    """Exclusive use of a folder while this process lives; the kernel ends it however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock or raises FolderInUse, naming the process that has it."""
        if self._file is not None:
            raise FolderInUse(f"{self._folder} is in use by this process already")
        try:
            file = (self._folder / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise unusable(self._folder, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise FolderInUse(
                f"{self._folder} is in use by process {holder}: stop that one first, or choose another --data"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Gives the lock back; nothing happens when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def socket_folder(candidates: Iterable[Path], socket_name: str) -> Path | None:
    """The first of the folders in which a unix socket of that name has a path that is short enough, or None."""
    for folder in candidates:
        if len(os.fsencode(folder / socket_name)) <= SOCKET_PATH_BYTES_MAX:
            return folder
    return None


def make_short_folder(parents: Iterable[Path]) -> Path:
    """A new private folder with a short path, for sockets whose own folder lies too deep."""
    for parent in parents:
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="firstcome-", dir=parent))
    raise OSError(f"no folder for sockets can be made in {', '.join(map(str, parents))}")


def temporary_folders() -> list[Path]:
    """Where short-lived folders may be made, the system's choice first."""
    return list(dict.fromkeys([Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]))


def is_private_to_us(folder: Path) -> bool:
    """Whether this is a real folder of our own that nobody else may write in."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running `firstcome up` serves; kept in the data folder for `firstcome doctor` and for people."""

    pid: int
    api_url: str
    redis_url: str
    database_url: str

    def write(self, folder: Path) -> None:
        """Replaces the folder's record at once: a reader sees the old one or the new one."""
        new = folder / f"{ADDRESSES_FILE}.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        new.replace(folder / ADDRESSES_FILE)

    @classmethod
    def read(cls, folder: Path) -> "Addresses | None":
        """What the folder's last `up` wrote, or None when there is nothing (readable) there."""
        try:
            return cls(**json.loads((folder / ADDRESSES_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
