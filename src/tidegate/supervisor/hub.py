"""The hub as its supervisor has it: a slot, the journal, which outlives every hub, and the links to workers.

    Hub    all of it; there is no hub before a worker asks for a link

Each link is a socket pair, whose ends go to the hub and to a worker by their pipes. The supervisor keeps neither, so
that the end of either process is the end of the file to the other. After a hub's end workers are given new ones.

What must not live here: forks and ends (pool.py), what is said on a link (hub/).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable

from .._core.journal import make_memory
from ..config.schema import Config
from ..ipc.handover_state import HandoverState
from ..ipc.pipe import Command
from .worker_handle import Generation, Handle, Role, Slot

__all__ = ["Hub"]

logger = logging.getLogger("tidegate.supervisor")


class Hub:
    """The hub's slot, journal and links.

    Parameters:
        generation: the present one.
        fill: forks the slot's next child.
        workers: returns the workers that there are.

    Attributes:
        slot: where the hub is.
        journal: descriptor of the journal's file; None as long as no worker has asked for a link.
    """

    def __init__(
        self, generation: Generation, fill: Callable[[Slot], None], workers: Callable[[], list[Handle]]
    ) -> None:
        self.slot = Slot(0, generation, Role.HUB)
        self.journal: int | None = None
        self._fill, self._workers = fill, workers

    def tend(self, config: Config) -> None:
        """Give each worker that has asked for a link one that leads to the present hub; fork the first hub for them."""
        waiting = [handle for handle in self._workers() if handle.wants_link and not handle.is_linked]
        if not waiting:
            return
        if self.journal is None:
            try:
                self.journal = _open_journal(config)
            except OSError as error:
                logger.error("there is no journal, hence no bus: %s", error)
                return
            self._fill(self.slot)
        hub = self.slot.current
        if hub is not None and hub.stage == "ready" and not hub.stop_mode:
            for handle in waiting:
                handle.is_linked = _link(hub, handle)

    def unlink(self) -> None:
        """Note that links lead nowhere any more."""
        for handle in self._workers():
            handle.is_linked = False

    def restore(self, state: HandoverState, slot: Slot | None) -> None:
        """Take over the journal, and the slot, of the program before this one."""
        if state.journal is not None and slot is not None:
            os.set_inheritable(state.journal, False)
            self.journal, self.slot = state.journal, slot

    def close(self) -> None:
        """Close the journal's file."""
        if self.journal is not None:
            os.close(self.journal)
            self.journal = None


def _open_journal(config: Config) -> int:
    """Return the descriptor of the journal's file, in memory or at the path of local:///PATH."""
    path = config.bus.partition("://")[2]
    if not path:
        return make_memory(config.bus_memory)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(file).st_size == 0:
        os.truncate(file, config.bus_memory)
    return file


def _link(hub: Handle, worker: Handle) -> bool:
    """Link a worker with the hub; return whether it went well."""
    with contextlib.ExitStack() as stack:
        try:
            ends = socket.socketpair()
        except OSError as error:
            logger.warning("%s cannot be linked with the hub yet: %s", worker, error)
            return False
        for end in ends:
            stack.enter_context(end)
        command = Command(sockets=1, link=True, generation=worker.generation.number)
        return hub.pipe.send(command, [ends[0]]) and worker.pipe.send(command, [ends[1]])
