"""The connections in a channel of the bus: who joins and leaves, who gets a message, and who is handed back.

What must not live here: frames, and turns of broadcasts (test_broadcast, test_broadcast_backlog), what becomes of those
who are handed back (tests/asyncio/test_membership).
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.core.recorder import Recorder
from tests.core.test_broadcast_backlog import LARGE, SocketLoop
from tests.core.test_broadcast_backlog import Member as Connection
from tests.support.harness import require
from tests.support.wire import BINARY, TEXT
from tidegate._core.members import Participant, Table
from tidegate.protocol import State

try:
    import _testcapi  # type: ignore[import-not-found]
except ImportError:  # Python without its own tests
    _testcapi = None

LIMIT = 2**20


class Member(Participant):
    """A connection's, with a name."""

    connection: Recorder

    def __init__(self, connection: Recorder | None = None, sender: str = "w.1") -> None:
        super().__init__(connection or Recorder(), sender, LIMIT)

    @property
    def written(self) -> bytes:
        return self.connection.transport_.written


def table(*members: Member) -> Table[Member]:
    made: Table[Member] = Table()
    for member in members:
        made.add(member)
    return made


@pytest.fixture
def slow() -> Iterator[Member]:
    """One whose peer does not read: more waits than it may be that pauses writing."""
    loop = SocketLoop()
    connection = Connection(loop)
    begin(connection.send(b"s" * LARGE))
    assert connection._write_paused
    yield Member(connection)
    connection.stream.abort()
    connection.peer.close()
    loop.run()


def begin(awaitable: Any) -> None:
    with contextlib.suppress(StopIteration, RuntimeError):
        awaitable.send(None)
    awaitable.close()


# Joins and leaves.


def test_members_come_and_go() -> None:
    one, two, three = Member(), Member(), Member()
    members = table(one, two, three)
    members.add(one)
    assert (len(members), list(members), members.first) == (3, [one, two, three], one)
    assert members.discard(one)
    assert not members.discard(one)
    assert (one in members, two in members, three in members, "x" in members) == (False, True, True, False)
    assert set(members) == {two, three}
    assert members.discard(three)
    assert members.discard(two)
    assert (len(members), list(members), members.first) == (0, [], None)


def test_tables_and_members_agree_whatever_the_order() -> None:
    chance = random.Random(7)
    members = [Member() for _ in range(30)]
    tables: list[tuple[Table[Member], set[Member]]] = [(Table(), set()) for _ in range(20)]
    for _ in range(20_000):
        member = chance.choice(members)
        made, model = chance.choice(tables)
        if chance.random() < 0.5:
            made.add(member)
            model.add(member)
        else:
            assert made.discard(member) == (member in model)
            model.discard(member)
    for made, model in tables:
        assert set(made) == model
        assert len(made) == len(model)
        assert all((member in made) == (member in model) for member in members)


def test_a_table_that_ends_is_forgotten() -> None:
    member = Member()
    for _ in range(3):
        tables = [table(member) for _ in range(5)]
        assert all(member in made for made in tables)
        del tables[::2]
        assert all(made.discard(member) for made in tables)
        del tables
    assert member not in Table()


def test_circles_are_collected() -> None:
    """A member, its connection, and a table that something of it refers to."""
    member = Member()
    members = table(member)
    member.connection.circle = (members, member)  # type: ignore[attr-defined]
    gone = weakref.ref(member.connection)
    del member, members
    gc.collect()
    assert gone() is None


def test_a_hundred_thousand_members_take_little_room() -> None:
    """Beside themselves and their connections: 200 bytes at most, and nothing when they have left."""
    connection = Recorder()
    everybody = [Member(connection) for _ in range(100_000)]
    members: Table[Member] = Table()
    gc.collect()
    before = sys.getallocatedblocks()
    for member in everybody:
        members.add(member)
    assert sys.getallocatedblocks() - before < 100_100  # one of 16 bytes each, and a list
    random.Random(7).shuffle(everybody)
    for member in everybody:
        members.discard(member)
    assert sys.getallocatedblocks() - before < 100
    assert len(members) == 0


def test_no_memory() -> None:
    """Joining fails whole, and can be tried again."""
    require(_testcapi, "the module _testcapi of CPython's own tests")
    failures = 0
    for n in range(20):
        member, members = Member(), table()
        gc.disable()
        _testcapi.set_nomemory(n, n + 1)
        try:
            members.add(member)
        except MemoryError:
            failures += 1
            assert member not in members
            assert len(members) == 0
        finally:
            _testcapi.remove_mem_hooks()
            gc.enable()
        members.add(member)
        assert list(members) == [member]
    assert failures == 2


def test_what_is_no_member() -> None:
    members: Table[Any] = Table()
    for wrong in (None, Recorder(), "x"):
        with pytest.raises(TypeError):
            members.add(wrong)
        with pytest.raises(TypeError):
            members.discard(wrong)
    with pytest.raises(TypeError, match="without a connection"):
        members.add(Participant.__new__(Participant))
    assert len(members) == 0


@pytest.mark.parametrize(
    "arguments", [(None, "w.1", 1), ("x", "w.1", 1), (Recorder(), None, 1), (Recorder(), "w.1", "x")]
)
def test_what_no_member_is_made_of(arguments: Any) -> None:
    with pytest.raises(TypeError):
        Participant(*arguments)


# Messages.


@pytest.mark.parametrize(("opcode", "first"), [(TEXT, b"\x81"), (BINARY, b"\x82")])
def test_everybody_gets_it(opcode: int, first: bytes) -> None:
    everybody = [Member() for _ in range(5)]
    assert table(*everybody).give(opcode, b"x") == ([], [], [])
    assert [member.written for member in everybody] == [first + b"\x01x"] * 5


def test_the_sender_is_left_out() -> None:
    one, two = Member(sender="w.1"), Member(sender="w.2")
    table(one, two).give(TEXT, b"x", "w.1")
    assert (one.written, two.written) == (b"", b"\x81\x01x")


def test_who_cannot_take_it_is_handed_back() -> None:
    behind, sending, closing, logged = (
        Member(),
        Member(),
        Member(Recorder(state=State.CLOSING)),
        Member(Recorder(slow=True)),
    )
    behind.is_behind = True
    sending.connection._sending = True
    everybody = [behind, sending, closing, logged, Member()]
    assert table(*everybody).give(TEXT, b"x") == ([], [behind, sending, logged], [])
    assert [member.written for member in everybody] == [b""] * 4 + [b"\x81\x01x"]


def test_a_transport_that_raises_keeps_nobody() -> None:
    broken, other = Member(), Member()
    broken.connection.transport_.broken = RuntimeError("no more")
    found = table(broken, other).give(TEXT, b"x")
    assert found == ([], [], [(broken.connection, broken.connection.transport_.broken)])
    assert other.written == b"\x81\x01x"


def test_one_that_reads_slowly_has_it_kept_up_to_its_limit(slow: Member) -> None:
    assert isinstance(slow.connection, Connection)
    waiting = slow.connection.waiting
    assert waiting > slow.limit
    members = table(slow)
    assert members.give(BINARY, b"x") == ([], [slow], [])
    larger = Participant(slow.connection, "w.2", waiting + 100)
    both: Table[Any] = Table()
    both.add(larger)
    assert both.give(BINARY, b"x" * 90) == ([], [], [])
    assert slow.connection.waiting == waiting + 92
    assert both.give(BINARY, b"x" * 90) == ([], [larger], [])


def test_if_the_latest_matters_those_without_room_are_told(slow: Member) -> None:
    """Whether it was this message that took the room, or what was sent before."""
    assert isinstance(slow.connection, Connection)
    before = Participant(slow.connection, "w.2", 2 * LARGE)
    now, other = Member(), Member()
    now.connection.transport_.full = True
    members: Table[Any] = table(now, other)
    members.add(before)
    assert members.give(BINARY, b"x", None, True) == ([now, before], [], [])
    assert now.written == other.written == b"\x82\x01x"


def test_who_leaves_meanwhile_gets_nothing() -> None:
    """What a transport does when it is full may close another."""

    class Leaver(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            members.discard(two)

    one, two, three = Member(Leaver()), Member(), Member()
    one.connection.transport_.full = True
    members = table(one, two, three)
    assert members.give(TEXT, b"x") == ([], [], [])
    assert (one.written, two.written, three.written) == (b"\x81\x01x", b"", b"\x81\x01x")


@pytest.mark.parametrize("opcode", [0, 8, 255])
def test_what_is_given_is_text_or_binary(opcode: int) -> None:
    with pytest.raises(ValueError, match="text \\(1\\) or binary \\(2\\)"):
        table(Member()).give(opcode, b"x")
