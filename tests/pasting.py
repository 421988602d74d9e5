"""What a document says to type, typed into a shell as it stands."""

import os
import subprocess
from pathlib import Path


def pasted(script: str, folder: Path, **environment: str) -> str:
    """What a script prints that a reader pastes into a shell; it must end well and complain of nothing."""
    result = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout
