"""A newcomer finds a thing where the architecture says it is."""

from tests.tidy.project_files import ROOT, project_files

FOLDERS = {".ci", "api", "deploy", "docs", "engine", "loadtests", "lua", "persistence", "tests"}
FILES = {
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "constraints.txt",
    "docker-compose.yml",
    "pyproject.toml",
}
VAGUE_NAMES = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


def test_the_root_holds_only_what_the_architecture_names() -> None:
    assert {path.parts[0] for path in project_files()} <= FOLDERS | FILES


def test_the_root_holds_all_that_a_clone_needs() -> None:
    assert {path.name for path in project_files() if len(path.parts) == 1} >= FILES


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [path for path in project_files() if {path.stem, *path.parts[:-1]} & VAGUE_NAMES]
    assert vague == []


def test_lua_holds_nothing_but_lua() -> None:
    other = [path for path in project_files() if path.parts[0] == "lua" and path.suffix != ".lua"]
    assert [str(path) for path in other] == ["lua/__init__.py"]


def test_every_folder_of_python_is_a_package() -> None:
    folders = {path.parent for path in project_files() if path.suffix == ".py" and path.name != "conftest.py"}
    missing = [folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()]
    assert missing == []
