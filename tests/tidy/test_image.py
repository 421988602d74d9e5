"""What is in the image, by what its Dockerfile says: the program, what it stands on, and nothing else. No engine is
asked."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from api.operations import OPERATIONS
from tests.tidy.image import Copied, copied, is_let_in, steps
from tests.tidy.project_files import ROOT, project_files

PACKAGES = ("api", "engine", "lua", "persistence")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEPS = steps()
LAST = STEPS[-1].stage
COPIED = list(copied())


def of_stage(stage: int) -> list[Copied]:
    return [file for file in COPIED if file.stage == stage]


def said(word: str) -> list[str]:
    """What the last stage says with a word."""
    return [step.text for step in STEPS if (step.stage, step.word) == (LAST, word)]


def test_the_program_is_built_of_every_file_of_its_packages_and_no_other() -> None:
    assert LAST == 1
    program = {path for path in project_files() if path.parts[0] in PACKAGES}
    about = {Path(name) for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")}
    assert {file.source for file in of_stage(0)} == program | about
    assert all(file.target.as_posix() == file.source.as_posix() for file in of_stage(0) if file.source in program)


def test_beside_the_program_the_image_has_what_starts_it_and_nothing_else() -> None:
    inside = {(file.source.as_posix(), file.target.as_posix(), file.mode) for file in of_stage(LAST)}
    scripts = {
        (f"deploy/{name}", f"/usr/local/bin/{name}", "755") for name in ("with-secrets", "is-healthy", "make-secrets")
    }
    assert inside == {*scripts, ("deploy/redis.acl", "/usr/local/share/firstcome/redis.acl", None)}
    brought = [step for step in STEPS if step.stage == LAST and step.word == "COPY" and "from" in step.options]
    assert [(step.options, step.arguments) for step in brought] == [
        ({"from": "build"}, ["/opt/firstcome", "/opt/firstcome"])
    ]
    assert said("ADD") == []


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".git/config", ".venv/bin/python", ".firstcome/postgres/postmaster.pid", "tests/conftest.py",
        "loadtests/bench.py", "docs/api.html", "api/__pycache__/app.cpython-313.pyc", "docker-compose.yml",
        "secrets/token", "firstcome.egg-info/PKG-INFO", "build/lib/api/app.py",
    ],
)  # fmt: skip
def test_what_lies_about_in_a_clone_is_not_even_seen(path: str) -> None:
    assert not is_let_in(Path(path))
    assert is_let_in(Path("api/static/docs.js"))


def test_it_is_installed_at_pinned_versions_and_of_the_extras_with_the_one_for_traces() -> None:
    install, program = (step.text for step in STEPS if (step.stage, step.word) == (0, "RUN"))
    assert "pip install --quiet -c constraints.txt '.[otel]'\n" in f"{install}\n"
    assert "pip install --quiet --no-deps --force-reinstall . " in program
    assert (install + program).count(".[") == 1
    assert "pip uninstall --quiet --yes pip" in program


def test_what_the_program_imports_comes_without_any_extra() -> None:
    """But for what a function imports, which says what is missing."""
    needed = {re.split(r"[\[><=;]", each)[0].lower().replace("_", "-") for each in PROJECT["dependencies"]}
    homes = packages_distributions()
    strange = set()
    for path in project_files():
        if path.parts[0] in PACKAGES and path.suffix == ".py":
            for name in imported_at_once(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
                top = name.partition(".")[0]
                homes_of = {home.lower().replace("_", "-") for home in homes.get(top, [])}
                if top not in sys.stdlib_module_names and top not in PACKAGES and not homes_of & needed:
                    strange.add((path.as_posix(), name))
    assert strange == set()


def imported_at_once(module: ast.Module) -> set[str]:
    """What is imported when the module is, whatever the type checker reads besides."""
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_what_it_runs_is_there_and_not_as_root() -> None:
    assert said("USER") == ["firstcome"]
    assert any("useradd --system --uid 10001" in text for text in said("RUN"))
    on_the_path = {file.target.name for file in of_stage(LAST) if file.target.parent.name == "bin"} | PROJECT[
        "scripts"
    ].keys()
    (entry,), (probe,) = said("ENTRYPOINT"), said("HEALTHCHECK")
    assert json.loads(entry) == ["with-secrets", "firstcome"]
    assert set(json.loads(entry)) <= on_the_path
    assert set(json.loads(probe.partition(" CMD ")[2])) <= on_the_path
    assert any("/opt/firstcome/bin:$PATH" in text for text in said("ENV"))


def test_the_health_check_asks_for_what_is_served() -> None:
    """By itself an API; a worker where it is told to serve its metrics."""
    script = (ROOT / "deploy" / "is-healthy").read_text(encoding="utf-8")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    environments = [service.get("environment", {}) for service in compose["services"].values()]
    addresses = {each["HEALTH_URL"] for each in environments if "HEALTH_URL" in each}
    assert re.findall(r'"(http://[^"]+)"', script) == ["http://127.0.0.1:8000/readyz"]
    served = {f"http://127.0.0.1:8000{each.path}" for each in OPERATIONS if each.security == "none"}
    ports = {each["FIRSTCOME_WORKER_METRICS_PORT"] for each in environments if "FIRSTCOME_WORKER_METRICS_PORT" in each}
    assert "http://127.0.0.1:8000/readyz" in served
    assert addresses <= served | {f"http://127.0.0.1:{port}/metrics" for port in ports}
    assert {"8000", *map(str, ports)} <= set(said("EXPOSE")[0].split())
