"""What a supervisor hands over to the program that is started anew in its process: an upgrade in place.

    HandoverState    everything, by the numbers of descriptors and processes, which stay the same
    write            into a memory file, which the next program finds by ENVIRONMENT
    read             in the next program: the Handover, or None if there was no program before it

The next program may be of another release: it leaves out what it does not know, what is missing has a default, and
FORMAT changes when neither would do. The words of the file stay the same, whatever attributes are called here.

What must not live here: who collects the state and what is made of it (supervisor/upgrade.py,
supervisor/sockets/listener.py).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import NamedTuple

import msgspec

from .pipe import Report, Stage, StopMode

__all__ = [
    "ENVIRONMENT",
    "FORMAT",
    "ChildState",
    "Handover",
    "HandoverError",
    "HandoverState",
    "ListenerState",
    "SlotState",
    "read",
    "write",
]

ENVIRONMENT = "TIDEGATE_UPGRADE"  # TASK FORMAT NUMBER: the task of the program, and the file's format and descriptor
FORMAT = 1


class HandoverError(Exception):
    """Something that this program cannot take over; its text says why."""


_CHILD = {"stop_mode": "ordered", "stopping_since": "ordered_at"}


class ChildState(msgspec.Struct, frozen=True, kw_only=True, rename=_CHILD):
    """A child process; see `Handle`. `line` is the beginning of its next report, `link` whether it wants one."""

    pid: int
    pipe: int
    line: bytes = b""
    generation: int
    row: int | None
    stage: Stage
    stop_mode: StopMode
    stopping_since: float = 0.0
    why: str
    failure: Report | None = None
    born: float
    ready_at: float | None
    link: bool = False
    declares: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class SlotState(msgspec.Struct, frozen=True, kw_only=True):
    """A slot; see `Slot`. `index` is None for the slots of the admin process and of the hub."""

    index: int | None
    current: ChildState | None
    leaving: list[ChildState]
    failures: int


class ListenerState(msgspec.Struct, frozen=True, kw_only=True, rename={"lock": "claim"}):
    """An address; see `Listener`.

    Attributes:
        kind: which class of listener.
        name: the address.
        place: what it is made from.
        sockets: slot -> descriptor.
        numbered: the slots that listen, in the order of the kernel.
        lock: the descriptor of the address lock.
        file: device and inode of a Unix socket's file.
    """

    kind: str
    name: str
    place: tuple[int | str, ...]
    sockets: dict[int, int]
    numbered: list[int]
    lock: int | None
    file: tuple[int, int] | None = None


class HandoverState(msgspec.Struct, frozen=True, kw_only=True, rename={"drained": "resting"}):
    """All of it.

    Attributes:
        version: of the program that hands over.
        fixed: setting -> text, of those that cannot change while the daemon runs.
        workers: how many the settings had asked for.
        generation: the number of the present one.
        slots, retired, admin: the slots.
        listeners, admin_sockets: what is listened on.
        scoreboard: its descriptor.
        drained: whether workers refuse connections until the next reload.
        control: the control socket.
        clients: connections of the control socket that wait for the end of the upgrade.
        metrics: the folder of the application's metrics.
        hub, journal: the slot of the hub, and the descriptor of its journal, if there is one.
        hub_socket: where other processes connect to it.
    """

    version: str
    fixed: dict[str, str]
    workers: int
    generation: int
    slots: list[SlotState]
    retired: list[SlotState]
    admin: SlotState
    listeners: list[ListenerState]
    admin_sockets: list[int]
    scoreboard: int
    drained: bool = False
    control: ListenerState | None = None
    clients: list[int] = []
    metrics: str | None = None
    hub: SlotState | None = None
    journal: int | None = None
    hub_socket: ListenerState | None = None

    def descriptors(self) -> list[int]:
        """Return every descriptor that must stay open."""
        found = [self.scoreboard, *self.admin_sockets, *self.clients]
        found += [self.journal] if self.journal is not None else []
        for slot in (*self.slots, *self.retired, self.admin, *([self.hub] if self.hub is not None else [])):
            found += [child.pipe for child in (slot.current, *slot.leaving) if child is not None]
        for listener in (*self.listeners, *(each for each in (self.control, self.hub_socket) if each is not None)):
            found += listener.sockets.values()
            found += [listener.lock] if listener.lock is not None else []
        return found


def write(state: HandoverState) -> int:
    """Write the state into a memory file; return its descriptor, not inheritable yet."""
    number = os.memfd_create("tidegate-handover")
    content = msgspec.json.encode(state)
    while content:
        content = content[os.write(number, content) :]
    return number


class Handover(NamedTuple):
    """What a program finds: the state, and whether to "take" it over or only "check" that it could."""

    task: str
    state: HandoverState


def read(environment: MutableMapping[str, str]) -> Handover | None:
    """Take the handover out of the environment; return None if there is none.

    Raises:
        HandoverError: it is there and cannot be read.
    """
    given = environment.pop(ENVIRONMENT, None)
    if given is None:
        return None
    try:
        task, form, descriptor = given.split()
        number = int(descriptor)
        if int(form) != FORMAT:
            raise HandoverError(f"this tidegate takes over a state of format {FORMAT}, not {form}")
        with open(number, "rb", buffering=0, closefd=task == "take") as file:
            file.seek(0)
            return Handover(task, msgspec.json.decode(file.read(), type=HandoverState))
    except (ValueError, OSError, msgspec.MsgspecError) as error:
        raise HandoverError(f"{ENVIRONMENT}={given!r} leads to nothing that can be taken over: {error}") from None
