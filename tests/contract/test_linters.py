"""What others lint specifications with has nothing to say of ours, not even a hint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from api.openapi import openapi_json

SPECTRAL: Final = "@stoplight/spectral-cli@6"
REDOCLY: Final = "@redocly/cli@2"
NPX: Final = shutil.which("npx")
WITHIN_S: Final = 600


def npx(package: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a command of npm says; a package that is not there already comes from its registry."""
    assert NPX is not None
    command = [NPX, "--yes", package, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=WITHIN_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "openapi.json").write_bytes(openapi_json())
    return tmp_path


def require(package: str, folder: Path) -> None:
    """Skips, with the reason, where the linter cannot be had: only then does its failure say nothing of ours."""
    if NPX is None:
        pytest.skip("there is no npx on the PATH")
    version = npx(package, "--version", folder=folder)
    if version.returncode != 0:
        pytest.skip(f"npx does not get {package}: {version.stderr[-300:]}")


@pytest.mark.soak
def test_spectral_finds_nothing_to_mend(folder: Path) -> None:
    require(SPECTRAL, folder)
    (folder / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    arguments = ("lint", "openapi.json", "--ruleset", "rules.yaml", "--fail-severity", "hint")
    linted = npx(SPECTRAL, *arguments, folder=folder)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "No results with a severity of 'hint' or higher found" in linted.stdout


@pytest.mark.soak
def test_redocly_finds_nothing_to_mend(folder: Path) -> None:
    require(REDOCLY, folder)
    linted = npx(REDOCLY, "lint", "openapi.json", "--extends", "recommended", "--format", "json", folder=folder)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert '"problems": []' in linted.stdout, linted.stdout
