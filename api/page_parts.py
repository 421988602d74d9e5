"""Pieces of HTML that the pages are put together from: prose, tables, examples, and the members of a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, Final

from engine.policy import INTEGER_MAX

_INLINE: Final = re.compile(r"(`[^`]*`|\*\*.+?\*\*|\[[^\]]*\]\([^)]*\))")
_LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")
_NUMBERED: Final = re.compile(r"\d+\. ")
_DEPTH_MAX: Final = 4


def inline(text: str) -> str:
    """A line of the Markdown that the specification uses. A problem's link leads to it on the page, an address
    elsewhere to there, and any other is shown and not linked."""
    pieces = []
    for piece in _INLINE.split(text):
        if piece.startswith("`"):
            pieces.append(f"<code>{escape(piece[1:-1])}</code>")
        elif piece.startswith("**"):
            pieces.append(f"<strong>{inline(piece[2:-2])}</strong>")
        elif link := _LINK.fullmatch(piece):
            label, target = link.groups()
            if target.startswith("/problems/"):
                pieces.append(f'<a href="#problem-{escape(target.removeprefix("/problems/"))}">{inline(label)}</a>')
            elif target.startswith("https://"):
                pieces.append(f'<a href="{escape(target)}" rel="noreferrer">{inline(label)}</a>')
            else:
                pieces.append(f"{inline(label)} ({escape(target)})")
        else:
            pieces.append(escape(piece))
    return "".join(pieces)


def prose(text: str) -> str:
    """Paragraphs and numbered lists."""
    blocks = []
    for block in filter(None, re.split(r"\n\n+", text.strip())):
        if _NUMBERED.match(block):
            items = "".join(f"<li>{inline(_NUMBERED.sub('', line, count=1))}</li>" for line in block.split("\n"))
            blocks.append(f"<ol>{items}</ol>")
        else:
            blocks.append(f"<p>{inline(block)}</p>")
    return "".join(blocks)


def code(text: str, kind: str = "") -> str:
    """A block of code."""
    return f"<pre{_mark('class', kind)}><code>{escape(text)}</code></pre>"


def as_json(value: Any) -> str:
    """A value as it is shown."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """A table of cells that are HTML already. Each cell knows its column, so that narrow screens can stack them."""
    names = list(head)
    titles = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-is="{escape(name)}">{cell}</td>' for name, cell in zip(names, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def folded(summary: str, inside: str, *, anchor: str = "", kind: str = "") -> str:
    """Something to be opened."""
    marks = _mark("id", anchor) + _mark("class", kind)
    return f"<details{marks}><summary>{summary}</summary>{inside}</details>"


def _mark(name: str, value: str) -> str:
    return f' {name}="{value}"' if value else ""


class Schemas:
    """The schemas of a specification, as tables of members."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        self._components = components

    def members(self, schema: Mapping[str, Any]) -> str:
        """Every member, however deep, with its type, limits and meaning; "" for a schema without any."""
        rows = [
            [
                f"<code>{escape(name)}</code>{'' if required else ' <em>optional</em>'}",
                escape(self.type_of(part)),
                inline(text),
            ]
            for name, part, required, text in self._walk(schema, "", 0)
        ]
        return table(("member", "type", "meaning"), rows, "members") if rows else ""

    def type_of(self, schema: Mapping[str, Any]) -> str:
        """A type with its limits, in words."""
        schema = self._resolved(schema)
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return " or ".join(dict.fromkeys(self.type_of(option) for option in options))
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " | ".join(json.dumps(value) for value in schema["enum"])
        kind = str(schema.get("type", "any"))
        if kind == "array":
            bounds = (("minItems", "at least"), ("maxItems", "at most"))
            limits = [f"{word} {schema[name]}" for name, word in bounds if name in schema]
            return ", ".join([f"list of {self.type_of(schema['items'])}", *limits])
        limits = [_limits(schema)] if _limits(schema) else []
        return ", ".join([kind, *limits])

    def _walk(
        self, schema: Mapping[str, Any], prefix: str, depth: int
    ) -> Iterator[tuple[str, Mapping[str, Any], bool, str]]:
        schema = self._resolved(schema)
        required = schema.get("required", ())
        for name, part in schema.get("properties", {}).items():
            yield f"{prefix}{name}", part, name in required, self._meaning(part)
            inner, mark = part, ""
            for option in part.get("anyOf", ()):
                inner = option if option.get("type") != "null" else inner
            inner = self._resolved(inner)
            if inner.get("type") == "array":
                inner, mark = self._resolved(inner["items"]), "[]"
            if inner.get("type") == "object" and depth < _DEPTH_MAX:
                yield from self._walk(inner, f"{prefix}{name}{mark}.", depth + 1)

    def _meaning(self, schema: Mapping[str, Any]) -> str:
        if "description" in schema:
            return str(schema["description"])
        if "$ref" in schema:
            return self._meaning(self._resolved(schema))
        parts = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]
        return next((found for part in parts if (found := self._meaning(part))), "")

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in schema:
            return schema
        found: Mapping[str, Any] = self._components[schema["$ref"].rpartition("/")[2]]
        return found


def _limits(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema or "maximum" in schema:
        low, high = schema.get("minimum"), schema.get("maximum")
        shown = {None: "", INTEGER_MAX: "2^53-1", -INTEGER_MAX: "-(2^53-1)"}
        text = f"{shown.get(low, low)} to {shown.get(high, high)}"
    elif "maxLength" in schema:
        text = f"{schema.get('minLength', 0)} to {schema['maxLength']} characters"
    elif "format" in schema:
        text = str(schema["format"])
    elif (pattern := str(schema.get("pattern", ""))) and (found := re.search(r"\{(\d+),(\d+)\}(?:\$|\\Z)$", pattern)):
        text = f"{found[1]} to {found[2]} characters"
    else:
        text = ""
    return f"{text}, {schema['default']} unless said" if "default" in schema and schema["default"] is not None else text
