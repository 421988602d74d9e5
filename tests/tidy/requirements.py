"""Holds docs/requirements.md and the tests together: which requirement is proved by which tests.

`python -m tests.tidy.requirements --write` brings the "Proved by" column and the list of open ids up to date;
without `--write` it says what is not as it should be and exits with 1.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "requirements.md"
OPEN_IDS = ROOT / "docs" / "requirements-open.txt"
COMMAND = "python -m tests.tidy.requirements --write"

_ROW = re.compile(r"^\| (?P<id>R\d+\.\d+) \| (?P<text>[^|]+) \| (?P<tests>[^|]*) \|$", re.MULTILINE)
_ID = re.compile(r"\bR\d+\.\d+\b")
_NOT_COLLECTED = {"soak", "skip", "xfail"}  # what `make test` does not run proves nothing to it


@dataclass(frozen=True, order=True, slots=True)
class MarkedTest:
    """A test by its file, relative to the project's root, and its name."""

    path: str
    name: str

    def __str__(self) -> str:
        return f"[{self.name}](../{self.path})"


def marked_tests(source: str, path: str) -> Iterator[tuple[MarkedTest, frozenset[str]]]:
    """The tests of one file with the requirement ids of their marks: their own, their class's and the file's.

    The file is parsed, not imported. Tests of which `make test` runs none are left out.
    """
    module = ast.parse(source, path)
    file_marks = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
    ]
    yield from _marked_in(module.body, file_marks, path, "")


def _marked_in(
    body: Iterable[ast.stmt], outer_marks: list[ast.expr], path: str, prefix: str
) -> Iterator[tuple[MarkedTest, frozenset[str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _marked_in(node.body, outer_marks + node.decorator_list, path, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            marks = outer_marks + node.decorator_list
            ids = frozenset(_requirement_ids(marks))
            if ids and not _NOT_COLLECTED & set(map(_outermost_mark, marks)):
                yield MarkedTest(path, prefix + node.name), ids


def _outermost_mark(mark: ast.expr) -> str | None:
    named = mark.func if isinstance(mark, ast.Call) else mark
    return named.attr if isinstance(named, ast.Attribute) else None


def _requirement_ids(marks: Iterable[ast.expr]) -> Iterator[str]:
    """Also finds marks within marks: those of a `pytest.param` count for its test."""
    for mark in marks:
        for node in ast.walk(mark):
            if isinstance(node, ast.Call) and _outermost_mark(node) == "requirement":
                for argument in node.args:
                    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                        raise ValueError(f"line {node.lineno}: a requirement is named by a plain string")
                    yield argument.value


def proofs_by_id(root: Path = ROOT) -> dict[str, list[MarkedTest]]:
    """All marked tests of the project, in order of file and name."""
    found: dict[str, list[MarkedTest]] = {}
    for file in sorted((root / "tests").rglob("test_*.py")):
        path = file.relative_to(root).as_posix()
        for test, ids in marked_tests(file.read_text(encoding="utf-8"), path):
            for requirement in ids:
                found.setdefault(requirement, []).append(test)
    return {requirement: sorted(tests) for requirement, tests in found.items()}


def requirement_ids(document: str) -> list[str]:
    """The ids that the document defines, in its order."""
    return [row["id"] for row in _ROW.finditer(document)]


def quoted_ids(document: str) -> set[str]:
    """The ids that stand beside a line of the request itself."""
    return {found for line in document.splitlines() if line.startswith("| «") for found in _ID.findall(line)}


def open_ids(listing: str) -> list[str]:
    """The ids on the list of those without a test yet."""
    return [line.strip() for line in listing.splitlines() if line.strip() and not line.startswith("#")]


def with_tests(document: str, tests: Mapping[str, list[MarkedTest]]) -> str:
    """The document with its "Proved by" column made anew."""

    def row(match: re.Match[str]) -> str:
        proofs = "<br>".join(map(str, tests.get(match["id"], []))) or "not yet"
        return f"| {match['id']} | {match['text']} | {proofs} |"

    return _ROW.sub(row, document)


def without(listing: str, proved: Iterable[str]) -> str:
    """The list of open ids without those that have a test now; nothing is ever put on it."""
    gone = set(proved)
    return "".join(line for line in listing.splitlines(keepends=True) if line.strip() not in gone)


def complaints(document: str, listing: str, tests: Mapping[str, list[MarkedTest]]) -> list[str]:
    """What is not as it should be, each with its remedy."""
    known, waiting = requirement_ids(document), open_ids(listing)
    found = [f"{name}: defined twice" for name in sorted({name for name in known if known.count(name) > 1})]
    found += [f"{name}: no line of the request stands beside it" for name in known if name not in quoted_ids(document)]
    found += [
        f"{name}: unknown, but marked in {tests[name][0].path}::{tests[name][0].name}"
        for name in sorted(set(tests) - set(known))
    ]
    found += [f"{name}: unknown, but on the list of open ids" for name in waiting if name not in known]
    found += [f"{name}: has a test now and leaves the list of open ids: {COMMAND}" for name in waiting if name in tests]
    found += [f"{name}: has no test" for name in known if name not in tests and name not in waiting]
    if with_tests(document, tests) != document:
        found.append(f"docs/requirements.md does not name the tests that there are: {COMMAND}")
    return found


def main(arguments: list[str]) -> int:
    tests = proofs_by_id()
    if "--write" in arguments:
        DOCUMENT.write_text(with_tests(DOCUMENT.read_text(encoding="utf-8"), tests), encoding="utf-8")
        OPEN_IDS.write_text(without(OPEN_IDS.read_text(encoding="utf-8"), tests), encoding="utf-8")
    found = complaints(DOCUMENT.read_text(encoding="utf-8"), OPEN_IDS.read_text(encoding="utf-8"), tests)
    sys.stdout.writelines(f"{complaint}\n" for complaint in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
