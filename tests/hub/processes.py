"""A hub in a process of its own, as the supervisor makes it: with a journal, a pipe, and links that come by the pipe.

    Hubs    one hub after the other
    Room    a hub as other processes find it: with a socket, and channels with history that begin with "h:"

What must not live here: tests.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.patience import PATIENCE
from tidegate._core.journal import make_memory
from tidegate.bus.bus import Bus
from tidegate.bus.link import VERSION, Frame, Hello, Kind, Policy, encode, pack_json
from tidegate.channels import Channel, Message
from tidegate.hub.main import Hub, attach, run
from tidegate.ipc.pipe import Command, Pipe, Report, StopMode

JOURNAL_BYTES = 64 << 20  # in which a message of 1 MiB has room


class Hubs:
    """One hub after the other, over one journal.

    Parameters:
        journal: descriptor of the journal's file.
        listener: where other processes connect.
    """

    def __init__(self, journal: int | None = None, listener: socket.socket | None = None) -> None:
        self.journal = make_memory(JOURNAL_BYTES) if journal is None else journal
        self.listener = listener
        self.pid = 0
        self.pipe: Pipe[Report]
        self._links: list[socket.socket] = []

    def start(self, fault: int = -1) -> None:
        """Fork a hub; with `fault`, it is killed after so many more bytes of records."""
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                keep = {self.journal, theirs.fileno(), *([self.listener.fileno()] if self.listener is not None else [])}
                for number in map(int, os.listdir("/proc/self/fd")):
                    if number > 2 and number not in keep:
                        with suppress(OSError):
                            os.close(number)
                # Those of pytest had numbers of their own, which will be links'.
                sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                if fault < 0:
                    status = run(self.journal, theirs, self.listener)
                else:
                    hub = Hub(attach(self.journal), theirs, self.listener)
                    hub.journal.fault = fault
                    hub.live()
            finally:
                os._exit(status)
        theirs.close()
        self.pipe = Pipe(ours, Report)

    def link(self) -> socket.socket:
        """Return one end of a link, which is closed with this at the latest; the hub gets the other one."""
        link = self._link()
        self._links.append(link)
        return link

    def _link(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        sent = self.pid and self.pipe.send(Command(sockets=1, link=True), [theirs])
        theirs.close()
        if not sent:
            ours.close()
            raise OSError("there is no hub")
        return ours

    async def connect(self) -> socket.socket:
        """Give a broker a link, which is the broker's."""
        return self._link()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Stop it as its supervisor does, or by another signal; return its exit status, negative for a signal."""
        if number == signal.SIGTERM:
            self.pipe.send(Command(stop=StopMode.GRACEFUL))
        else:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        self.pipe.close()
        return status

    def ended(self) -> bool:
        """Whether it has ended, which does not reap it."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def close(self) -> None:
        if self.pid:
            self.end(signal.SIGKILL)
        for link in self._links:
            link.close()
        os.close(self.journal)


class Room:
    """A hub with one worker, which has declared channels.

    Attributes:
        path, control: where it listens, and where its daemon would.
    """

    CHANNELS = {"h:": Channel(history=100)}

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.hub"
        self.control = str(folder / "control.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.hubs = Hubs(listener=self.listener)
        self.start()

    def start(self) -> None:
        self.hubs.start()
        self.worker = self.hubs.link()
        self.worker.settimeout(PATIENCE)
        hello = Hello(VERSION, 1, "worker", 1, {"h:": Policy(100), "": Policy()})
        self.worker.sendall(encode(Frame(Kind.HELLO, payload=pack_json(hello))))
        self.worker.recv(1)

    def stored(self, channel: str) -> list[Message]:
        async def read() -> list[Message]:
            async with Bus(f"local://{self.path}", channels=self.CHANNELS) as bus:
                return list(reversed(await bus.history(channel)))

        return asyncio.run(read())

    def close(self) -> None:
        self.hubs.close()
        self.worker.close()
        self.listener.close()
