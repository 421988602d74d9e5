"""The command that writes the figures into the documents writes when it is asked to, and says what."""

import itertools
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests import report, tables, traffic
from loadtests.headlines import BEGIN, END, READMES, headline

WRONG_USAGE = 2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose documents were never written, apart from READMEs with no figures."""
    (tmp_path / "docs").mkdir()
    for readme in READMES:
        (tmp_path / readme).write_text(f"# A shop\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "docs" / "performance.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "docs" / "plots")
    return tmp_path


def test_the_headline_has_durable_answers_beside_row_locks_and_nothing_that_is_never_durable() -> None:
    """Like for like: who answers before it is in PostgreSQL is not in this row."""
    for language in READMES.values():
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in headline(report.load(), language).splitlines()
        ]
        title = language.titles.get(traffic.COUPON_DURABLE.name, traffic.COUPON_DURABLE.title)
        (_, *found) = next(row for row in rows if row[0] == title)
        assert found[2:] == [language.never_durable] * 2
        ours, theirs, times = (
            float(figure.replace(",", "")) for figure in re.findall(r"[\d,.]+(?=/s| x)", " ".join(found))
        )
        assert times == pytest.approx(ours / theirs, abs=0.06)
        assert theirs == round(tables.middle(report.load(), "row-locks", "coupon", tables.counted) or 0)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_it_writes_the_page_the_plots_and_the_table_and_names_each_file(project: Path) -> None:
    result = CliRunner().invoke(report.main, [])
    assert result.exit_code == 0, result.output
    written = contents(project)
    assert sorted(result.output.splitlines()) == sorted(f"wrote {name}" for name in written)
    assert {*READMES, "docs/performance.md", "docs/plots/coupon.svg"} <= written.keys()
    for readme, language in READMES.items():
        assert headline(report.load(), language) in written[readme]
        assert report.load()["machine"]["cpu"] in written[readme]


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


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0.0, [0, 1]),
        (3.2, [0, 1, 2, 3, 4]),
        (256.0, [0, 50, 100, 150, 200, 250, 300]),
        (299.9, [0, 50, 100, 150, 200, 250, 300]),
        (738.7, [0, 200, 400, 600, 800]),
        (6_616.2, [0, 2_000, 4_000, 6_000, 8_000]),
    ],
)
def test_the_ticks_of_an_axis_are_round_numbers_up_to_the_most(most: float, expected: list[int]) -> None:
    assert report.ticks(most) == expected


def test_every_table_of_the_page_says_what_its_columns_are() -> None:
    """No two columns of a table have one name, and each row has a cell for each."""
    heads, rule = [], re.compile(r"\|(-+:?\|)+")
    page = report.document(report.load()).splitlines()
    for before, line in itertools.pairwise(page):
        if rule.fullmatch(line):
            heads.append([cell.strip() for cell in before.strip("|").split("|")])
    assert len(heads) > 5
    assert [head for head in heads if len(set(head)) < len(head)] == []
    assert {"asked/s", "lag ms"} <= set(itertools.chain.from_iterable(heads))


def test_what_the_cores_did_is_told_to_the_last_microsecond() -> None:
    """From the echo to what was unused: the parts are all the time that there was."""
    results = report.load()
    rows = tables.distances(results)
    assert [row[0] for row in rows[:2]] == [traffic.COUPON.title, traffic.CHECKOUT.title]
    for title, answers, _, _, *parts in rows:
        spent = sum(float(part.replace(",", "")) for part in parts if part != "-")
        whole = results["machine"]["cores"] * 1e6 / float(answers.replace(",", ""))
        assert spent == pytest.approx(whole, abs=len(parts)), title
