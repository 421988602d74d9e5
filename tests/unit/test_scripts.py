from hashlib import sha1
from pathlib import Path

import pytest

from engine.scripts import Parameter, Return, load_scripts, parse_head, read_scripts, resolve_includes

HEAD = """--[[
Add money to a wallet,
exactly once.

KEYS[1] meta              the partition's meta hash
KEYS[2...] product        one key per product,
                          in the order of their ids
ARGV[1] server            identity of the server this call was meant for
ARGV[2] amount
ARGV[3...] lines          repeating
Returns                   in order of precedence
  unverified              not the server it was meant for
  stale, generation
  charged, place, balance, charged_at_ms
                          the balance is the new one
Event wallet.charged | wallet.closed | none
]]
"""


def test_a_head_states_what_the_script_takes_and_answers() -> None:
    head = parse_head(HEAD + "return {'unverified'}")
    assert head.purpose == "Add money to a wallet, exactly once."
    assert head.keys == (
        Parameter(1, "meta", False, "the partition's meta hash"),
        Parameter(2, "product", True, "one key per product,"),
    )
    assert [(argument.name, argument.repeats) for argument in head.arguments] == [
        ("server", False),
        ("amount", False),
        ("lines", True),
    ]
    assert head.returns == (
        Return("unverified", (), "not the server it was meant for"),
        Return("stale", ("generation",), ""),
        Return("charged", ("place", "balance", "charged_at_ms"), ""),
    )
    assert head.events == ("wallet.charged", "wallet.closed")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("--[[\n", "-- [[\n", "does not begin with a head comment"),
        ("Add money to a wallet,\nexactly once.\n", "", "no purpose"),
        ("ARGV[2] amount", "ARGV[3] amount", r"ARGV\[3\] follows ARGV\[1\]"),
        ("ARGV[2] amount", "ARGV[2] server", "two of ARGV are named 'server'"),
        ("ARGV[2] amount", "ARGV[2...] amount", "only the last of ARGV may repeat"),
        ("ARGV[2] amount", "ARGV[2]amount", "cannot be read"),
        ("  unverified ", "  Unverified! ", "cannot be read"),
        ("Event wallet.charged", "Effect wallet.charged", "cannot be read"),
        ("Event wallet.charged | wallet.closed | none\n", "", "no Event"),
        ("Event wallet", "Event none\nEvent wallet", "nothing may follow the Event line"),
    ],
)
def test_a_head_that_cannot_be_read_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in HEAD
    with pytest.raises(ValueError, match=complaint):
        parse_head(HEAD.replace(old, new))


def test_a_script_that_only_reads_has_no_events() -> None:
    head = parse_head("--[[\nRead.\nReturns\n  read, balance\nEvent none\n]]\n")
    assert head.events == ()
    assert head.keys == head.arguments == ()


def test_each_include_is_placed_once_where_it_is_first_asked_for() -> None:
    includes = {"a": "--- @include b\nlocal a\n", "b": "local b\n"}
    text = "head\n--- @include a\n--- @include b\nbody\n"
    assert resolve_includes(text, includes) == "head\nlocal b\nlocal a\n\nbody\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("--- @include c", "no include 'c'"),
        ("--- @include a", "circle: a -> b -> a"),
        ("--- @include ../secrets", "not of the form"),
        ("--- @include", "not of the form"),
    ],
)
def test_an_include_that_cannot_be_placed_is_refused(text: str, complaint: str) -> None:
    includes = {"a": "--- @include b", "b": "--- @include a"}
    with pytest.raises(ValueError, match=complaint):
        resolve_includes(text, includes)


def test_a_script_is_named_by_its_file_and_hashed_with_its_includes(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "one.lua").write_text("local one = 1\n")
    head = "--[[\nSay one.\nReturns\n  one\nEvent none\n]]\n"
    (tmp_path / "say_one.lua").write_text(head + "--- @include one\nreturn {'one'}\n")
    (tmp_path / "notes.txt").write_text("no script")
    scripts = read_scripts(tmp_path)
    assert list(scripts) == ["say_one"]
    script = scripts["say_one"]
    assert script.source == head + "local one = 1\nreturn {'one'}\n"
    assert script.sha1 == sha1(script.source.encode()).hexdigest().encode()
    with pytest.raises(KeyError, match=r"no script 'say_two'; there are: say_one"):
        scripts["say_two"]


def test_a_wrong_script_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.lua").write_text("return 1\n")
    with pytest.raises(ValueError, match=r"lua/broken\.lua: the file does not begin with a head comment"):
        read_scripts(tmp_path)


def test_the_packaged_scripts_load_once() -> None:
    scripts = load_scripts()
    assert len(scripts) > 0
    assert load_scripts() is scripts
    assert all("@include" not in script.source for script in scripts.values())
