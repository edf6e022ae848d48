"""Which sockets of an SO_REUSEPORT group get the new connections: a classic BPF program, attached to the group.

A program draws one of the sockets that are to get them at random. The kernel numbers the sockets of a group in the
order in which they began to listen; when one is closed, the last takes its number. `Group` keeps count of that.

What must not live here: which sockets those should be (sockets/accept_queues.py), binding (sockets/listeners.py).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator, Sequence

__all__ = ["Group"]

# <asm-generic/socket.h>; the socket module has no names for them.
SO_ATTACH_REUSEPORT_CBPF = 51
SO_DETACH_REUSEPORT_BPF = 68

# <linux/filter.h>: operation codes, and where a program finds a random number.
LOAD_WORD, REMAINDER, JUMP_IF_EQUAL, RETURN = 0x20, 0x94, 0x15, 0x06
RANDOM = 0xFFFFF000 + 56


def _program(numbers: Sequence[int]) -> Iterator[bytes]:
    """Return one of these numbers, each as often as any other."""
    instruction = struct.Struct("HBBI").pack  # code, jump if true, jump if false, operand
    yield instruction(LOAD_WORD, 0, 0, RANDOM)
    yield instruction(REMAINDER, 0, 0, len(numbers))
    for turn, number in enumerate(numbers[:-1]):
        yield instruction(JUMP_IF_EQUAL, 0, 1, turn)
        yield instruction(RETURN, 0, 0, number)
    yield instruction(RETURN, 0, 0, numbers[-1])


class Group:
    """The listening sockets of one address, by slot."""

    def __init__(self, numbered: Sequence[int] = ()) -> None:
        self._numbered = list(numbered)  # the slots, in the kernel's order
        self._steered = bool(numbered)  # it may have been, by whoever listened before

    def listens(self, slot: int) -> None:
        """The slot's socket has begun to listen."""
        if slot not in self._numbered:
            self._numbered.append(slot)

    def closed(self, slot: int) -> None:
        """The slot's socket was closed, everywhere."""
        if slot in self._numbered:
            number, last = self._numbered.index(slot), self._numbered.pop()
            if last != slot:
                self._numbered[number] = last

    @property
    def numbered(self) -> list[int]:
        """The slots that listen, in the kernel's order."""
        return list(self._numbered)

    @property
    def slots(self) -> frozenset[int]:
        """Those that listen."""
        return frozenset(self._numbered)

    def steer(self, sock: socket.socket, around: frozenset[int]) -> None:
        """Let new connections go to every slot but these; to all, if there were none left.

        Parameters:
            sock: any socket of the group.

        Raises:
            OSError: this system cannot.
        """
        numbers = [number for number, slot in enumerate(self._numbered) if slot not in around]
        if numbers and len(numbers) < len(self._numbered):
            program = b"".join(_program(numbers))
            memory = ctypes.create_string_buffer(program, len(program))
            # struct sock_fprog: how many instructions, and where they are; the kernel copies them.
            place = struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, place)
            self._steered = True
        elif self._steered:
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
            self._steered = False
