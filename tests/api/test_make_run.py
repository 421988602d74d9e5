"""What a newcomer types first, in a fresh clone and with an empty environment."""

import os
import subprocess
from pathlib import Path

import pytest

from api.commands.data_folder import Addresses
from api.commands.processes import ChildProcess, wait_until
from tests.api.test_readme import block
from tests.api.test_up import OPEN_WITHIN_S, STOPPED_WITHIN_S, processes_of
from tests.pasting import pasted
from tests.tidy.project_files import ROOT, project_files

INSTALLED_WITHIN_S = 1_200
DATA = ".firstcome"


@pytest.mark.soak
@pytest.mark.timeout(INSTALLED_WITHIN_S + 300)
def test_make_run_in_an_empty_folder_serves_within_a_minute_and_sells(data_folder: Path) -> None:
    clone = data_folder / "clone"
    for path in project_files():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_bytes((ROOT / path).read_bytes())
        (clone / path).chmod((ROOT / path).stat().st_mode)
    environment = {name: os.environ[name] for name in ("HOME", "PATH")}
    installed = subprocess.run(
        ["make", "install"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALLED_WITHIN_S,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr

    run = ChildProcess(
        "make",
        ["make", "run", "ARGS=--port 0"],
        data_folder / "make.log",
        environment,
        cwd=clone,
        stop_timeout_s=STOPPED_WITHIN_S,
    )
    run.start()
    try:
        wait_until(
            lambda: Addresses.read(clone / DATA) is not None or not run.running,
            timeout_s=OPEN_WITHIN_S,
            what="the shop is open",
        )
        addresses = Addresses.read(clone / DATA)
        assert addresses is not None, run.log_tail(lines=40)
        printed = pasted(block(), data_folder, FIRSTCOME_URL=addresses.api_url)
        assert '"status":"completed"' in printed
        assert "/problems/" not in printed
    finally:
        run.stop()
    wait_until(
        lambda: processes_of(clone) == [], timeout_s=STOPPED_WITHIN_S, what="nothing of the clone is left running"
    )
    assert Addresses.read(clone / DATA) is None, "it was stopped cleanly"
