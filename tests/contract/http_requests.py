"""Reads `.http` files as an editor does that sends what is in them: requests, variables, what answers held."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_VARIABLE: Final = re.compile(r"\{\{([^}]+)\}\}")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it stands in the file, variables and all."""

    title: str
    name: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: str

    def resolved(self, variables: Mapping[str, str], answers: Mapping[str, Any]) -> HttpRequest:
        """The request with every variable replaced; KeyError where one is not known."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name == "$guid":
                return str(uuid.uuid4())
            request, _, member = name.partition(".response.body.$.")
            return str(answers[request][member]) if member else variables[name]

        def fill(text: str) -> str:
            return _VARIABLE.sub(value, text)

        headers = {name: fill(text) for name, text in self.headers.items()}
        return HttpRequest(self.title, self.name, self.method, fill(self.url), headers, fill(self.body))


def read_http(text: str) -> tuple[dict[str, str], list[HttpRequest]]:
    """The file's variables, and its requests in their order."""
    head, *blocks = re.split(r"^### ", text, flags=re.MULTILINE)
    return dict(re.findall(r"^@(\w+) = (.*)$", head, re.MULTILINE)), [_request(block) for block in blocks]


def _request(block: str) -> HttpRequest:
    lines = iter(block.splitlines())
    title = next(lines)
    name = ""
    line = next(lines)
    if line.startswith("# @name "):
        name, line = line.removeprefix("# @name "), next(lines)
    method, url = line.split(" ", 1)
    headers = dict(header.split(": ", 1) for header in _until_blank(lines))
    body = "\n".join(line for line in lines if not line.startswith("#"))
    return HttpRequest(title, name, method, url, headers, body.strip())


def _until_blank(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line:
            return
        yield line
