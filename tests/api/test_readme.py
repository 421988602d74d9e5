"""The README does what it says when it is pasted."""

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from api.commands import COMMANDS
from api.commands.demo import make_demo
from tests.servers import Databases
from tests.shop_servers import opened_shop

README = Path(__file__).resolve().parents[2] / "README.md"


def block() -> str:
    """The commands of the first purchase, as they stand."""
    (found,) = re.findall(r"<!-- tests/api/test_readme.py [^\n]*-->\n```bash\n(.*?)```", README.read_text(), re.DOTALL)
    return str(found)


@pytest.mark.requirement("R0.1", "R3.9", "R5.1")
def test_the_first_purchase_works_as_it_is_written(databases: Databases, tmp_path: Path) -> None:
    with opened_shop(databases) as shop:
        with httpx.Client(base_url=shop.url()) as client:
            assert make_demo(client)
        for _ in range(2):  # pasted twice, it is another user's purchase
            result = subprocess.run(
                ["bash", "-eu", "-o", "pipefail", "-c", block()],
                env={**os.environ, "FIRSTCOME_URL": shop.url()},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (result.returncode, result.stderr) == (0, ""), result
            assert "/problems/" not in result.stdout
            for expected in (
                '"balance":100000',
                '"issue_number"',
                '"status":"awaiting_payment"',
                '"discount":6000',
                '"status":"completed"',
                '"balance":46000',
                '"quantity_sold"',
            ):
                assert expected in result.stdout
        shop.assert_conserved()


def test_every_command_is_in_the_table() -> None:
    assert re.findall(r"^\| `firstcome (\S+)` \|", README.read_text(), re.MULTILINE) == list(COMMANDS)


def test_every_document_that_it_points_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert [target for target in targets if not (README.parent / target).exists()] == []
