"""The registry of a server's connections. What must not live here: what connections do (test_server_handlers.py)."""

from __future__ import annotations

from tidegate.asyncio.admission import Gate, Visit
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
    gate = Gate(Limiter(per_address=1), trusted=Networks(()), limits=(2**20, 2**21))
    registry: ConnectionRegistry[str] = ConnectionRegistry(lambda: None, gate)
    visit = Visit(1.0)
    assert gate.limiter.enter(b"address", 1.0) is None
    visit.key = b"address"
    registry.all.add("a")
    registry.lost("a", visit, stays=True)
    assert (registry.all, gate.staying, visit.key) == (set(), 1, b"address")
    registry.hook_ended(visit)
    assert (gate.staying, visit.key) == (0, None)
    assert gate.limiter.enter(b"address", 2.0) is None
