"""Documentation in the code: every public name has it, and it names parameters, units, errors and the RFC's sections.

What must not live here: what documentation says beyond that, which readers judge.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_source import MODULES, SOURCE, files
from tidegate import exceptions

# Modules whose names programs import: whatever can be called says all about it.
PUBLIC = [
    "app",
    "asyncio.channel_handler",
    "asyncio.client",
    "asyncio.connection",
    "asyncio.router",
    "asyncio.server",
    "client",
    "datastructures",
    "exceptions",
    "extensions.base",
    "extensions.permessage_deflate",
    "frames",
    "headers",
    "http11",
    "protocol",
    "proxy",
    "typing",
    "uri",
]

# Classes of which nobody makes an object: another function of ours does.
NOT_CALLED = {"Connection", "Server"}

# What a parameter's text must say, by its name.
UNITS = {
    r".*_timeout|ping_interval|.*_delay|reconnect_delays": "second",
    r"max_size|write_limit|broadcast_limit": "bytes",
    r"max_queue": "frames",
    r".*_window_bits": "bits",
}

# Where the rules of an RFC live: each name says which section it is, for itself or by its module.
RULES = ["closing", "extensions.permessage_deflate", "frames", "headers", "keepalive", "protocol", "server", "uri"]
EACH_RULE = ["frames", "headers", "protocol", "uri"]

# What of a connection the RFC has a word for.
OF_THE_RFC = ["close", "close_code", "close_reason", "ping", "pong", "recv", "send", "state"]

# Raised where nobody should catch it: by what must be overridden.
UNSAID = {"NotImplementedError"}

# Subjects that say less than the field's nouns: a client, an operator, a worker, a proxy, the application.
NOBODY = re.compile(r"\b(?:whoever|somebody|nobody|anybody|everybody)\b", re.IGNORECASE)

ROLES = re.compile(r"^( *)(?:Args|Attributes):\n((?:\1 +.*\n|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \w+)*): (.*(?:\n +.*)*)", re.MULTILINE)


def load(module: str) -> Any:
    return importlib.import_module(f"tidegate.{module}" if module else "tidegate")


def names(module: str) -> Iterator[tuple[str, Any]]:
    """Public names that a module itself defines."""
    found = load(module)
    for name in getattr(found, "__all__", ()):
        value = getattr(found, name)
        if callable(value) and getattr(value, "__module__", None) == found.__name__:
            yield name, value


def text_of(value: Any) -> str:
    """The docstring; a class's together with those of what it inherits from, since it has that, too."""
    if not inspect.isclass(value):
        return inspect.getdoc(value) or ""
    kinds = [kind for kind in value.__mro__ if kind.__module__.startswith("tidegate")]
    return "\n\n".join([inspect.cleandoc(kind.__doc__ or "") + "\n" for kind in kinds])


def own_members(kind: Any) -> Iterator[tuple[str, Any]]:
    """What a class of ours, or a base class of it that is ours, has for everybody."""
    for name in dir(kind):
        owner = next((base for base in kind.__mro__ if name in vars(base)), None)
        if owner is None or not owner.__module__.startswith("tidegate"):
            continue
        if not name.startswith("_") and not hasattr(asyncio.Protocol, name):  # of which asyncio says all
            yield name, inspect.getattr_static(kind, name)


def callables(modules: list[str]) -> Iterator[tuple[str, Any, str]]:
    """Name, function or class, and its text, of everything that a program may call."""
    for module in modules:
        for name, value in names(module):
            where = f"{module}.{name}"
            if not inspect.isclass(value):
                if not hasattr(value, "__supertype__"):
                    yield where, value, text_of(value)
                continue
            if not issubclass(value, enum.Enum) and name not in NOT_CALLED:
                yield where, value, text_of(value)
            for member, found in own_members(value):
                if callable(found) or isinstance(found, (classmethod, staticmethod)):
                    method = getattr(value, member)
                    if not inspect.isclass(method):
                        yield f"{where}.{member}", method, text_of(method)


def parameters(function: Any) -> list[str]:
    try:
        found = inspect.signature(function).parameters
    except ValueError:  # exceptions that take what Exception takes
        return []
    return [name for name in found if name != "self" and not name.startswith("_")]


def entries(text: str) -> dict[str, str]:
    """What the sections of parameters and attributes say, by name."""
    found = {}
    for section in ROLES.finditer(text + "\n"):
        for entry in ENTRY.finditer(textwrap.dedent(section[2])):
            for name in entry[1].split(", "):
                found[name.lstrip("*")] = entry[2]
    return found


def lineage(error: str) -> list[str]:
    """Names of an exception and of what it is a case of, as far as that says something."""
    kind = getattr(exceptions, error, None) or getattr(builtins, error)
    return [base.__name__ for base in kind.__mro__ if base not in (*exceptions.WebSocketException.__mro__,)]


CALLABLES = list(callables(PUBLIC))
IDS = [where for where, *_ in CALLABLES]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_every_public_name_has_a_docstring(module: str) -> None:
    missing = [
        name
        for name, value in names(module)
        if not (vars(value) if inspect.isclass(value) else {}).get(
            "__doc__", None if inspect.isclass(value) else value.__doc__
        )
    ]
    assert missing == []
    if module not in PUBLIC:
        return
    for name, value in names(module):
        if inspect.isclass(value):
            said = text_of(value)
            silent = [
                member
                for member, found in own_members(value)
                if not getattr(found, "__doc__", None) and not re.search(rf"\b{member}\b", said)
            ]
            assert silent == [], name


@pytest.mark.parametrize(("where", "function", "text"), CALLABLES, ids=IDS)
def test_parameters(where: str, function: Any, text: str) -> None:
    """Each parameter of a function is named in its documentation."""
    assert [name for name in parameters(function) if not re.search(rf"\b{name}\b", text)] == []


def test_each_unit_is_somebodys() -> None:
    """A pattern that no parameter has checks nothing."""
    found = {name for _, function, _ in CALLABLES for name in parameters(function)}
    assert [pattern for pattern in UNITS if not any(re.fullmatch(pattern, name) for name in found)] == []


@pytest.mark.parametrize(("where", "function", "text"), CALLABLES, ids=IDS)
def test_units(where: str, function: Any, text: str) -> None:
    """Each parameter with a unit has it in its documentation."""
    said = entries(text)
    for pattern, unit in UNITS.items():
        for name in parameters(function):
            if re.fullmatch(pattern, name) and inspect.signature(function).parameters[name].annotation != "bool":
                assert unit in said.get(name, text), name


@pytest.mark.parametrize(("where", "function", "text"), CALLABLES, ids=IDS)
def test_errors(where: str, function: Any, text: str) -> None:
    """What is raised in the body of a function, its text names, or what that is a case of."""
    code = function.__init__ if inspect.isclass(function) else function
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(code))))
    except (OSError, TypeError):  # native code, and classes that write their own
        return
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    assert {name for name in raised - UNSAID if not re.search(rf"\b({'|'.join(lineage(name))})\b", text)} == set()


@pytest.mark.parametrize("module", RULES)
def test_rules_name_their_section(module: str) -> None:
    section = re.compile(r"RFC \d{4},? (?:sections? )?\d+|RFC \d{4}\)")
    found = load(module)
    assert section.search(found.__doc__ or "") or module in EACH_RULE
    if module in EACH_RULE:
        assert [name for name, value in names(module) if not section.search(text_of(value))] == []


@pytest.mark.parametrize("name", OF_THE_RFC)
def test_a_connection_names_the_section(name: str) -> None:
    from tidegate.asyncio.connection import Connection

    assert re.search(r"RFC 6455 \d+", inspect.getdoc(inspect.getattr_static(Connection, name)) or "")


@pytest.mark.parametrize(
    "path", files("*.py", "*.pyx", "*.pxd", "*.pyi", "*.h", "*.html"), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_sentences_have_subjects(path: Path) -> None:
    """In docstrings, comments and texts alike."""
    assert NOBODY.findall(path.read_text(encoding="utf-8")) == []
