"""The page of settings is that of the program."""

from tests.tidy.settings_document import DOCUMENT, document


def test_the_page_names_every_setting_as_the_program_has_it() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m tests.tidy.settings_document"
