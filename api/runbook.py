"""The page of `/runbook`: for each alarm and each alert what it means and what to do, reachable where the shop runs.

It is the section about alarms of docs/operations.md, which `make docs` puts into this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

from api.page_parts import inline, prose

PATH: Final = "/runbook"
_TITLE: Final = "Runbook"


def address(entry: str) -> str:
    """Where the entry is on every server of this API."""
    return f"{PATH}#{entry.lower()}"


@cache
def entries() -> Mapping[str, str]:
    """The text of each entry by its title."""
    text = (files("api") / "static" / "runbook.md").read_text(encoding="utf-8")
    parts = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    return {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}


@cache
def runbook_html() -> str:
    """The whole page."""
    contents = "".join(f'<li><a href="#{escape(title.lower())}">{escape(title)}</a>' for title in entries())
    sections = "".join(
        f'<section id="{escape(title.lower())}"><h2>{inline(title)}</h2>{prose(body)}</section>'
        for title, body in entries().items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_TITLE}</title><link rel="stylesheet" href="docs/docs.css">'
        f'<nav><details id="contents"><summary>Contents</summary><ul>{contents}</ul></details></nav>'
        f"<main><h1>{_TITLE}</h1><p>When an alarm of <a href='console'>the console</a> or an alert of Prometheus calls."
        f'</p>{sections}</main><script src="docs/docs.js"></script></html>'
    )
