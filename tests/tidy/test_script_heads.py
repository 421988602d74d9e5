"""What the head of a script says is what its code does, and the engine knows every status."""

import re
from collections.abc import Sequence

import pytest

from engine.scripts import Parameter, Script, load_scripts
from engine.statuses import Status

SCRIPTS = load_scripts()
FUNCTION = re.compile(r"^local function (?P<name>\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
BINDING = re.compile(
    r"local (?P<name>\w+) = (?P<wrapped>tonumber\()?(?P<table>KEYS|ARGV)\[(?P<index>\d+)\](?(wrapped)\))"
)
OFFSET = re.compile(r"local (?P<name>\w+) = (?P<index>\d+)")

every_script = pytest.mark.parametrize("script", [pytest.param(SCRIPTS[name], id=name) for name in sorted(SCRIPTS)])


def code_of(script: Script) -> str:
    """The script without its head and its comments."""
    return re.sub(r"--[^\n]*", "", script.source.partition("\n]]\n")[2])


def code_that_runs(script: Script) -> str:
    """The main part and the functions of includes that it calls, directly or not."""
    code = code_of(script)
    functions = {match["name"]: match[0] for match in FUNCTION.finditer(code)}
    parts, unseen = [FUNCTION.sub("", code)], set(functions)
    for part in parts:
        called = {name for name in unseen if re.search(rf"\b{name}\(", part.partition("\n")[2])}
        unseen -= called
        parts += [functions[name] for name in called]
    return "\n".join(parts)


def first_elements(code: str) -> list[str]:
    """The first element of every table that is returned, as code."""
    return [re.split(r"[,}]", rest, maxsplit=1)[0] for rest in re.findall(r"\breturn\s*\{([^\n]*)", code)]


def bound(argument: Parameter, table: str, line: str) -> bool:
    """A repeating argument is bound to the index it begins at, or to the one before, to count from."""
    if argument.repeats:
        offset = OFFSET.fullmatch(line)
        return (
            offset is not None and offset["name"] == argument.name and argument.index - int(offset["index"]) in (0, 1)
        )
    binding = BINDING.fullmatch(line)
    return (
        binding is not None
        and (binding["table"], binding["name"]) == (table, argument.name)
        and (int(binding["index"]) == argument.index)
    )


@every_script
def test_keys_and_arguments_become_locals_of_their_names_in_the_first_lines(script: Script) -> None:
    lines = code_of(script).splitlines()
    declared = [("KEYS", key) for key in script.head.keys] + [("ARGV", argument) for argument in script.head.arguments]
    for (table, argument), line in zip(declared, lines, strict=False):
        assert bound(argument, table, line), f"{table}[{argument.index}] {argument.name} is bound by {line!r}"
    rest = "\n".join(lines[len(declared) :])
    assert not re.search(r"(KEYS|ARGV)\[\d", rest), "a number is no name: use the local"
    for table, arguments in (("KEYS", script.head.keys), ("ARGV", script.head.arguments)):
        assert uses_of(table, rest) == [] or any(argument.repeats for argument in arguments)


def uses_of(table: str, code: str) -> Sequence[str]:
    return re.findall(rf"\b{table}\b", code)


@every_script
def test_the_first_argument_is_the_server_and_the_first_key_the_partitions_meta(script: Script) -> None:
    assert script.head.arguments[0].name == "server"
    assert script.head.keys[0].name == "meta"


@every_script
def test_the_head_states_every_status_that_the_code_answers(script: Script) -> None:
    stated = [answer.status for answer in script.head.returns]
    assert len(stated) == len(set(stated))
    answered = {
        status for element in first_elements(code_that_runs(script)) for status in re.findall(r"'([^']*)'", element)
    }
    assert answered == set(stated)


@every_script
def test_the_guards_refusals_come_before_anything_else(script: Script) -> None:
    order = [Status.UNVERIFIED, Status.STALE, Status.OVERLOADED]
    stated = [answer.status for answer in script.head.returns]
    refusals = [status for status in order if status in stated]
    assert stated[: len(refusals)] == refusals


@every_script
def test_the_head_states_every_event_that_the_code_appends(script: Script) -> None:
    code = code_that_runs(script)
    call = r"(?<!function )\b(?:append|add_event)\("
    calls = re.findall(rf"{call}events, (?:meta, )?epoch, seq, (?:(?:own_)?request, '([^']*)'|\.\.\.)", code)
    assert len(re.findall(call, code)) == len(calls)
    appended = {kind for kind in calls if kind}
    assert appended == set(script.head.events)


def test_the_engine_knows_every_status_and_no_others() -> None:
    assert {answer.status for script in SCRIPTS.values() for answer in script.head.returns} == set(Status)
