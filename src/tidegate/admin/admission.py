"""Admission control of the admin process: probes come in, however many other connections there are.

No request has to be rejected: each is answered at once. So when there are as many connections as there may be, or few
descriptors are left, the oldest that does not listen to /live makes room: it has not asked, or does not read its
answer.

What must not live here: who may ask (authorization.py), how many listen (feed.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asyncio.admission import Admission, ClientRecord, Verdict, descriptors
from ..limits import DESCRIPTORS, Limiter
from ..networks import Networks

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Callable

__all__ = ["BACKLOG", "CONNECTIONS", "AdminAdmission"]

CONNECTIONS = 128
"""At a time, listeners included."""

BACKLOG = 64
"""Connections that the system queues for each socket, and that can come before one that made room has left."""


class AdminAdmission(Admission):
    """Admission control of the admin process's servers."""

    def __init__(self) -> None:
        _, last = descriptors()
        super().__init__(Limiter(), trusted=Networks(()), limits=(max(last - 2 * BACKLOG, last // 2), last))
        self._evicts: dict[ClientRecord, Callable[[], bool]] = {}  # what aborts each; in the order in which they came

    def admit(
        self, transport: BaseTransport, since: float, record: ClientRecord | None, evict: Callable[[], bool]
    ) -> ClientRecord:
        """Let every connection in, and evict another one for it if there is no room."""
        if len(self._evicts) >= CONNECTIONS or self.is_in_reserve(transport):
            self._make_room()
        if record is None:
            record = ClientRecord(since)
        self._evicts[record] = evict
        if self.must_abort(transport):  # so many came at once that those evicted have not left yet
            record.verdict = Verdict.of((DESCRIPTORS, 0), abort=True)
        return record

    def release(self, record: ClientRecord) -> None:
        """Forget a connection that has ended."""
        self._evicts.pop(record, None)

    def _make_room(self) -> None:
        for record, evict in self._evicts.items():
            if evict():
                self._evicts.pop(record, None)
                return
