"""Who is in which channel, as Redis has it: a hash per channel with a field per process, and a lease per process.

    Roster    what the server was told, and what it is to be told
    merge     what all processes said, as one

`q:CHANNEL` has what each process last said, `n:PROCESS` is 1 while it lives and 0 after its end, until what it said is
not in force any more; then that is removed by those who read it, and ends by itself. What must not live here: when it
is told (presence.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from .base import Presence
from .redis_url import RedisUrl

__all__ = ["LEASE", "Roster", "merge"]

LEASE: Final = 30
"""Seconds for which a snapshot is in force."""

AFTER: Final = 20
"""Seconds for which names are in force after the end of their process."""

KEPT: Final = 3600
"""Seconds for which a hash is kept after the last change of it."""

REFRESHED: Final = 1200.0
"""Seconds after which a process writes again what has not changed."""

Words = tuple[bytes | str | int, ...]

_decoder = msgspec.msgpack.Decoder(tuple[int, dict[str, bytes] | None])


class Roster:
    """What the server was told.

    Parameters:
        url: with the prefix of names.
        name: of this process.
    """

    def __init__(self, url: RedisUrl, name: str) -> None:
        self._name = name
        self.leases = f"{url.prefix}n:"
        self._prefix = f"{url.prefix}q:"
        self._told: dict[str, tuple[bytes, float]] = {}

    def key(self, channel: str) -> bytes:
        """Return the key of who is in a channel."""
        return f"{self._prefix}{channel}".encode()

    def forget(self) -> None:
        """Take it that the server knows nothing: it is another one, perhaps."""
        self._told = {}

    def commands(self, snapshot: Mapping[str, Presence]) -> Iterable[Words]:
        """Give the commands that tell a snapshot; what has not changed is told again from time to time only."""
        now = time.monotonic()
        yield (b"SET", f"{self.leases}{self._name}", 1, b"EX", LEASE)
        for channel in self._told.keys() - snapshot.keys():
            del self._told[channel]
            yield (b"HDEL", self.key(channel), self._name)
        for channel, presence in snapshot.items():
            value = msgspec.msgpack.encode((presence.connections, presence.members))
            told, when = self._told.get(channel, (b"", 0.0))
            if value != told or now - when > REFRESHED:
                self._told[channel] = value, now
                yield (b"HSET", self.key(channel), self._name, value)
                yield (b"EXPIRE", self.key(channel), KEPT)

    def end(self) -> Words:
        """Return the command that tells the end of this process."""
        return (b"SET", f"{self.leases}{self._name}", 0, b"EX", AFTER)


def merge(said: Sequence[tuple[bytes, bytes]]) -> Presence:
    """Return who is in a channel, from leases and what their processes said."""
    connections = 0
    members: dict[str, bytes] = {}
    for lease, value in sorted(said):  # what those say who live counts more
        try:
            count, names = _decoder.decode(value)
        except msgspec.MsgspecError:
            continue  # what a later release says
        connections += count if lease == b"1" else 0
        members.update(names or {})
    return Presence(connections, members or None)
