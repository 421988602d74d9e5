"""The figures that the READMEs and docs/performance.md show are those of the saved results."""

import pytest

from loadtests.headlines import READMES, with_headline
from loadtests.report import DOCUMENT, PLOTS, document, load, plots
from tests.tidy.project_files import ROOT


@pytest.mark.parametrize("name", READMES)
def test_the_readme_shows_the_saved_figures(name: str) -> None:
    readme = (ROOT / name).read_text(encoding="utf-8")
    assert "official.json" in readme
    assert readme == with_headline(readme, load(), READMES[name])


def test_the_page_and_its_plots_are_made_from_the_saved_results() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(load())
    assert {path.name: path.read_text(encoding="utf-8") for path in PLOTS.iterdir()} == plots(load())
