"""The Korean README says what README.md says: the same sections, names, versions and documents."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tidy.project_files import ROOT

README = ROOT / "README.md"
KOREAN = ROOT / "docs" / "README.ko.md"
READMES = (README, KOREAN)
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def sections(readme: Path) -> list[int]:
    """The levels of the headings, one after the other."""
    text = BLOCK.sub("", readme.read_text(encoding="utf-8"))
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


def names(readme: Path) -> set[str]:
    """What is set as code within a line; formulas, which are told in words of the language, are left out."""
    text = BLOCK.sub("", readme.read_text(encoding="utf-8"))
    return {name for name in re.findall(r"`([^`\n]+)`", text) if " = " not in name}


def commands(readme: Path) -> list[str]:
    """Indented commands without what is said of them."""
    lines = re.findall(r"^    (\S.*)", BLOCK.sub("", readme.read_text(encoding="utf-8")), re.MULTILINE)
    return [line.partition("  #")[0].strip() for line in lines]


def versions(readme: Path) -> set[str]:
    """Versions, amounts and figures that have a point or a comma in them."""
    return set(re.findall(r"\d+(?:[.,]\d+)+", readme.read_text(encoding="utf-8")))


def documents(readme: Path) -> set[str]:
    """Where links lead to, from the clone's root; not those from one README to the other, or within one."""
    targets = re.findall(r"\]\(([^)]+)\)", readme.read_text(encoding="utf-8"))
    paths = {
        target if "://" in target else os.path.relpath(readme.parent / target, ROOT)
        for target in targets
        if not target.startswith("#")
    }
    return paths - {str(each.relative_to(ROOT)) for each in READMES}


@pytest.mark.parametrize("found", [sections, names, commands, versions, documents], ids=lambda found: found.__name__)
def test_both_readmes_have_the_same(found: Callable[[Path], object]) -> None:
    in_english, in_korean = map(found, READMES)
    assert in_english
    assert in_korean == in_english
