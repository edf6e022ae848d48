"""The public surface beside that of the documented library: names, parameters, their kinds and defaults.

What is expected is read from the installed `websockets`, and from tables where its documentation promises more than can
be read there. Whatever is not the same is on a list with its reason, and nothing is on a list that is the same.
What must not live here: behaviour (tests/differential), and what older names do (tests/test__compat.py).
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asyncio.ends import connected
from tidegate.asyncio.client import connect
from tidegate.asyncio.server import ServerConnection, serve

MODULES = [
    "",
    "asyncio.client",
    "asyncio.connection",
    "asyncio.router",
    "asyncio.server",
    "client",
    "connection",
    "datastructures",
    "exceptions",
    "extensions",
    "extensions.base",
    "extensions.permessage_deflate",
    "frames",
    "headers",
    "http11",
    "protocol",
    "proxy",
    "server",
    "typing",
    "uri",
    "version",
]

# Documented names that are neither in `__all__` nor looked up when asked.
MORE = {
    "": "__version__",
    "asyncio.client": "process_exception",
    "cli": "main",
    "client": "backoff process_exception",
    "connection": "Side State",
    "typing": "BytesLike DataLike PathLike",
}

_NATIVE = "the protocol is part of the connection, whose bytes native code reads: there is none without I/O"
_LEGACY = "the implementation of ten years ago; its arguments and attributes are accepted by today's classes"

# Names that are not here. (In `older.GONE` are the words for those who look for one.)
NO_NAME = {
    "ClientProtocol": _NATIVE,
    "Protocol": _NATIVE,
    "ServerProtocol": _NATIVE,
    "protocol.Protocol": _NATIVE,
    "protocol.SEND_EOF": _NATIVE,
    "client.ClientProtocol": _NATIVE,
    "server.ServerProtocol": _NATIVE,
    "AbortHandshake": _LEGACY,
    "BasicAuthWebSocketServerProtocol": _LEGACY,
    "RedirectHandshake": _LEGACY,
    "basic_auth_protocol_factory": _LEGACY,
    "exceptions.AbortHandshake": _LEGACY,
    "exceptions.RedirectHandshake": _LEGACY,
    "version.commit": "tells of their repository",
    "version.tag": "tells of their repository",
}

# Documented modules that are not here.
NO_MODULE = {"auth": _LEGACY, "legacy": _LEGACY}

# Members of classes that are not here.
NO_MEMBER = {
    "Frame.DEFAULT_IS_TEXT": "how a frame is shown is no property of frames",
    "Frame.MAX_LOG_SIZE": "is frames.MAX_LOG_SIZE",
    "Frame.parse": "bytes become frames in native code",
    "Frame.serialize": "frames become bytes in native code",
    "Request.exception": "nobody sets it: connect() raises, and a server answers",
    "Response.exception": "nobody sets it: connect() raises, and a server answers",
    "Request.parse": _NATIVE,
    "Response.parse": _NATIVE,
    "connect.open_tcp_connection": "private in all but its name; create_connection is what may be replaced",
}
CONNECTIONS = {"Connection", "ClientConnection", "ServerConnection"}
# How a connection of theirs is made inside, which no documentation tells.
DRIVER = (
    "acknowledge_pings close_exc drain handshake keepalive process_event send_context send_data set_connection_exc"
    " start_keepalive terminate_pending_pings"
)

# Signatures that are not the same.
OTHER_SIGNATURE = {
    "Connection": "made by serve() and connect() only: documented as private",
    "ClientConnection": "the limits are those of connect(), unless a factory gives others by keyword",
    "ServerConnection": "the limits are those of serve(), unless a factory gives others by keyword",
    "Server": "made by serve() only: documented as private",
    "PayloadTooBig": "the older form with a message in the place of the size is no name for a parameter",
    "Response": "headers may be left out",
    "serve": "broadcast_limit bounds what broadcast() piles up for a slow client",
    "send": "text may be given by position, as until version 15",
}

# Attributes of objects that a class does not show; documented, or used by the library's own tests.
ATTRIBUTES = {
    "connection": (
        "id logger local_address remote_address latency state request response subprotocol close_code close_reason"
        " transport protocol loop debug ping_interval ping_timeout close_timeout paused server"
    ),
    "server": "logger server connections sockets",
    "connect": "uri logger additional_headers process_exception open_timeout reconnect_delays",
}

# Environment variables, without their prefix, and where their value is.
VARIABLES = {
    "BACKOFF_FACTOR": ("client", "BACKOFF_FACTOR", "2.5"),
    "BACKOFF_INITIAL_DELAY": ("client", "BACKOFF_INITIAL_DELAY", "2.5"),
    "BACKOFF_MAX_DELAY": ("client", "BACKOFF_MAX_DELAY", "92.5"),
    "BACKOFF_MIN_DELAY": ("client", "BACKOFF_MIN_DELAY", "2.5"),
    "MAX_BODY_SIZE": ("http11", "MAX_BODY_SIZE", "77"),
    "MAX_LINE_LENGTH": ("http11", "MAX_LINE_LENGTH", "77"),
    "MAX_LOG_SIZE": ("frames", "MAX_LOG_SIZE", "77"),
    "MAX_NUM_HEADERS": ("http11", "MAX_NUM_HEADERS", "77"),
    "MAX_REDIRECTS": ("client", "MAX_REDIRECTS", "7"),
    "SERVER": ("http11", "SERVER", "a server"),
    "USER_AGENT": ("http11", "USER_AGENT", "a client"),
}


def load(package: str, module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of modules that are older forms as a whole
        return importlib.import_module(f"{package}.{module}" if module else package)


def get(module: Any, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(module, name)


def names(module: str) -> list[str]:
    """The public names of a module of the documented library."""
    theirs = load("websockets", module)
    found = {*getattr(theirs, "__all__", ()), *MORE.get(module, "").split()}
    found |= {name for name in dir(theirs) if name not in vars(theirs)}  # those that it looks up when asked
    return sorted(found)


def dotted(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


NAMES = [(module, name) for module in [*MODULES, "cli"] for name in names(module)]


def is_legacy(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("websockets.legacy")


def default(value: Any) -> Any:
    """A default value, so that theirs and ours can be compared: functions by name, and products without it."""
    if callable(value):
        return getattr(value, "__name__", value)
    if isinstance(value, str):
        return value.split(" websockets/")[0].split(" tidegate/")[0]
    return value


def parameters(function: Any) -> list[tuple[str, str, Any]]:
    """Name, kind and default of the parameters; those that begin with an underscore are nobody else's business."""
    return [
        (p.name, p.kind.name, default(p.default))
        for p in inspect.signature(function).parameters.values()
        if p.name != "self" and not p.name.startswith("_")
    ]


@functools.cache
def classes() -> list[tuple[str, Any, Any]]:
    """Name, theirs, ours of every public class that both have."""
    found = {}
    for module, name in NAMES:
        theirs = get(load("websockets", module), name)
        if inspect.isclass(theirs) and not is_legacy(theirs) and dotted(module, name) not in NO_NAME:
            found[theirs.__name__] = theirs, get(load("tidegate", module), name)
    return [(name, *pair) for name, pair in sorted(found.items())]


def members() -> Iterator[tuple[str, str, Any, Any]]:
    """Class, name, and the two classes, of every public member."""
    protocol = dir(asyncio.Protocol)
    for name, theirs, ours in classes():
        for member in dir(theirs):
            owner = next((kind for kind in theirs.__mro__ if member in vars(kind)), theirs)
            if not member.startswith("_") and member not in protocol and owner.__module__.startswith("websockets"):
                yield name, member, theirs, ours


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[dotted(*pair) for pair in NAMES])
def test_name(module: str, name: str) -> None:
    """Every documented name exists and is of the same kind, but for those listed."""
    ours = load("tidegate", module)
    if dotted(module, name) in NO_NAME:
        with pytest.raises(AttributeError):
            get(ours, name)
        return
    found, theirs = get(ours, name), get(load("websockets", module), name)
    if not is_legacy(theirs):
        assert inspect.isclass(found) == inspect.isclass(theirs)
    assert callable(found) == callable(theirs)
    if name in getattr(load("websockets", module), "__all__", ()):
        assert name in ours.__all__
    if inspect.isclass(theirs) and issubclass(theirs, Exception) and not is_legacy(theirs):
        lineage = [kind.__name__ for kind in theirs.__mro__]
        assert [kind.__name__ for kind in found.__mro__ if kind.__module__ != "tidegate._compat"] == lineage


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[dotted(*pair) for pair in NAMES])
def test_signature(module: str, name: str) -> None:
    """Signatures are the same, but for those listed."""
    if dotted(module, name) in NO_NAME:
        return
    ours, theirs = get(load("tidegate", module), name), get(load("websockets", module), name)
    if not callable(theirs) or is_legacy(theirs):
        return
    try:
        expected = parameters(theirs)
    except ValueError:  # classes that take what Exception takes, or an enumeration does
        return
    if theirs.__module__ == "websockets.protocol" or hasattr(theirs, "__supertype__"):
        return  # enumerations and new types have what `enum` and `typing` give them
    assert (parameters(ours) == expected) == (name not in OTHER_SIGNATURE), f"{parameters(ours)}\n{expected}"


MEMBERS = list(members())


@pytest.mark.parametrize(
    ("name", "member", "theirs", "ours"), MEMBERS, ids=[f"{name}.{member}" for name, member, *_ in MEMBERS]
)
def test_member(name: str, member: str, theirs: Any, ours: Any) -> None:
    """Members of classes exist and are of the same kind, but for those listed."""
    if f"{name}.{member}" in NO_MEMBER or (name in CONNECTIONS and member in DRIVER.split()):
        assert not hasattr(ours, member)
        return
    assert hasattr(ours, member)
    one, other = (inspect.getattr_static(kind, member) for kind in (theirs, ours))
    assert isinstance(other, property) == isinstance(one, property) or not callable(other)
    for kind in (classmethod, staticmethod):
        assert isinstance(other, kind) == isinstance(one, kind)
    if callable(one):
        same = parameters(getattr(ours, member)) == parameters(getattr(theirs, member))
        assert same == (member not in OTHER_SIGNATURE)
        # recv() and send() are awaited, and made natively.
        if member not in ("recv", "send"):
            for kind_of in (inspect.iscoroutinefunction, inspect.isasyncgenfunction):
                assert kind_of(getattr(ours, member)) == kind_of(getattr(theirs, member))


def test_differences_are_as_small_as_listed() -> None:
    """Where signatures differ, they do in nothing but what the reason says."""
    theirs = load("websockets", "asyncio.server")
    ours = parameters(serve)
    more = {"broadcast_limit", "bus", "channels", "channel_limits"}
    assert [p for p in ours if p[0] not in more] == parameters(theirs.serve)
    assert ("broadcast_limit", "KEYWORD_ONLY", 2**24) in ours
    send, theirs_send = parameters(ServerConnection.send), parameters(theirs.ServerConnection.send)
    assert [p[0] for p in send] == [p[0] for p in theirs_send]
    for name in ("ClientConnection", "ServerConnection"):
        mine, other = (
            parameters(getattr(load(package, f"asyncio.{name[:6].lower()}"), name))
            for package in ("tidegate", "websockets")
        )
        assert mine == [p for p in other if p[1] != "KEYWORD_ONLY"] + [("overrides", "VAR_KEYWORD", "_empty")]


def test_nothing_is_listed_in_vain() -> None:
    assert [name for name in NO_MODULE if importlib.util.find_spec(f"tidegate.{name}")] == []
    assert all(importlib.util.find_spec(f"websockets.{name}") for name in NO_MODULE)
    known = {dotted(*pair) for pair in NAMES}
    assert known >= NO_NAME.keys()
    found = {f"{name}.{member}" for name, member, *_ in MEMBERS}
    assert found >= NO_MEMBER.keys()
    assert {member for name, member, *_ in MEMBERS if name in CONNECTIONS} >= set(DRIVER.split())
    assert {name for _, name in NAMES} | {member for _, member, *_ in MEMBERS} >= OTHER_SIGNATURE.keys()


async def test_attributes() -> None:
    """Documented attributes of connections, servers and `connect` are there."""
    async with connected() as (connection, _):
        assert [name for name in ATTRIBUTES["connection"].split() if not hasattr(connection, name)] == []
        assert [name for name in ATTRIBUTES["server"].split() if not hasattr(connection.server, name)] == []
        connection.username, connection.anything = "somebody", "else"  # type: ignore[attr-defined]
        for name in ("close_clients", "abort_clients"):  # documented as not there
            assert not hasattr(connection.server, name)
    dialling = connect("ws://localhost")
    assert [name for name in ATTRIBUTES["connect"].split() if not hasattr(dialling, name)] == []


async def test_loggers() -> None:
    """Connections, servers and `connect` log where they are documented to."""
    assert connect("ws://localhost").logger is logging.getLogger("tidegate.client")
    async with connected() as (connection, _):
        assert connection.server.logger is logging.getLogger("tidegate.server")
        assert connection.logger.extra == {"websocket": connection}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", VARIABLES)
def test_variable(name: str) -> None:
    """An environment variable sets a module's constant."""
    module, constant, value = VARIABLES[name]
    code = f"import tidegate.{module} as module; print(module.{constant})"
    environment = {**os.environ, f"TIDEGATE_{name}": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == value + "\n"
