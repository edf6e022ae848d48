"""`--help` of every command: the same words for the same things.

What must not live here: whether the settings are all there (test_serve.py), what a command does.
"""

from __future__ import annotations

import re

import click
import pytest

from tidegate.cli import COMMANDS, tidegate

CONTEXT = click.Context(tidegate)
FOUND = {name: tidegate.get_command(CONTEXT, name) for name in COMMANDS}


def text_of(name: str) -> str:
    found = FOUND[name]
    assert found is not None
    assert found.help is not None
    return found.help


def options(name: str) -> list[click.Option]:
    found = FOUND[name]
    assert found is not None
    return [parameter for parameter in found.params if isinstance(parameter, click.Option)]


def same_option(option: str) -> dict[str, str | None]:
    """The help of each command's option of that name."""
    return {name: found.help for name in COMMANDS for found in options(name) if option in found.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sentence_in_the_list(name: str) -> None:
    assert re.fullmatch(r"[A-Z][^.]*\.", COMMANDS[name])
    assert len(COMMANDS[name]) <= 65  # with the name, in 80 columns


@pytest.mark.parametrize("name", COMMANDS)
def test_text(name: str) -> None:
    """A verb, what it is about, and at the end what each exit status means; 2 are mistakes of whoever calls."""
    *_, last = (" ".join(part.split()) for part in text_of(name).strip().split("\n\n"))
    assert re.match(r"[A-Z][a-z]+ ", text_of(name).lstrip())
    assert last.startswith("Exit status: 0 ")
    assert last.endswith(".")
    assert name == "demo" or "; 2 a mistake on the command line; " in last or "; 2 the configuration is wrong; " in last
    listed = [int(number) for number in re.findall(r"(?:: |; |, )(\d{1,3}) ", last)]
    assert listed == sorted(listed)


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str) -> None:
    """A sentence each, then the default in brackets; values are named in capitals, or are words to choose from."""
    for option in options(name):
        assert option.help is not None
        assert re.fullmatch(r"[A-Z'].*\.(?:  \[default: [^\]]+\])?", option.help), option.help
        if not option.is_flag:
            words = re.split(r"[|\[\], :]+", str(option.metavar).strip("'"))
            assert all(word.isupper() or word.islower() or re.fullmatch(r"[\d.-]*", word) for word in words), words
        assert option.multiple == ("Repeatable." in option.help)
        assert option.is_flag == (option.metavar is None)


@pytest.mark.parametrize("option", ["--control", "--admin", "--admin-token"])
def test_who_asks_a_daemon_names_the_daemons_own_option(option: str) -> None:
    own = {"serve", "check", "demo"}
    told = same_option(option)
    assert len({told[name] for name in own}) == 1
    (others,) = {text for name, text in told.items() if name not in own}
    assert re.search(f"daemon's .*{option}", str(others))
    assert f"$TIDEGATE_{option.removeprefix('--').replace('-', '_').upper()}" in str(others)


def test_json_is_what_the_admin_address_has() -> None:
    others = ("bench", "publish")
    assert {name: str(text).split(",")[0] for name, text in same_option("--json").items() if name not in others} == {
        "status": "Print the object of /status as JSON.",
        "top": "Print the messages of /live as JSON",
    }
