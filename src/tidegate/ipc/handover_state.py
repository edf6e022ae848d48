"""What a supervisor leaves to the program that is started anew in its process: an upgrade in place.

    Estate     everything, by the numbers of descriptors and processes, which stay what they are
    write      into a memory file, which the next program is told by ENVIRONMENT
    read       in the next program: the Estate, or nothing if it was started by somebody else

The next program may be another tidegate, of another age: what it does not know it leaves out, what is missing has a
default, and FORMAT changes when neither would do.

What must not live here: who collects it and what is made of it (supervisor/upgrade.py,
supervisor/sockets/listeners.py).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import NamedTuple

import msgspec

from .pipe import Level, Report, Stage

__all__ = [
    "ENVIRONMENT",
    "FORMAT",
    "ChildLeft",
    "Estate",
    "EstateError",
    "Left",
    "ListenerLeft",
    "SlotLeft",
    "read",
    "write",
]

ENVIRONMENT = "TIDEGATE_UPGRADE"  # TASK FORMAT NUMBER: the task of the program, and the file's format and descriptor
FORMAT = 1


class EstateError(Exception):
    """Something that this program cannot take over; its text says why."""


class ChildLeft(msgspec.Struct, frozen=True, kw_only=True):
    """A child process; see `Handle`. `line` is what it has begun to tell."""

    pid: int
    pipe: int
    line: bytes = b""
    generation: int
    row: int | None
    stage: Stage
    ordered: Level
    ordered_at: float = 0.0
    why: str
    failure: Report | None = None
    born: float
    ready_at: float | None


class SlotLeft(msgspec.Struct, frozen=True, kw_only=True):
    """A slot; see `Slot`."""

    index: int | None
    current: ChildLeft | None
    leaving: list[ChildLeft]
    failures: int


class ListenerLeft(msgspec.Struct, frozen=True, kw_only=True):
    """An address; see `Listener`.

    Attributes:
        kind: which class of listener.
        name: the address.
        place: what it is made from.
        sockets: slot -> descriptor.
        numbered: the slots that listen, in the order of the kernel.
        claim: the descriptor of the lock.
        file: device and inode of a Unix socket's file.
    """

    kind: str
    name: str
    place: tuple[int | str, ...]
    sockets: dict[int, int]
    numbered: list[int]
    claim: int | None
    file: tuple[int, int] | None = None


class Estate(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        version: of the program that leaves it.
        fixed: setting -> text, of those that a running daemon cannot change.
        workers: how many the settings had asked for.
        generation: the number of the present one.
        slots, retired, admin: the slots.
        listeners, admin_sockets: what is listened on.
        scoreboard: its descriptor.
        resting: whether workers refuse connections.
        control: the control socket, and its clients who wait for the end of the upgrade.
        metrics: the folder in which the application counts.
    """

    version: str
    fixed: dict[str, str]
    workers: int
    generation: int
    slots: list[SlotLeft]
    retired: list[SlotLeft]
    admin: SlotLeft
    listeners: list[ListenerLeft]
    admin_sockets: list[int]
    scoreboard: int
    resting: bool = False
    control: ListenerLeft | None = None
    clients: list[int] = []
    metrics: str | None = None

    def descriptors(self) -> list[int]:
        """Everything that must stay open."""
        found = [self.scoreboard, *self.admin_sockets, *self.clients]
        for slot in (*self.slots, *self.retired, self.admin):
            found += [child.pipe for child in (slot.current, *slot.leaving) if child is not None]
        for listener in (*self.listeners, *([self.control] if self.control is not None else [])):
            found += listener.sockets.values()
            found += [listener.claim] if listener.claim is not None else []
        return found


def write(estate: Estate) -> int:
    """The descriptor of a file with it, not inheritable yet."""
    number = os.memfd_create("tidegate-estate")
    content = msgspec.json.encode(estate)
    while content:
        content = content[os.write(number, content) :]
    return number


class Left(NamedTuple):
    """What a program was given: "take" the estate over, or "check" whether it could."""

    task: str
    estate: Estate


def read(environment: MutableMapping[str, str]) -> Left | None:
    """The task of this program and what it is left, taken out of the environment; None if nothing was left to it.

    Raises:
        EstateError: it is there and cannot be read.
    """
    given = environment.pop(ENVIRONMENT, None)
    if given is None:
        return None
    try:
        task, form, descriptor = given.split()
        number = int(descriptor)
        if int(form) != FORMAT:
            raise EstateError(f"this tidegate takes over what is left in format {FORMAT}, not {form}")
        with open(number, "rb", buffering=0, closefd=task == "take") as file:
            file.seek(0)
            return Left(task, msgspec.json.decode(file.read(), type=Estate))
    except (ValueError, OSError, msgspec.MsgspecError) as error:
        raise EstateError(f"{ENVIRONMENT}={given!r} leads to nothing that can be taken over: {error}") from None
