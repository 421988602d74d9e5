"""The Lua scripts: loading, includes, and the head comment that states what a script takes and answers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha1
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

_INCLUDE = re.compile(r"^---[ \t]*@include\b(?P<name>.*)$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HEAD = re.compile(r"\A--\[\[\n(?P<body>.*?)\n\]\]", re.DOTALL)
_SECTION = re.compile(r"(KEYS|ARGV|Returns|Event)\b")
_ARGUMENT = re.compile(
    r"(?P<table>KEYS|ARGV)\[(?P<index>[1-9]\d*)(?P<repeats>\.\.\.)?\] +"
    r"(?P<name>[a-z][a-z0-9_]*)(?: {2,}(?P<comment>.*))?"
)
_RETURN = re.compile(r"(?P<values>[a-z][a-z0-9_]*(?:, ?[a-z][a-z0-9_]*(?:\.\.\.)?)*)(?: {2,}(?P<comment>.*))?")
_EVENTS = re.compile(r"Events? +(?P<types>[a-z_.]+(?: *\| *[a-z_.]+)*)(?: {2,}.*)?")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a script's KEYS or ARGV, or from ``index`` on all of them where it ``repeats``."""

    index: int
    name: str
    repeats: bool
    comment: str


@dataclass(frozen=True, slots=True)
class Return:
    """A status that a script answers, and the names of the values that follow it in the reply."""

    status: str
    fields: tuple[str, ...]
    comment: str


@dataclass(frozen=True, slots=True)
class ScriptHead:
    """A script's head comment. ``returns`` are in order of precedence; ``events`` is empty where it only reads."""

    purpose: str
    keys: tuple[Parameter, ...]
    arguments: tuple[Parameter, ...]
    returns: tuple[Return, ...]
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A script as Redis gets it: ``source`` has its includes in place, ``sha1`` is for EVALSHA (40 hex digits).

    ``claim`` is put before the server's identity in ARGV[1]: the mark of a recovery, whose scripts alone run then.
    """

    name: str
    source: str
    sha1: bytes
    head: ScriptHead
    claim: bytes = b""

    def claimed(self, claim: bytes) -> "Script":
        """The same script, under a recovery's claim. The identity stays a part of its mark, so another server that
        has copied the mark does not know it for its own."""
        return replace(self, claim=claim)


class Scripts(Mapping[str, Script]):
    """The scripts by name, as in ``scripts["charge_wallet"]``."""

    __slots__ = ("_by_name",)

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._by_name = dict(scripts)

    def __getitem__(self, name: str) -> Script:
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(f"no script {name!r}; there are: {', '.join(sorted(self._by_name))}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


@cache
def load_scripts() -> Scripts:
    """Every script of the ``lua`` package. Raises ValueError naming the file when an include or a head is wrong."""
    return read_scripts(files("lua"))


def read_scripts(folder: Traversable) -> Scripts:
    """The scripts of a folder of ``*.lua`` files with an ``include`` folder in it."""
    includes = {name: text for name, text in _lua_files(folder.joinpath("include"))}
    return Scripts({name: _script(name, text, includes) for name, text in _lua_files(folder)})


def _lua_files(folder: Traversable) -> list[tuple[str, str]]:
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".lua")] if folder.is_dir() else []
    return [
        (entry.name.removesuffix(".lua"), entry.read_text(encoding="utf-8"))
        for entry in sorted(found, key=lambda entry: entry.name)
    ]


def _script(name: str, text: str, includes: Mapping[str, str]) -> Script:
    try:
        head = parse_head(text)
        source = resolve_includes(text, includes)
    except ValueError as error:
        raise ValueError(f"lua/{name}.lua: {error}") from error
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest().encode(), head)


def resolve_includes(text: str, includes: Mapping[str, str]) -> str:
    """``text`` with each line ``--- @include name`` replaced by that include, the first time it is asked for.

    Raises ValueError for an include that is unknown or includes itself.
    """
    placed: set[str] = set()

    def place(text: str, within: tuple[str, ...]) -> str:
        def replace(line: re.Match[str]) -> str:
            name = line["name"].strip()
            if not _NAME.fullmatch(name):
                raise ValueError(f"{line[0]!r} is not of the form '--- @include name'")
            if name in within:
                raise ValueError(f"includes go round in a circle: {' -> '.join((*within, name))}")
            if name not in includes:
                raise ValueError(f"there is no include {name!r}")
            if name in placed:
                return ""
            placed.add(name)
            return place(includes[name].rstrip("\n"), (*within, name))

        return _INCLUDE.sub(replace, text)

    return place(text, ())


def parse_head(source: str) -> ScriptHead:
    """Read a script's head comment. Raises ValueError naming what is missing or the line that cannot be read.

    The form (the purpose may take several lines; two spaces or more set a comment apart)::

        --[[
        Add money to a wallet.

        KEYS[1] meta          the partition's meta hash
        ARGV[1] server        identity of the server this call was meant for
        ARGV[2...] lines      only the last may repeat
        Returns               in order of precedence
          unverified          a status and a comment
          charged, balance    a status and the values that follow it
        Event wallet.charged | none
        ]]
    """
    head = _HEAD.match(source)
    if head is None:
        raise ValueError("the file does not begin with a head comment: --[[ ... ]]")
    purpose, lines = _purpose(head["body"].splitlines())
    keys: list[Parameter] = []
    arguments: list[Parameter] = []
    returns: list[Return] = []
    events: tuple[str, ...] | None = None
    section: Literal["arguments", "returns", "event"] = "arguments"
    for line in lines:
        if not line.strip():
            continue
        if events is not None:
            raise ValueError(f"nothing may follow the Event line, not {line!r}")
        if line.split()[0] == "Returns" and section == "arguments":
            section = "returns"
        elif event := _EVENTS.fullmatch(line):
            events = tuple(kind for kind in re.split(r" *\| *", event["types"]) if kind != "none")
        elif section == "arguments" and (argument := _ARGUMENT.fullmatch(line)):
            _add_parameter(keys if argument["table"] == "KEYS" else arguments, argument)
        elif section == "arguments" and (keys or arguments) and line.startswith("  "):
            continue  # a comment that goes on
        elif section == "returns" and (answer := _RETURN.fullmatch(line.strip())) and line.startswith("  "):
            _add_return(returns, answer)
        elif section == "returns" and returns and line.startswith(" " * 8):
            continue  # a comment that goes on
        else:
            raise ValueError(f"the head comment's line {line!r} cannot be read")
    if not returns or events is None:
        raise ValueError(f"the head comment has no {'Returns' if not returns else 'Event'}")
    return ScriptHead(purpose, tuple(keys), tuple(arguments), tuple(returns), events)


def _purpose(lines: list[str]) -> tuple[str, list[str]]:
    end = next((number for number, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    purpose = " ".join(line.strip() for line in lines[:end] if line.strip())
    if not purpose:
        raise ValueError("the head comment states no purpose")
    return purpose, lines[end:]


def _add_parameter(arguments: list[Parameter], line: re.Match[str]) -> None:
    argument = Parameter(int(line["index"]), line["name"], line["repeats"] is not None, line["comment"] or "")
    if argument.index != len(arguments) + 1:
        raise ValueError(f"{line['table']}[{argument.index}] follows {line['table']}[{len(arguments)}]")
    if arguments and arguments[-1].repeats:
        raise ValueError(f"only the last of {line['table']} may repeat, not {arguments[-1].name!r}")
    if any(argument.name == other.name for other in arguments):
        raise ValueError(f"two of {line['table']} are named {argument.name!r}")
    arguments.append(argument)


def _add_return(returns: list[Return], line: re.Match[str]) -> None:
    status, *fields = re.split(r", ?", line["values"])
    returns.append(Return(status, tuple(fields), line["comment"] or ""))
