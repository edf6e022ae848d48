"""The registry of a server's connections. What must not live here: what connections do (test_server_handlers.py)."""

from __future__ import annotations

from tidegate.asyncio.admission import Admission, ClientRecord
from tidegate.asyncio.registry import ConnectionRegistry
from tidegate.limits import Limiter
from tidegate.networks import Networks


def test_a_connection_that_is_lost_is_forgotten_before_the_server_is_told() -> None:
    left: list[set[str]] = []
    registry: ConnectionRegistry[str] = ConnectionRegistry(lambda: left.append(set(registry.all)))
    registry.all |= {"a", "b"}
    registry.lost("a", None)
    registry.lost("a", None)
    assert left == [{"b"}, {"b"}]


def test_a_hook_that_stays_is_counted_until_it_ends() -> None:
    """Its address is given back then, and not when the connection is lost."""
    admission = Admission(Limiter(per_address=1), trusted=Networks(()), limits=(2**20, 2**21))
    registry: ConnectionRegistry[str] = ConnectionRegistry(lambda: None, admission)
    record = ClientRecord(1.0)
    assert admission.limiter.enter(b"address", 1.0) is None
    record.key = b"address"
    registry.all.add("a")
    registry.lost("a", record, orphans_hook=True)
    assert (registry.all, admission.orphaned_hooks, record.key) == (set(), 1, b"address")
    registry.hook_ended(record)
    assert (admission.orphaned_hooks, record.key) == (0, None)
    assert admission.limiter.enter(b"address", 2.0) is None
