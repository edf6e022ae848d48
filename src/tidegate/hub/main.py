"""The hub's life, from the fork to its end: attach the journal, take links, pass messages on, flush and end.

Links of workers are socket pairs, of which the supervisor sends this process one end each; the end of a link is the end
of the file. Other processes of the same user connect to a listening Unix socket. There is no event loop and no code of
an application: the switch is the loop, and wakes up once a second to report that it turns.

What must not live here: what frames ask for (requests.py), the path of a message (_core/switch.pyx), who makes the
links (supervisor).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from types import FrameType

from setproctitle import setproctitle

from .. import logs
from .._core.counters import Row
from .._core.journal import Journal, JournalError
from ..ipc.pipe import Command, Pipe, Report
from ..process import forks
from ..process.peer import credentials
from .records import Records
from .requests import Party, Requests

__all__ = ["Hub", "attach", "run"]

logger = logging.getLogger("tidegate.hub")

TICK = 1.0
"""Seconds between two reports, by which the supervisor knows that it does not hang."""

PREDECESSOR_SECONDS = 10.0
"""How long the hub before this one, which still writes the journal, may take to end."""

SWEPT = 20_000
"""Channels of each tick that are looked through for what is too old."""

OUTSIDE = 256
"""Processes other than workers that may be linked at once."""

GREETING = 3.0
"""Seconds in which such a process says who it is, and a worker which channels there are. Less than it waits."""


def run(
    journal: int,
    pipe: socket.socket | None = None,
    listener: socket.socket | None = None,
    message_limit: int = 1 << 20,
    row: Row | None = None,
) -> int:
    """Be the hub until it is told to stop, or until the other end of `pipe` closes; return the exit status.

    Parameters:
        journal: descriptor of the journal's file, which the supervisor has, too.
        pipe: its end of the supervisor's socket pair, by which links to workers come.
        listener: where other processes connect.
        message_limit: bytes that a message may have.
        row: where it counts; None: in a private one.

    Called in a forked child, whose signals may still be masked.
    """
    setproctitle("tidegate: hub")
    logs.set_role("hub", access=False)
    logs.show_stacks()
    signal.set_wakeup_fd(-1)  # of the supervisor
    forks.leave_signals_to_supervisor()
    hub = Hub(attach(journal), pipe, listener, message_limit, row)
    hub.live()
    return 0


def attach(file: int, patience: float = PREDECESSOR_SECONDS) -> Journal:
    """Attach the journal, once no other process writes it; one that cannot be gone on with begins anew.

    Raises:
        BlockingIOError: another process writes it all the time.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            try:
                journal = Journal.attach(file)
            except JournalError as error:
                logger.warning("%s: it begins anew, and no position from before can be resumed", error)
                journal = Journal.attach(file, anew=True)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            logger.info("the journal has %s", journal.found)
            return journal


class Hub:
    """The process; `live()` returns at its end.

    Parameters:
        journal, pipe, listener, message_limit, row: see `run()`.
    """

    def __init__(
        self,
        journal: Journal,
        pipe: socket.socket | None = None,
        listener: socket.socket | None = None,
        message_limit: int = 1 << 20,
        row: Row | None = None,
    ) -> None:
        self.journal = journal
        self.requests = Requests(journal, message_limit)
        self.switch = self.requests.switch
        self.records = Records(Row() if row is None else row, self.switch, journal)
        self.requests.on_lost = self.records.ended
        self._stopping = False
        self._supervisor = Pipe(pipe, Command) if pipe is not None else None
        self._listener: socket.socket | None = None
        self._alarm, self._waker = socket.socketpair()
        self._readers = {self._alarm.fileno(): self._on_alarm}
        if self._supervisor is not None:
            self._readers[self._supervisor.fileno()] = self._on_supervisor
        for number in self._readers:
            self.switch.watch(number)
        if listener is not None:
            self._listen(listener)

    def stop(self) -> None:
        """End after this turn."""
        self._stopping = True

    def terminate(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM, which all processes may have been sent: the supervisor says when workers have drained."""
        if self._supervisor is None:
            self.stop()

    def live(self) -> None:
        """Take turns until the end."""
        for sock in (self._alarm, self._waker):
            sock.setblocking(False)
        # Without it, a signal that comes just before the switch waits would be late.
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self.terminate)
        forks.handled(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        next_tick = 0.0
        while not self._stopping:
            now = time.monotonic()
            if now >= next_tick:
                self._tick()
                next_tick = now + TICK
            for number in self.switch.turn(max(0.0, next_tick - now)):
                if number in self._readers:  # it has not been replaced in this turn
                    self._readers[number]()
        self.close()

    def close(self) -> None:
        """Send what the links take now, and leave the journal whole."""
        signal.set_wakeup_fd(-1)
        self.switch.close()
        self.records.update()  # before the next hub does
        self.journal.close()
        self._alarm.close()
        self._waker.close()

    def _tick(self) -> None:
        if self._supervisor is not None:
            # It may fail: the supervisor is gone, which the reader notices, or is stopped, with a full pipe.
            self._supervisor.send(Report("ready"))
        self.journal.sweep(SWEPT)
        self.requests.end_ungreeted(time.monotonic() - GREETING)
        self.records.update()

    def _on_alarm(self) -> None:
        self._alarm.recv(4096)

    def _on_supervisor(self) -> None:
        """Take sockets, reopen the log, end: on command, or with the supervisor."""
        assert self._supervisor is not None
        for command in self._supervisor.receive():
            for sock in self._supervisor.receive_sockets(command.sockets):
                if command.listen:
                    self._listen(sock)
                else:
                    self._link(sock)
            if command.reopen:
                logs.reopen()
            if command.stop:
                self.stop()
        if self._supervisor.ended:
            self.stop()

    def _link(self, sock: socket.socket) -> None:
        self.switch.add(sock.detach(), Party(worker=True))

    def _listen(self, sock: socket.socket) -> None:
        """Accept other processes from this socket, and from no other."""
        if self._listener is not None:
            self.switch.unwatch(self._listener.fileno())
            del self._readers[self._listener.fileno()]
            self._listener.close()
        sock.setblocking(False)
        self._listener = sock
        self._readers[sock.fileno()] = self._on_connect
        self.switch.watch(sock.fileno())

    def _on_connect(self) -> None:
        """Accept another process, if it is of this process's user or of root, and there are not too many."""
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone away, or no descriptor is left
            return
        user = credentials(sock).uid
        outside = sum(not link.data.worker for link in self.switch.links.values())
        if user not in (0, os.geteuid()) or outside >= OUTSIDE:
            why = f"of user {user}" if outside < OUTSIDE else f"besides {OUTSIDE} others"
            logger.warning("a process %s is not linked", why)
            sock.close()
            return
        self.switch.add(sock.detach(), Party(worker=False))
