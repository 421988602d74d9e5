"""The diagrams say what the program does."""

import re

import pytest

from api.problems import PROBLEMS
from engine.scripts import load_scripts
from tests.tidy import diagrams

TEXTS = {name: (diagrams.FOLDER / f"{name}.mmd").read_text(encoding="utf-8") for name in diagrams.names()}
FIELDS = {
    "awaiting_payment", "campaign_id", "coupon_id", "insufficient_balance", "order_id", "pay_before", "user_id",
}  # fmt: skip
SEQUENCES = {name: TEXTS[name] for name in diagrams.SEQUENCES}


def words(text: str) -> set[str]:
    """Names in a diagram that are written as scripts are."""
    return set(re.findall(r"(?<!\.)\b[a-z]+(?:_[a-z]+)+\b", text))


def test_what_is_made_from_the_program_is_current() -> None:
    assert {name: TEXTS[name] for name in diagrams.made()} == diagrams.made()
    assert (diagrams.FOLDER / "README.md").read_text(encoding="utf-8") == diagrams.page()


@pytest.mark.requirement("R0.7")
def test_there_are_sequences_tables_classes_and_states_and_each_has_a_picture_of_its_text() -> None:
    kinds = {text.partition("\n")[0] for text in TEXTS.values()}
    assert kinds == {"sequenceDiagram", "erDiagram", "classDiagram", "stateDiagram-v2"}
    for name in TEXTS:
        picture = (diagrams.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
        assert picture.startswith("<svg")
        assert picture.endswith(diagrams.mark_of(name) + "\n"), "run `python -m tests.tidy.diagrams --render MMDC`"


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_names_scripts_problems_and_participants_that_there_are(name: str) -> None:
    text = SEQUENCES[name]
    participants = set(re.findall(r"^    (?:actor|participant) (\w+)(?: as (\w+))?", text, re.MULTILINE))
    shown = {alias or given for given, alias in participants}
    assert shown <= diagrams.PARTICIPANTS
    assert {kind for kind in re.findall(r"event (\w+\.\w+)", text)} <= {
        kind for script in load_scripts().values() for kind in script.head.events
    }
    for status, problem in re.findall(r"\b([45]\d\d) ([a-z]+(?:-[a-z]+)+)", text):
        assert PROBLEMS[problem].status == int(status), problem
    scripts = words(text) - FIELDS
    assert scripts
    assert scripts <= load_scripts().keys()


def test_every_script_of_a_users_flow_stands_in_a_sequence() -> None:
    named = words("".join(SEQUENCES.values()))
    subjects = ("wallet", "order", "stock", "coupon")
    flows = {name for name in load_scripts() if name.endswith(subjects)} - {"adjust_stock", "adopt_stock", "fail_order"}
    assert flows <= named
