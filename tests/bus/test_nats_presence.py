"""Tests of tidegate.bus.nats_presence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bus import nats_presence
from tidegate.bus.base import Presence
from tidegate.bus.nats_presence import ASK_AGAIN, LEASE, WHOLE, Snapshots
from tidegate.channels import LISTED, UNLISTED


def test_a_snapshot_has_a_lease() -> None:
    one, two = Snapshots("one"), Snapshots("two")
    for part in two.change({"c": Presence(2, {"ada": b"{}"})}):
        one.take(part, 100.0)
    one.change({"c": Presence(1)})
    assert one.present("c", 100.0 + LEASE - 1) == Presence(3, {"ada": b"{}"})
    assert one.present("c", 100.0 + LEASE) == Presence(1)


def test_names_of_one_that_ends_stay_until_the_lease_does() -> None:
    one, two, three = Snapshots("one"), Snapshots("two"), Snapshots("three")
    for part in two.change({"c": Presence(2, {"ada": b"1"})}):
        one.take(part, 100.0)
    one.take(two.end(), 110.0)
    assert one.present("c", 110.0) == Presence(0, {"ada": b"1"})
    for part in three.change({"c": Presence(1, {"ada": b"2"})}):
        one.take(part, 111.0)
    assert one.present("c", 111.0) == Presence(1, {"ada": b"2"})  # what the living one says
    assert one.present("c", 111.0 + LEASE) == Presence(0)


def test_one_that_missed_a_step_asks_and_is_told_all() -> None:
    one, two = Snapshots("one"), Snapshots("two")
    many = {f"c{number}": Presence(1) for number in range(WHOLE + 2)}
    two.change(many)
    (change,) = two.change({**many, "c0": Presence(5)})
    assert one.take(change, 100.0) == "ask"
    question = one.ask(100.0)
    assert question is not None
    assert one.ask(100.0 + ASK_AGAIN / 2) is None
    assert two.take(question, 100.0) == "tell"
    for part in two.all():
        assert one.take(part, 100.0) == ""
    assert one.present("c0", 100.0) == Presence(5)
    (change,) = two.change({name: presence for name, presence in many.items() if name != "c7"})
    assert len(change) < 200  # not all, again
    assert one.take(change, 100.0) == ""
    assert one.present("c0", 100.0) == Presence(1)
    assert one.present("c7", 100.0) == Presence(0)
    assert one.take(change, 100.0) == ""  # twice is once


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([f"c{number}" for number in range(6)]),
            st.builds(
                Presence,
                st.integers(0, 9),
                st.none() | st.dictionaries(st.text(min_size=1), st.just(b"{}"), max_size=5),
            ),
        ),
        max_size=6,
    )
)
def test_others_know_what_was_told(snapshots: list[dict[str, Presence]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nats_presence, "WHOLE", 2)
        patch.setattr(nats_presence, "PART_BYTES", 20)
        one, two = Snapshots("one"), Snapshots("two")
        for part in two.all():
            one.take(part, 0.0)
        for snapshot in snapshots:
            for part in two.change(snapshot):
                assert one.take(part, 0.0) == ""
            for channel in {*snapshot, "c0", "c1"}:
                found = snapshot.get(channel, Presence(0))
                assert one.present(channel, 0.0) == Presence(found.connections, found.members or None)


def test_more_names_than_are_listed_are_none() -> None:
    one, two = Snapshots("one"), Snapshots("two")
    for part in two.change({"c": Presence(900, {f"a{number}": b"1" for number in range(LISTED)})}):
        one.take(part, 0.0)
    one.change({"c": Presence(1, {"b": b"1"})})
    assert one.present("c", 0.0) == Presence(901, {UNLISTED: b"null"})


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"w":1}', b'{"w":"x","c":[[1]]}', b'{"w":"x","s":"a"}'])
def test_what_makes_no_sense_is_nothing(payload: bytes) -> None:
    one = Snapshots("one")
    assert one.take(payload, 0.0) == ""
    assert one.present("c", 0.0) == Presence(0)


def test_processes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_presence, "PROCESSES", 3)
    one = Snapshots("one")
    for number in range(10):
        for part in Snapshots(f"p{number}").change({"c": Presence(1)}) or ():
            one.take(part, 0.0)
    assert one.present("c", 0.0) == Presence(3)
    for part in Snapshots("later").change({"c": Presence(1)}):
        one.take(part, LEASE)
    assert one.present("c", LEASE) == Presence(1)
