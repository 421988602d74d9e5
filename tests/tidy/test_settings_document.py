"""The page of settings is that of the program."""

from api.commands import setting_names
from tests.tidy.settings_document import DOCUMENT, PARTS, document


def test_the_page_names_every_setting_as_the_program_has_it() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m tests.tidy.settings_document"


def test_what_is_called_a_setting_is_what_the_page_has() -> None:
    """A variable that only one of the two knew would be told to be none, or not told."""
    assert set(PARTS.values()) == set(setting_names.PARTS)
