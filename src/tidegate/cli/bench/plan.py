"""What a round of a benchmark is to do, as its processes are told.

What must not live here: options of the command line (arguments.py), doing it (process.py).
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Mode", "Plan"]

Mode = Literal["echo", "fan", "handshakes", "idle"]


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """Of one process.

    Attributes:
        uri: of the server.
        mode: echo: each message is answered by one; fan: one connection sends to all others; handshakes: connections
            are opened and closed; idle: they are held.
        connections: how many; handshakes: how many at the same time; a fan has one more, which sends.
        in_flight: messages of a connection that may wait for their answer.
        size: bytes of a message, before it is compressed.
        text: whether messages are text.
        compression: whether permessage-deflate is offered.
        raw: whether there are no opening handshakes, and the server sends back what it is sent, byte for byte.
        rate: messages, or rounds of a fan, a second; 0: as fast as they are answered.
        duration: seconds that are measured; handshakes: the most that they may take.
        ramp_up: seconds over which the connections are opened.
        warm_up: seconds of load before what is measured.
        handshakes: how many, in the mode of that name.
        timeout: seconds for an opening handshake, and for the last answers.
        headers: to be sent with each opening handshake.
        subprotocols: to be offered.
        insecure: whether the server's certificate is not verified.
    """

    uri: str
    mode: Mode = "echo"
    connections: int = 100
    in_flight: int = 1
    size: int = 64
    text: bool = True
    compression: bool = False
    raw: bool = False
    rate: float = 0.0
    duration: float = 10.0
    ramp_up: float = 0.0
    warm_up: float = 1.0
    handshakes: int = 0
    timeout: float = 10.0
    headers: list[tuple[str, str]] = []
    subprotocols: list[str] = []
    insecure: bool = False

    @property
    def sockets(self) -> int:
        """Connections that are open at the same time."""
        return self.connections + (self.mode == "fan")

    def split(self, processes: int) -> list[Plan]:
        """Divide it among processes, of which there may be fewer than that."""
        if self.mode == "fan":
            return [self]
        count = min(processes, self.connections, *([self.handshakes] if self.mode == "handshakes" else []))
        parts = []
        for index in range(count):
            connections = share(self.connections, count, index)
            parts.append(
                msgspec.structs.replace(
                    self,
                    connections=connections,
                    rate=self.rate * connections / self.connections,
                    handshakes=share(self.handshakes, count, index),
                )
            )
        return parts


def share(number: int, parts: int, index: int) -> int:
    """The size of one part of a number that is divided as equally as it can be."""
    return number // parts + (index < number % parts)
