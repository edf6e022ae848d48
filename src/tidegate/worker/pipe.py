"""The words between a worker and its supervisor, and the pipe that carries them: a JSON object on each line.

    Report      upwards: the stage that the worker has reached, and why it ends
    Order       downwards: how to end
    Pipe        one end; `send` and `receive` never wait for the other end to be well

What must not live here: what either side makes of a word.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

__all__ = ["Level", "Order", "Pipe", "Report", "Stage"]

Stage: TypeAlias = Literal["starting", "ready", "draining", "gone"]


class Level(IntEnum):
    """How urgently to end. An order to end may be followed by a more urgent one, never by a less urgent one."""

    NONE = 0
    DRAIN = 1  # close connections one by one within the drain window, wait for their ends
    CLOSE = 2  # close all of them now, wait a moment for their ends
    CUT = 3  # wait for nothing


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker tells.

    Attributes:
        stage: the stage that it has reached.
        error: why it ends, in full, if that is a failure.
        exit: the status with which the daemon should end, were this its only worker.
    """

    stage: Stage
    error: str | None = None
    exit: int | None = None


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker is told to do.

    Attributes:
        end: how to end; NONE leaves that as it was.
        reopen: open the log's file anew: somebody has moved it.
    """

    end: Level = Level.NONE
    reopen: bool = False


Received = TypeVar("Received", Report, Order)


class Pipe(Generic[Received]):
    """One end of a socket pair.

    Parameters:
        sock: this end; the Pipe owns it.
        receives: the kind of words that come from the other end.
    """

    LONGEST = 2**20  # of a line, in bytes: more than that is not a report but a fault

    def __init__(self, sock: socket.socket, receives: type[Received]) -> None:
        self._socket = sock
        self._decoder: msgspec.json.Decoder[Received] = msgspec.json.Decoder(receives)
        self._line = b""
        self.ended = False  # the other end is closed

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, word: Report | Order, *, wait: bool = False) -> bool:
        """Whether the word went off. Without `wait`, an end that does not read for a long time gets no more words."""
        line = msgspec.json.encode(word) + b"\n"
        try:
            if wait:
                self._socket.sendall(line)
                return True
            return self._socket.send(line, socket.MSG_DONTWAIT) == len(line)
        except OSError:
            return False

    def receive(self) -> list[Received]:
        """The words that have come, perhaps none; sets `ended` after the last one there can be.

        A line that is no word is left out: it comes from an application that writes where it should not.
        """
        try:
            for _ in range(16):  # more than a socket holds, and no end for one that is being filled all the time
                data = self._socket.recv(65536, socket.MSG_DONTWAIT)
                if not data:
                    self.ended = True
                    break
                self._line += data
        except BlockingIOError:
            pass
        except OSError:  # ECONNRESET: it ended with words of ours unread
            self.ended = True
        *lines, self._line = self._line.split(b"\n")
        if len(self._line) > self.LONGEST:
            self._line = b""
        words = []
        for line in lines:
            try:
                words.append(self._decoder.decode(line))
            except msgspec.MsgspecError:
                continue
        return words

    def close(self) -> None:
        self._socket.close()
