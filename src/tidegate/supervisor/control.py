"""The control socket: commands send requests to the daemon, and receive progress and the result.

    Control     the socket's file, who may ask, and what carries out each request
    Client      one connection: a request within a time and a size, answers as far as they are read

It is part of the supervisor's loop and never waits: a client that does not ask, does not read or is gone is
disconnected, and its request goes on. The file is for the daemon's user alone, and the system tells who connects: that
user, or root.

What must not live here: what a request consists of (ipc/control_protocol.py), what it does (operations.py,
supervisor.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from ..config.bind import Unix
from ..ipc import control_protocol
from ..ipc.control_protocol import Answer, BusPlace, Request, RequestError
from ..ipc.handover_state import ListenerState
from ..ipc.pipe import StopMode
from ..process import peer
from ..text import shorten
from ..version import version
from .event_loop import EventLoop, Timer
from .operations import OnProgress, Operations
from .pool import WorkerPool
from .sockets.addresses import AddressError, reason_of
from .sockets.listener import UnixListener

if TYPE_CHECKING:
    from .._core.snapshot import Snapshot

__all__ = ["Control", "Describe"]

logger = logging.getLogger("tidegate.supervisor")

Describe: TypeAlias = "Callable[[Snapshot, float], object]"
"""Makes the daemon's status, of a read of its scoreboard at a time (Unix time), as values that JSON has."""

CLIENTS = 64  # at a time
SILENCE = 10.0  # seconds within which a client sends its request, and reads its answers
UNSENT = 2**20  # bytes of answers that wait for a client that does not read
RETRY = 0.05  # seconds until what could not be sent is tried again
GLANCE = 1.0  # seconds between two looks at how far the end is
EXHAUSTED = 1.0  # seconds without accepting, when there are no descriptors

_STOP_MODES: Final = {"drain": StopMode.GRACEFUL, "close": StopMode.CLOSE, "cut": StopMode.ABORT}
# The operation for each request; its arguments are the request's fields.
_OPERATIONS: Final[dict[type[Request], str]] = {
    control_protocol.Reload: "reload",
    control_protocol.Scale: "scale",
    control_protocol.Drain: "drain",
    control_protocol.Upgrade: "upgrade",
}


class Control:
    """The control socket of a supervisor; without a path there is none.

    Parameters:
        pool: the slots and their children, and the scoreboard.
        operations: which requests ask for.
        stop: ends the daemon: how urgently, and why.
        describe: makes the answer of `status`.
    """

    def __init__(
        self,
        pool: WorkerPool,
        operations: Operations,
        stop: Callable[[StopMode, str], None],
        describe: Describe | None = None,
    ) -> None:
        self.loop: EventLoop = pool.loop
        self._pool, self._operations, self._stop_daemon = pool, operations, stop
        self.path: str | None = None
        self._describe = describe
        self._listener: UnixListener | None = None
        self._clients: set[Client] = set()
        self._stopping: set[Client] = set()  # those who wait for the daemon's end
        self._glance: Timer | None = None
        self._table: dict[type[Request], Callable[[Client, Any], None]] = {
            control_protocol.Status: self._send_status,
            control_protocol.Stop: self._stop,
            control_protocol.Bus: self._send_bus,
            **dict.fromkeys(_OPERATIONS, self._operate),
        }

    # Open and close.

    def open(self, path: str | None, user: int | None = None) -> None:
        """Listen there, and nowhere if that is None; as `user` later.

        Raises:
            AddressError: another program listens there, or the socket cannot be bound.
        """
        if path is None:
            return
        self.path = os.path.abspath(path)  # it is removed in the end, whatever the working directory is then
        listener = UnixListener(self.path)
        mask = os.umask(0o177)  # other users cannot connect at any moment
        try:
            listener.bind(user)
            listener.listen(0, CLIENTS)
        except OSError as error:
            listener.close()
            raise AddressError(Unix(path), reason_of(error)) from None
        finally:
            os.umask(mask)
        self._listener = listener
        listener.at(0).setblocking(False)
        self._watch()

    def chown(self, uid: int, gid: int) -> None:
        """Give the socket's file to the user that root is about to switch to."""
        if self._listener is not None:
            self._listener.chown(uid, gid)

    def state(self) -> tuple[ListenerState | None, list[int]]:
        """Return what the program that replaces this one must know: the socket, and the clients that wait for it."""
        if self._listener is None:
            return None, []
        return self._listener.state(), [client.sock.fileno() for client in self._clients if client.upgrades]

    def restore(self, state: ListenerState | None, clients: Sequence[int]) -> OnProgress | None:
        """Take over the socket of the program before this one; return what reports to the clients that wait."""
        if state is None:
            return None
        listener = UnixListener(str(state.place[0]))
        listener.restore(state)
        self.path, self._listener = str(state.place[0]), listener
        self._watch()
        waiting = []
        for number in clients:
            os.set_inheritable(number, False)
            client = Client(self, socket.socket(fileno=number))
            self._clients.add(client)
            client.wait()
            waiting.append(client)

        def report(done: bool | None, text: str) -> None:
            for client in waiting:
                client.report(done, text)

        return report

    def _watch(self) -> None:
        if self._listener is not None:
            self.loop.add_reader(self._listener.at(0).fileno(), self._on_connection)

    def renew_file(self) -> None:
        """Make the socket's file again, if it has been removed."""
        listener = self._listener
        if listener is None or listener.reported_gone or listener.present:
            return
        self.loop.remove_reader(listener.at(0).fileno())
        mask = os.umask(0o177)
        try:
            listener.renew()
            listener.listen(0, CLIENTS)
            logger.warning("%s, the control socket, had been removed: it has been made again", self.path)
        except OSError as error:
            listener.reported_gone = True
            logger.warning("%s, the control socket, has been removed: %s", self.path, reason_of(error))
        finally:
            os.umask(mask)
        listener.at(0).setblocking(False)
        self._watch()

    def close_in_child(self) -> None:
        """Close, in a child, the supervisor's sockets, and send nothing."""
        if self._listener is not None:
            self._listener.close_in_child(None)
        for client in self._clients:
            client.sock.close()

    def close(self, status: int) -> None:
        """Report the exit status to clients that wait for the daemon's end, and close."""
        for client in list(self._clients):
            if client in self._stopping:
                client.report(status == 0, f"stopped with status {status}")
            elif not client.done:
                client.report(False, "the daemon has stopped")
            client.drop()
        if self._listener is not None:
            self.loop.remove_reader(self._listener.at(0).fileno())
            self._listener.close()
            self._listener = None

    # Clients.

    def _on_connection(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.at(0).accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                # The connection stays in the queue, and the socket readable: look again later.
                self.loop.remove_reader(self._listener.at(0).fileno())
                self.loop.call_later(EXHAUSTED, self._watch)
            return
        client = Client(self, sock)
        self._clients.add(client)
        if not client.may_ask():
            logger.warning("control: %s is not allowed to ask", client)
            client.report(False, f"user {client.uid} may not ask this daemon: only user {os.geteuid()} and root may")
        elif len(self._clients) > CLIENTS:
            client.report(False, f"{CLIENTS} clients are connected already: try again in a moment")
        else:
            client.listen()

    def forget(self, client: Client) -> None:
        """Forget a client that is gone."""
        self._clients.discard(client)
        self._stopping.discard(client)

    def ask(self, client: Client, line: bytes) -> None:
        """Carry out the request on a line."""
        try:
            request = control_protocol.read_request(line)
        except RequestError as error:
            client.report(False, str(error))
            return
        logger.log(
            logging.DEBUG if isinstance(request, control_protocol.Status | control_protocol.Bus) else logging.INFO,
            "control: %s asks for %s",
            client,
            control_protocol.encode(request).decode().strip(),
        )
        self._table.get(type(request), self._refuse)(client, request)

    def _refuse(self, client: Client, request: Request) -> None:
        """Answer a request that this daemon cannot carry out."""
        name = control_protocol.name_of(request)
        client.report(False, f"{name} is not possible with this daemon, which is tidegate {version}")

    def _operate(self, client: Client, request: Request) -> None:
        name = _OPERATIONS[type(request)]
        if not self._operations.knows(name):
            self._refuse(client, request)
            return
        client.upgrades = name == "upgrade"
        self._operations.request(name, client.report, **msgspec.structs.asdict(request))
        # Sends nothing if the operation has been decided already.
        client.accept()

    def _stop(self, client: Client, request: control_protocol.Stop) -> None:
        self._stopping.add(client)
        client.accept()
        self._stop_daemon(_STOP_MODES[request.how], f"requested by {client}")
        if self._glance is None:
            self._report_connections(None)

    def _report_connections(self, before: int | None) -> None:
        """Report the connections that are left to clients that wait for the daemon's end."""
        left = self._pool.connections()
        if left != before:
            for client in list(self._stopping):
                client.report(None, f"stopping, connections left: {left}")
        self._glance = self.loop.call_later(GLANCE, lambda: self._report_connections(left))

    def _send_status(self, client: Client, request: control_protocol.Status) -> None:
        if self._describe is None:
            client.report(False, "this daemon has no status")
            return
        try:
            found = msgspec.json.encode(self._describe(self._pool.scoreboard.read(), time.time()))
        except Exception as error:  # a fault in the status must not end the daemon
            logger.exception("control: the status could not be read")
            client.report(False, f"the status could not be read: {type(error).__name__}: {error}")
            return
        current = self._operations.current
        doing = f"{current} is under way" if current is not None else ""
        client.send(Answer(done=True, text=doing, status=msgspec.Raw(found)))

    def _send_bus(self, client: Client, request: control_protocol.Bus) -> None:
        url = self._pool.bus
        if url is None:  # a release without one has bound the sockets
            client.report(False, "the daemon has no socket for other processes: restart it")
        else:
            client.send(Answer(done=True, bus=BusPlace(url, self._pool.declarations.current)))


class Client:
    """A connection to the control socket.

    Parameters:
        control: carries out the request.
        sock: the connection, which the Client owns.

    Attributes:
        uid, pid: of the client, where the system tells, else -1.
        done: whether it has been sent its last answer.
        upgrades: whether it waits for an upgrade, and so for another program.
    """

    def __init__(self, control: Control, sock: socket.socket) -> None:
        self.sock = sock
        self.pid, self.uid, _ = peer.credentials(sock)
        self.done = False
        self.upgrades = False
        self._control = control
        self._loop = control.loop
        self._received = b""
        self._asked = False
        self._unsent = bytearray()
        self._timer: Timer | None = None  # until the request must have come; then: to send what is unsent
        self._stuck: float | None = None  # since when nothing could be sent
        sock.setblocking(False)

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}" if self.uid >= 0 else "a process"

    def may_ask(self) -> bool:
        """Return whether it is the daemon's user or root; if the system does not tell, the file's mode decides."""
        return self.uid in (0, os.geteuid(), -1)

    # From the client.

    def listen(self) -> None:
        """Wait for its request."""
        self._loop.add_reader(self.sock.fileno(), self._on_readable)
        self._timer = self._loop.call_later(SILENCE, self._on_silence)

    def wait(self) -> None:
        """Wait with a client whose request the program before this one has read."""
        self.upgrades = self._asked = True
        self._loop.add_reader(self.sock.fileno(), self._on_readable)

    def _on_silence(self) -> None:
        self.report(False, f"no request came within {SILENCE:g} s")

    def _on_readable(self) -> None:
        try:
            data = self.sock.recv(control_protocol.LONGEST + 1)
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if not data:
            self._on_end()
        elif self._asked:
            logger.warning("control: %s sends more than one request, and is disconnected", self)
            self.drop()
        else:
            self._received += data
            if b"\n" in self._received or len(self._received) > control_protocol.LONGEST:
                self._ask()

    def _on_end(self) -> None:
        """Handle the end of what it sends; it may still read."""
        self._loop.remove_reader(self.sock.fileno())
        if not self._asked:
            if self._received:
                self._ask()
            else:
                self.drop()
            return
        try:
            self.sock.send(b"")
        except OSError:
            self.drop()

    def _ask(self) -> None:
        self._asked = True
        if self._timer is not None:
            self._timer.cancel()
        line, newline, rest = self._received.partition(b"\n")
        self._received = b""
        if newline and rest.strip():
            self.report(False, "one request for each connection: connect again for the next")
        else:
            self._control.ask(self, line)

    # To the client.

    def accept(self) -> None:
        """Send that the request is understood, unless the last answer has been sent."""
        self.send(Answer(accepted=True))

    def report(self, done: bool | None, text: str) -> None:
        """Send progress (None), or the end."""
        self.send(Answer(done, shorten(text)))

    def send(self, answer: Answer) -> None:
        """Send an answer. After the last one the connection is closed."""

        if self.done:
            return
        self.done = answer.done is not None
        self._unsent += control_protocol.encode(answer)
        if self._stuck is None:
            self._flush()
        elif len(self._unsent) > UNSENT:
            self.drop()

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self._unsent, getattr(socket, "MSG_NOSIGNAL", 0))
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._stuck = None
            if self.done:
                self.drop()
            return
        now = time.monotonic()
        if sent or self._stuck is None:
            self._stuck = now
        if now - self._stuck > SILENCE:
            logger.warning("control: %s does not read its answers, and is disconnected", self)
            self.drop()
        else:
            self._timer = self._loop.call_later(RETRY, self._flush)

    def drop(self) -> None:
        """Close the connection."""
        self.done = True
        if self.sock.fileno() < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self.sock.fileno())
        with contextlib.suppress(OSError):
            self.sock.close()
        self._control.forget(self)
