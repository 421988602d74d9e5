"""The command that writes the figures into the documents writes when it is asked to, and says what."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests import report

WRONG_USAGE = 2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose documents were never written, apart from a README with no figures."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"# A shop\n\n{report.BEGIN}\n{report.END}\n", encoding="utf-8")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "docs" / "performance.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "docs" / "plots")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_it_writes_the_page_the_plots_and_the_table_and_names_each_file(project: Path) -> None:
    result = CliRunner().invoke(report.main, [])
    assert result.exit_code == 0, result.output
    written = contents(project)
    assert sorted(result.output.splitlines()) == sorted(f"wrote {name}" for name in written)
    assert {"README.md", "docs/performance.md", "docs/plots/coupon.svg"} <= written.keys()
    assert report.headline(report.load()) in written["README.md"]


def test_its_help_says_what_it_writes_and_writes_nothing(project: Path) -> None:
    before = contents(project)
    result = CliRunner().invoke(report.main, ["--help"])
    assert result.exit_code == 0, result.output
    for name in ("docs/performance.md", "docs/plots", "README"):
        assert name in result.output
    assert contents(project) == before


@pytest.mark.parametrize("argument", ["--short", "results"])
def test_it_refuses_what_it_does_not_know_and_writes_nothing(project: Path, argument: str) -> None:
    before = contents(project)
    result = CliRunner().invoke(report.main, [argument])
    assert (result.exit_code, contents(project)) == (WRONG_USAGE, before)
    assert argument in result.output
