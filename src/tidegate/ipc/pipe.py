"""The words between a supervisor and its children, and the pipe that carries them: a JSON object on each line.

    Report      upwards: the stage that a child has reached, and why it ends
    Command     downwards: when to begin, how to stop, and what to do in between
    StopMode    how urgently to stop
    Pipe        one end; `send` and `receive` never wait for the other end

The words on the wire are the same in every release, whatever a class or an attribute is called here.

What must not live here: what either side does about a word.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

from ..text import shorten

__all__ = ["Command", "Pipe", "Report", "Stage", "StopMode"]

# A worker that has booted accepts no connection before it is told to serve; then it is ready.
Stage: TypeAlias = Literal["starting", "booted", "ready", "draining", "gone"]


class StopMode(IntEnum):
    """How urgently to stop. A request to stop may be followed by a more urgent one, never by a less urgent one."""

    NONE = 0
    GRACEFUL = 1  # drain: close connections one by one within the drain window, and wait for their ends
    CLOSE = 2  # close all of them now, wait a moment for their ends
    ABORT = 3  # wait for nothing


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child reports.

    Attributes:
        stage: the stage that it has reached.
        error: why it ends, in full, if that is a failure.
        exit: the status with which the daemon should end, were this its only worker.
        link: whether it needs a link to the hub, now and after each end of the hub.
        declares: what its application declares of channels (bus/declaration.py).
    """

    stage: Stage
    error: str | None = None
    exit: int | None = None
    link: bool = False
    declares: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Command(msgspec.Struct, frozen=True, omit_defaults=True, rename={"stop": "end", "drain": "rest"}):
    """What a child is told to do.

    Attributes:
        stop: how urgently to stop.
        leave_queue: when stopping, leave connections in the queue of a socket to others who accept from it.
        serve: accept connections.
        drain: close every connection over the drain window and refuse new ones, but stay.
        adopt: accept, besides its own, the connections of a slot that has no worker; its listening sockets come along.
        release: the slot has a worker again, or is gone: close the sockets that were adopted for it.
        sockets: how many sockets come along.
        link: the socket that comes along is a link between a worker and the hub.
        generation: of the worker at that link.
        listen: the socket that comes along is where other processes connect to the hub from now on.
        reopen: reopen the log's file, which has been moved.
        declares: what the application declares of channels, for who publishes besides the workers.
    """

    stop: StopMode = StopMode.NONE
    leave_queue: bool = False
    serve: bool = False
    drain: bool = False
    adopt: int | None = None
    release: int | None = None
    sockets: int = 0
    link: bool = False
    generation: int = 0
    listen: bool = False
    reopen: bool = False
    declares: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_INT = struct.Struct("i")
Received = TypeVar("Received", Report, Command)


class Pipe(Generic[Received]):
    """One end of a socket pair.

    Parameters:
        sock: this end; the Pipe owns it.
        receives: the class of the words from the other end.
        line: the beginning of a word that has come already.
    """

    LONGEST = 2**20  # of a line, in bytes: more than that is not a report but a fault
    SOCKETS = 64  # that come with one read, at most

    def __init__(self, sock: socket.socket, receives: type[Received], line: bytes = b"") -> None:
        self._socket = sock
        self._takes_sockets = receives is Command  # sockets come with commands alone
        self._decoder: msgspec.json.Decoder[Received] = msgspec.json.Decoder(receives)
        self.line = line
        self._descriptors: list[int] = []  # that have come, until `receive_sockets()` takes them
        self._torn = False  # the last line has gone off in part
        self.ended = False  # the other end is closed

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, word: Report | Command, sockets: Sequence[socket.socket] = (), *, wait: bool = False) -> bool:
        """Send a word; return whether it went off. Without `wait`, it is dropped when the other end does not read."""
        if isinstance(word, Report) and word.error is not None:
            word = msgspec.structs.replace(word, error=shorten(word.error))
        line = msgspec.json.encode(word) + b"\n"
        if self._torn:
            line = b"\n" + line  # what has gone off must not be taken for its beginning
        try:
            if wait:
                self._socket.sendall(line)
                return True
            if sockets:
                numbers = [sock.fileno() for sock in sockets]
                sent = socket.send_fds(self._socket, [line], numbers, socket.MSG_DONTWAIT)
            else:
                sent = self._socket.send(line, socket.MSG_DONTWAIT)
        except OSError:
            return False
        self._torn = sent < len(line)
        return not self._torn

    def receive(self) -> list[Received]:
        """Return the words that have come, perhaps none, and set `ended` after the last one there can be.

        Lines that cannot be decoded are left out: they come from an application that writes where it should not.
        """
        try:
            for _ in range(16):  # more than a socket holds; bounded, since the other end may write all the time
                data = self._read()
                if not data:
                    self.ended = True
                    break
                self.line += data
        except BlockingIOError:
            pass
        except OSError:  # ECONNRESET: it ended with words of ours unread
            self.ended = True
        *lines, self.line = self.line.split(b"\n")
        if len(self.line) > self.LONGEST:
            self.line = b""
        words = []
        for line in lines:
            try:
                words.append(self._decoder.decode(line))
            except msgspec.MsgspecError:
                continue
        return words

    def _read(self) -> bytes:
        """Read what there is; socket.recv_fds() would wait for it."""
        # Without space for descriptors the system closes those that come.
        space = socket.CMSG_SPACE(self.SOCKETS * _INT.size) if self._takes_sockets else 0
        data, attached, _, _ = self._socket.recvmsg(65536, space, socket.MSG_DONTWAIT | _CLOEXEC)
        for level, kind, numbers in attached:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors += (number for (number,) in _INT.iter_unpack(numbers))
        return data

    def receive_sockets(self, number: int) -> list[socket.socket]:
        """Return the sockets that came along with a word, in order; fewer if the system had no descriptors left."""
        taken, self._descriptors = self._descriptors[:number], self._descriptors[number:]
        for descriptor in taken:
            os.set_inheritable(descriptor, False)
        return [socket.socket(fileno=descriptor) for descriptor in taken]

    def close(self) -> None:
        self._socket.close()
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()
