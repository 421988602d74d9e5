"""The documents of the HTTP surface are those of the program, and need nothing from elsewhere."""

import re

import pytest

from tests.tidy.api_documents import FOLDER, documents


@pytest.mark.parametrize("name", ["api.html", "how-to-retry.md", "firstcome.http"])
def test_the_document_is_what_the_program_makes_now(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == documents()[name], "run: make docs"


def test_there_are_no_other_documents_of_the_surface() -> None:
    assert set(documents()) == {"api.html", "how-to-retry.md", "firstcome.http"}


def test_the_page_in_one_file_loads_nothing() -> None:
    page = documents()["api.html"]
    assert re.findall(r"<(?:link|img|iframe|object|embed|base)\b|<script[^>]+src|@import|url\(|\bfetch\(", page) == []
    links = re.findall(r'<a href="https://[^"]+" rel="noreferrer">', page)
    assert len(re.findall(r'(?:href|src)="([^"#][^"]*)"', page)) == len(links)


def test_every_link_within_the_page_leads_somewhere() -> None:
    page = documents()["api.html"]
    anchors = re.findall(r' id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert len(targets) > 60
    assert targets <= set(anchors)
