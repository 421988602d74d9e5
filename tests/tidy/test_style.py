"""Rules of style that a formatter does not know."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.tidy.project_files import ROOT, project_files, text_files

LINES_MAX = 1_000
FUNCTION_LINES_MAX = 80
BYTES_MAX = 512 * 1024

# In pieces, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile("|".join([r"/ro" r"ot/", r"/ho" r"me/[a-z]+/", r"/wo" r"rk/", r"/Us" r"ers/[a-z]+/"]))
REGISTRIES = re.compile("|".join([r"py" r"pi\.", r"python" r"hosted", r"npm" r"js\.", r"(extra-)?index" r"-url"]))
PACKAGES = ("api", "engine", "persistence")
# What others load by its name: uvicorn its parser, zoneinfo its zones, httpcore what tells it its event loop.
LOADED_BY_OTHERS = {"httptools", "tzdata", "sniffio"}


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRIES], ids=["machine paths", "package registries"])
def test_no_file_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_files_have_a_readable_size() -> None:
    long = {
        str(path): lines
        for path in text_files()
        if path.suffix in {".py", ".lua"}
        and (lines := (ROOT / path).read_text(encoding="utf-8").count("\n")) > LINES_MAX
    }
    big = {str(path) for path in project_files() if (ROOT / path).stat().st_size > BYTES_MAX}
    assert (long, big) == ({}, set())


Function = ast.FunctionDef | ast.AsyncFunctionDef


def own_lines(function: Function) -> int:
    """The lines of a function without those of the functions in it, each of which is read by itself."""
    inner = [node for node in ast.walk(function) if isinstance(node, Function) and node is not function]
    inside = {line for node in inner for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(set(range(function.lineno, (function.end_lineno or function.lineno) + 1)) - inside)


def test_functions_fit_a_screen() -> None:
    long = [
        f"{path}:{node.lineno} {node.name} has {own_lines(node)} lines"
        for path in python_files()
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, Function) and own_lines(node) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path)
        for path in python_files()
        if path.parts[0] in PACKAGES
        and path.name != "__main__.py"
        and not ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_lua_file_begins_with_what_it_does() -> None:
    silent = [
        str(path)
        for path in project_files()
        if path.suffix == ".lua" and not (ROOT / path).read_text(encoding="utf-8").startswith("--")
    ]
    assert silent == []


def test_versions_are_pinned_by_name_and_number_alone() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", pin)] == []
    assert pins == sorted(pins, key=lambda pin: pin.partition("==")[0].lower())


def test_every_dependency_is_imported_somewhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in declared} - LOADED_BY_OTHERS
    imported = {
        name.partition(".")[0]
        for path in python_files()
        if path.parts[0] in PACKAGES
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    provided_by = packages_distributions()
    used = {distribution.lower() for name in imported for distribution in provided_by.get(name, ())}
    assert wanted - used == set()


def test_make_targets_are_all_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\w+)", makefile, re.MULTILINE))
    assert targets == set(re.findall(r"^(\w+):.*## ", makefile, re.MULTILINE))
