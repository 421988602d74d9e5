"""What a run takes of the machine, from /proc; and what machine it is."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from api.commands.server_files import redis_programs

PACKAGES = (
    "uvicorn", "uvloop", "httptools", "starlette", "msgspec", "hiredis", "redis", "psycopg", "fastapi", "sqlalchemy",
    "asyncpg",
)  # fmt: skip


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU that these processes and all below them have used, those that have ended included."""
    total = 0.0
    for pid in pids:
        for process in _family(pid):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
            if process.pid == pid:
                total += times.children_user + times.children_system
    return total


def memory_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes and all below them; what several share is counted once."""
    total = 0
    for pid in pids:
        for process in _family(pid):
            try:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0]) * 1024
    return total


def cpu_of_roles(roles: Mapping[str, list[int]]) -> dict[str, float]:
    """CPU seconds so far by role."""
    return {role: cpu_seconds(pids) for role, pids in roles.items()}


def _model() -> str:
    try:
        found = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = []
    return found[0].strip() if found else platform.processor() or platform.machine()


def _redis() -> str:
    """The server program that all systems use, and whose malloc it has."""
    program = redis_programs()[0]
    said = _says(str(program.program), "--version")
    found = re.search(r"(?P<name>\w+) server v=(?P<version>\S+) .*malloc=(?P<malloc>\S+)", said)
    if found is None:
        return program.flavour
    return f"{found['name']} {found['version']} with {program.allocator or found['malloc']}"


def _says(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return "not there"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""


def description() -> dict[str, object]:
    """The machine and the versions of what takes part."""
    return {
        "cpu": _model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "redis": _redis(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit of the program that is measured, with a mark where files differ from it."""
    root = Path(__file__).resolve().parent
    head = _says("git", "-C", str(root), "rev-parse", "--short", "HEAD")
    changed = _says("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return f"{head}, with changes" if changed else head
