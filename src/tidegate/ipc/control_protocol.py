"""The words of the control socket: one request on a line of JSON, answered by lines of JSON, the last of which decides.

    Status, Reload, Scale, Drain, Stop, Upgrade, Bus     requests: {"command":"scale","workers":4}
    Answer                                          {"text":"generation 2 boots"}, then {"done":true,"text":"..."}
    socket_path                                     where the socket is

What must not live here: the socket (supervisor/control.py), the commands (cli), what a request does to the daemon
(supervisor/operations.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from ..environment import runtime_directory
from ..text import nearest

__all__ = [
    "Answer",
    "Bus",
    "BusPlace",
    "Drain",
    "Reload",
    "Request",
    "RequestError",
    "Scale",
    "Status",
    "Stop",
    "Upgrade",
    "encode",
    "name_of",
    "read_request",
    "socket_path",
]

FILE: Final = "control.sock"

# Bytes of a request.
LONGEST: Final = 4096


class _Request(msgspec.Struct, frozen=True, tag_field="command", forbid_unknown_fields=True):
    """A request. Its tag is the command's name, in every release: it stays as it is, whatever the class is called."""


class Status(_Request, frozen=True, tag="status"):
    """Get the daemon's status, as an object of the answer."""


class Reload(_Request, frozen=True, tag="reload"):
    """Hand over to the next generation; with `force`, give up what is under way."""

    force: bool = False


class Scale(_Request, frozen=True, tag="scale"):
    """Change the number of workers."""

    workers: int


class Drain(_Request, frozen=True, tag="drain"):
    """Close every connection and refuse new ones, until a reload."""


class Stop(_Request, frozen=True, tag="stop"):
    """End the daemon. The connection ends with it."""

    how: Literal["drain", "close", "cut"] = "drain"


class Upgrade(_Request, frozen=True, tag="upgrade"):
    """Replace the program in its process by the one that is installed now."""


class Bus(_Request, frozen=True, tag="bus"):
    """Get what it takes to publish on the daemon's bus: it is in the answer."""


Request: TypeAlias = Status | Reload | Scale | Drain | Stop | Upgrade | Bus


class BusPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a daemon's bus is.

    Attributes:
        url: of the bus, with its password: who may ask is the daemon's user.
        declares: what the application declares of channels (bus/declaration.py), once a worker has said it.
    """

    url: str
    declares: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer of the daemon.

    Attributes:
        done: None as long as it is not decided, then whether the request has been carried out.
        text: what happens, or has happened, or why not.
        accepted: the request is understood, and its effect follows.
        status: the object that /status has, in answer to Status.
        bus: where the bus is, in answer to Bus.
    """

    done: bool | None = None
    text: str = ""
    accepted: bool = False
    status: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    bus: BusPlace | msgspec.UnsetType = msgspec.UNSET


class RequestError(ValueError):
    """A line that is not a request; its text says what would be one."""


def name_of(request: Request) -> str:
    """Return the command's name."""
    return str(request.__struct_config__.tag)


_EXAMPLES: Final[dict[str, Request]] = {
    name_of(request): request for request in (Status(), Reload(), Scale(4), Drain(), Stop(), Upgrade(), Bus())
}

_decoder: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)


def read_request(line: bytes) -> Request:
    """Return the request on a line.

    Raises:
        RequestError: the line is not a request.
    """
    if len(line) > LONGEST:
        raise RequestError(f"a request has {LONGEST} bytes at most")
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error)
    try:
        found: Any = msgspec.json.decode(line)  # it may not be JSON at all
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        problem = f"that is not JSON: give an object on a line, such as {_written(Status())}"
    else:
        problem = _problem(found, problem)
    raise RequestError(problem)


def _problem(found: Any, error: str) -> str:
    """Return what is wrong with a value of JSON."""
    if not isinstance(found, dict) or not isinstance(found.get("command"), str):
        return f"that names no command: give an object such as {_written(Status())}"
    name = found["command"]
    if name not in _EXAMPLES:
        near = nearest(name, _EXAMPLES)
        hint = f"did you mean {near}? " if near else ""
        return f"there is no command {name!r}: {hint}There are {', '.join(_EXAMPLES)}"
    return f"{error}: give {name} like {_written(_EXAMPLES[name])}"


def _written(word: Request) -> str:
    return msgspec.json.encode(word).decode()


def encode(word: Request | Answer) -> bytes:
    """Return a request or an answer as its line."""
    if isinstance(word, Answer) and not word.text.isascii():
        # A path may not be text in any encoding.
        text = word.text.encode("utf-8", "backslashreplace").decode()
        word = msgspec.structs.replace(word, text=text)
    return msgspec.json.encode(word) + b"\n"


def hub_path(control: str) -> str:
    """Return where the hub listens, by the path of the control socket: beside it."""
    return control.removesuffix(".sock") + ".hub"


def socket_path(setting: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the socket's path by the value of the setting; None: there is to be no socket."""

    if setting != "auto":
        return setting
    folder = runtime_directory(environment)
    return os.path.join(folder, FILE) if folder else None
