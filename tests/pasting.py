"""What a document says to type, typed into a shell as it stands."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

BASH = ("bash", "-eu", "-o", "pipefail")
SHELLS = (BASH, ("sh", "-eu"))


def run_in(shell: Sequence[str], script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script run to its end in a shell, whatever that is."""
    return subprocess.run(
        [*shell, "-c", script],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def pasted(script: str, folder: Path, *, shell: Sequence[str] = BASH, **environment: str) -> str:
    """What a script prints that a reader pastes into a shell; it must end well and complain of nothing."""
    result = run_in(shell, script, folder, **environment)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout
