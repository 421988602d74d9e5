"""A command that somebody is told to type is there to be typed."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from api.commands import COMMANDS, Commands
from tests.tidy.project_files import ROOT, text_files

NAMED = re.compile(r"[`\"&] ?firstcome ([a-z]+)")
WITH_OPTIONS = re.compile(r"`firstcome ([a-z]+) ([^`]*--[^`]*)`")
CONNECTION_NAMES = {"history"}  # "firstcome history" is what PostgreSQL is told of a connection


def texts() -> Iterator[tuple[Path, str]]:
    for path in text_files():
        yield path, (ROOT / path).read_text(encoding="utf-8")


def test_every_command_that_is_named_anywhere_exists() -> None:
    unknown = [
        f"{path}: firstcome {name}"
        for path, text in texts()
        for name in NAMED.findall(text)
        if name not in COMMANDS.keys() | CONNECTION_NAMES
    ]
    assert unknown == []


def test_every_option_that_is_named_with_its_command_exists() -> None:
    group = Commands()
    context = click.Context(group)
    unknown = []
    for path, text in texts():
        for name, rest in WITH_OPTIONS.findall(text):
            command = group.get_command(context, name)
            assert command is not None, f"{path}: firstcome {name}"
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            unknown += [
                f"{path}: firstcome {name} {option}" for option in re.findall(r"--[a-z-]+", rest) if option not in known
            ]
    assert unknown == []
