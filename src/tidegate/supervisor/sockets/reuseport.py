"""Which sockets of an SO_REUSEPORT group get new connections: a classic BPF program, attached to the group.

The program picks one of the sockets at random. The kernel numbers the sockets of a group in the order in which they
began to listen; when one is closed, the last takes its number. `Group` keeps track of that.

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
    """Yield the instructions of a program that returns one of these numbers at random."""
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
        self._steered = bool(numbered)  # perhaps, by the program before this one

    def listens(self, slot: int) -> None:
        """Note that the slot's socket has begun to listen."""
        if slot not in self._numbered:
            self._numbered.append(slot)

    def closed(self, slot: int) -> None:
        """Note that the slot's socket was closed, in every process."""
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
        """The slots that listen."""
        return frozenset(self._numbered)

    def steer(self, sock: socket.socket, around: frozenset[int]) -> None:
        """Steer new connections around these slots, unless none were left.


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
