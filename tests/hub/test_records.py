"""What the hub records of itself: its counters go on from those of the hub before it."""

import os
import socket
import time

from tests.support.patience import PATIENCE
from tidegate._core.counters import Row
from tidegate._core.journal import make_memory
from tidegate.bus.link import VERSION, Decoder, Flag, Frame, Hello, Kind, Policy, encode, pack_json
from tidegate.hub.main import Hub, attach

BYTES = 32 << 20


def values(row: Row) -> dict[str, int]:
    return {
        name: row.words(name)[0]
        for name in (
            *("hub_published", "hub_delivered", "journal_stored", "journal_evicted", "hub_links", "hub_topics"),
            *("journal_messages", "journal_bytes", "hub_queue_bytes"),
        )
    }


def publish(hub: Hub, link: socket.socket, publisher: int, payloads: list[bytes]) -> None:
    """Be linked with a hub, and publish in a channel with history that this link is subscribed to."""
    hello = Hello(VERSION, publisher, name="test", generation=1, channels={"": Policy(3, 60.0, 1 << 20)})
    frames = [
        Frame(Kind.HELLO, payload=pack_json(hello)),
        Frame(Kind.OPEN, channel=1, payload=b"c"),
        Frame(Kind.SUBSCRIBE, channel=1, sequence=1),
        *(Frame(Kind.PUBLISH, Flag.TEXT, 1, sequence=10 + n, payload=payload) for n, payload in enumerate(payloads)),
    ]
    link.sendall(b"".join(encode(frame) for frame in frames))
    decoder, got = Decoder(), 0
    link.setblocking(False)
    deadline = time.monotonic() + PATIENCE
    while got < len(payloads):
        assert time.monotonic() < deadline
        hub.switch.turn(0.1)
        try:
            got += sum(frame.kind == Kind.MESSAGE for frame in decoder.feed(link.recv(1 << 16)))
        except BlockingIOError:
            continue


def test_what_a_hub_counts_goes_on_with_the_next_one() -> None:
    row, journal = Row(), make_memory(BYTES)
    first = Hub(attach(os.dup(journal)), row=row)
    ours, theirs = socket.socketpair()
    first._link(theirs)
    publish(first, ours, 1, [b"12345"] * 5)
    first.records.update()
    found = values(row)
    assert found["hub_published"] == found["hub_delivered"] == found["journal_stored"] == 5
    assert (found["hub_links"], found["hub_topics"], found["journal_messages"]) == (1, 1, 3)
    assert found["hub_queue_bytes"] == 0
    assert 3 * 5 < found["journal_bytes"] < 3 * (5 + 100)
    first.close()
    ours.close()
    assert values(row)["hub_links"] == 0

    second = Hub(attach(os.dup(journal)), row=row)
    second.records.update()
    assert values(row)["journal_messages"] == 5  # it knows of no policy until a worker is linked
    assert values(row)["journal_stored"] == 5
    ours, theirs = socket.socketpair()
    second._link(theirs)
    publish(second, ours, 2, [b"6"])
    second.close()
    ours.close()
    assert values(row)["hub_published"] == 6


def test_messages_that_a_link_has_lost_are_counted_after_its_end() -> None:
    row = Row()
    hub = Hub(attach(make_memory(BYTES)), row=row)
    hub.records.ended(12)
    hub.records.update()
    hub.records.update()
    assert row.words("bus_dropped") == (0, 12, 0, 0)
    hub.close()
