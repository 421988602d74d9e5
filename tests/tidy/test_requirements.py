"""The gate between docs/requirements.md and the tests."""

import pytest

from tests.tidy import requirements
from tests.tidy.requirements import MarkedTest

DOCUMENT = """
| «잔액을 조회한다» | R1.1 |

| id | requirement | proved by |
|---|---|---|
| R1.1 | A balance is read. | {tests} |
"""
A_TEST = MarkedTest("tests/unit/test_a.py", "test_one")


@pytest.mark.requirement("R0.2")
def test_every_requirement_has_a_test_or_stands_on_the_list_that_only_shrinks() -> None:
    found = requirements.complaints(
        requirements.DOCUMENT.read_text(encoding="utf-8"),
        requirements.OPEN_IDS.read_text(encoding="utf-8"),
        requirements.proofs_by_id(),
    )
    assert not found, "\n" + "\n".join(found)


def test_marks_are_found_on_functions_classes_files_and_parameters() -> None:
    source = """
import pytest

pytestmark = [pytest.mark.requirement("R0.1")]

@pytest.mark.requirement("R1.1", "R1.2")
async def test_one(): ...

@pytest.mark.requirement("R1.3")
class TestGroup:
    def test_two(self): ...

@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.requirement("R1.4"))])
def test_three(x): ...
"""
    assert dict(requirements.marked_tests(source, "tests/test_x.py")) == {
        MarkedTest("tests/test_x.py", "test_one"): {"R0.1", "R1.1", "R1.2"},
        MarkedTest("tests/test_x.py", "TestGroup.test_two"): {"R0.1", "R1.3"},
        MarkedTest("tests/test_x.py", "test_three"): {"R0.1", "R1.4"},
    }


def test_a_test_that_is_not_run_each_time_proves_nothing() -> None:
    source = '@pytest.mark.soak\n@pytest.mark.requirement("R1.1")\ndef test_long(): ...\n'
    assert not list(requirements.marked_tests(source, "tests/test_x.py"))


def test_an_id_that_is_not_a_plain_string_is_refused() -> None:
    with pytest.raises(ValueError, match="plain string"):
        list(requirements.marked_tests("@pytest.mark.requirement(ID)\ndef test_a(): ...\n", "tests/test_x.py"))


@pytest.mark.parametrize(
    ("document", "listing", "tests", "complaint"),
    [
        (DOCUMENT.format(tests="not yet"), "", {}, "R1.1: has no test"),
        (DOCUMENT.format(tests=A_TEST), "R1.1\n", {"R1.1": [A_TEST]}, "R1.1: has a test now"),
        (DOCUMENT.format(tests=A_TEST), "R9.9\n", {"R1.1": [A_TEST]}, "R9.9: unknown, but on the list"),
        (DOCUMENT.format(tests=A_TEST), "", {"R1.1": [A_TEST], "R9.9": [A_TEST]}, "R9.9: unknown, but marked in"),
        (DOCUMENT.format(tests="test_gone"), "", {"R1.1": [A_TEST]}, "does not name the tests that there are"),
        (DOCUMENT.format(tests=A_TEST).replace("«", ""), "", {"R1.1": [A_TEST]}, "R1.1: no line of the request"),
    ],
)
def test_the_gate_names_what_is_wrong(
    document: str, listing: str, tests: dict[str, list[MarkedTest]], complaint: str
) -> None:
    found = requirements.complaints(document, listing, tests)
    assert len(found) == 1
    assert complaint in found[0]


def test_writing_names_the_tests_and_shortens_the_list_of_open_ids() -> None:
    tests = {"R1.1": [A_TEST]}
    document = requirements.with_tests(DOCUMENT.format(tests="not yet"), tests)
    listing = requirements.without("# a comment\nR1.1\n", tests)
    assert (document, listing) == (DOCUMENT.format(tests=A_TEST), "# a comment\n")
    assert requirements.complaints(document, listing, tests) == []
