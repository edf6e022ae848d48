"""Tests of tidegate.bus.presence: names in one process, step by step; several processes by a model
(test_presence_machine.py).
"""

from __future__ import annotations

import pytest

from tidegate.bus.base import Presence
from tidegate.bus.presence import BEAT, NAMES_BYTES, PROCESSES, SETTLE, SLACK, SOON, Presences
from tidegate.channels import LISTED, UNLISTED, Identity, PresenceEvent

ADA, BOB = Identity("ada"), Identity("bob", {"color": "red"})
ME = {"me": b"null"}
CROWD = {UNLISTED: b"null"}


class Process:
    """One process with a channel, "c", that tells the engine what is due."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.excluded: list[object] = []
        self.now = 100.0
        self.presences = Presences("me", self._tell, self.now)

    def _tell(self, event: PresenceEvent, but: object) -> None:
        self.events.append((event.kind, event.member))
        self.excluded.append(but)

    def enter(self, member: str, identity: Identity) -> None:
        self.presences.enter("c", member, identity, self.now)

    def leave(self, member: str, grace: float | None = 2.0) -> None:
        self.presences.leave("c", member, self.now, grace)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.presences.tick(self.now)

    def told(self) -> dict[str, bytes] | None:
        """Tell the engine; the names of the channel in that."""
        present = self.presences.snapshot({}, self.now).get("c")
        self.presences.told(self.now, 0.0)
        return dict(present.members or {}) if present is not None else None

    def read(self, names: dict[str, bytes] | None, certain: bool = True) -> None:
        """Have the channel read now, whenever it was to be."""
        self.presences.nudged(["c"], self.now)
        self.wait(max(0.0, self.presences._due["c"] - self.now))
        assert self.presences.reads(self.now) == ["c"]
        self.presences.have_read("c", None if names is None else Presence(1, names), certain, self.now)

    def watch(self, names: dict[str, bytes]) -> None:
        self.presences.open("c", self.now)
        self.read(names)


@pytest.fixture
def process() -> Process:
    return Process()


# What the engine is told.


def test_all_connections_of_a_name_are_one_member(process: Process) -> None:
    process.enter("tab 1", BOB)
    process.enter("tab 2", BOB)
    process.enter("tab 3", ADA)
    assert process.told() == {"bob": b'{"color":"red"}', "ada": b"null"}
    process.leave("tab 1", None)
    assert set(process.told() or ()) == {"bob", "ada"}
    process.leave("tab 2", None)
    process.leave("tab 2", None)
    assert set(process.told() or ()) == {"ada"}


def test_a_name_stays_for_the_grace_and_comes_back_within_it(process: Process) -> None:
    process.enter("tab", ADA)
    process.leave("tab", 2.0)
    process.wait(2.0)
    assert process.told() == {"ada": b"null"}
    process.enter("tab", ADA)
    process.wait(100.0)
    assert process.told() == {"ada": b"null"}
    process.leave("tab", 2.0)
    process.wait(2.0 + SLACK)
    assert process.told() is None


def test_who_leaves_twice_has_the_later_grace(process: Process) -> None:
    process.enter("tab", ADA)
    process.leave("tab", 2.0)
    process.wait(1.0)
    process.enter("tab", ADA)
    process.leave("tab", 15.0)
    process.wait(10.0)
    assert process.told() == {"ada": b"null"}
    process.wait(6.0)
    assert process.told() is None


def test_one_member_has_one_name_and_may_change_it_and_what_is_known_of_it(process: Process) -> None:
    process.enter("tab", ADA)
    process.enter("tab", Identity("ada", 1))
    assert process.told() == {"ada": b"1"}
    process.enter("tab", BOB)
    assert set(process.told() or ()) == {"bob"}
    assert process.presences.name_of("c", "tab") == "bob"
    assert process.presences.name_of("other", "tab") is None


def test_changes_are_told_soon_and_together_and_else_from_time_to_time(process: Process) -> None:
    presences = process.presences
    assert presences.is_beat_due(process.now)
    assert process.told() is None
    assert presences.told(process.now, 0.0) == []
    assert not presences.is_beat_due(process.now + BEAT - 1)
    assert presences.is_beat_due(process.now + BEAT)
    process.enter("tab 1", ADA)
    process.wait(0.1)
    process.enter("tab 2", BOB)
    assert not presences.is_beat_due(process.now)
    process.wait(0.15)
    assert presences.is_beat_due(process.now)
    assert presences.snapshot({"c": 3, "other": 1}, process.now) == {
        "c": Presence(3, {"ada": b"null", "bob": b'{"color":"red"}'}),
        "other": Presence(1),
        PROCESSES: Presence(1, ME),
    }
    assert presences.told(process.now, 0.0) == ["c"]


def test_what_was_not_told_is_told_later(process: Process) -> None:
    process.enter("tab", ADA)
    process.presences.snapshot({}, process.now)
    process.presences.not_told(process.now)
    assert not process.presences.is_beat_due(process.now)
    process.wait(1.0)
    assert process.presences.is_beat_due(process.now)
    process.presences.snapshot({}, process.now)
    assert process.presences.told(process.now, 0.0) == ["c"]
    process.presences.say_again(["c"], process.now)
    process.presences.snapshot({}, process.now)
    assert process.presences.told(process.now, 0.0) == ["c"]


def test_snapshots_that_take_long_are_rare(process: Process) -> None:
    process.presences.snapshot({}, process.now)
    process.presences.told(process.now, 0.1)
    process.enter("tab", ADA)
    assert not process.presences.is_beat_due(process.now + 1.9)
    assert process.presences.is_beat_due(process.now + 2.0)


def test_too_many_names_are_not_told(process: Process) -> None:
    for number in range(LISTED):
        process.enter(f"tab {number}", Identity(f"user {number}"))
    assert len(process.told() or ()) == LISTED
    process.enter("one more", ADA)
    assert process.told() == CROWD
    process.enter("yet another", BOB)
    process.presences.snapshot({}, process.now)
    assert process.presences.told(process.now, 0.0) == []  # nothing that others could see is new
    process.leave("one more", None)
    process.leave("yet another", None)
    assert len(process.told() or ()) == LISTED


def test_a_process_tells_so_many_bytes_of_names_and_no_more(process: Process) -> None:
    info = "x" * 1000
    channels = NAMES_BYTES // 1000 // LISTED + 5
    for channel in range(channels):
        for number in range(LISTED):
            process.presences.enter(f"c{channel}", f"{channel} {number}", Identity(f"{number}", info), process.now)
    snapshot = process.presences.snapshot({}, process.now)
    told = [present.members != CROWD for name, present in snapshot.items() if name != PROCESSES]
    assert told[0]
    assert not told[-1]
    assert sum(told) * 1000 * LISTED <= NAMES_BYTES + 1_100_000


def test_at_the_end_those_are_told_who_may_be_back_elsewhere(process: Process) -> None:
    assert process.presences.farewell() == {}
    process.enter("tab 1", ADA)
    process.enter("tab 2", BOB)
    process.enter("tab 3", Identity("eve"))
    process.leave("tab 1", 2.0)
    process.leave("tab 2", None)
    assert process.presences.farewell() == {
        "c": Presence(0, {"ada": b"null", "eve": b"null"}),
        PROCESSES: Presence(0, ME),
    }


# What members are told.


def test_the_first_connection_of_a_member_is_told_and_not_to_itself(process: Process) -> None:
    process.watch({"eve": b"1"})
    process.enter("tab 1", ADA)
    process.enter("tab 2", ADA)
    process.enter("tab 3", Identity("eve"))
    assert process.events == [("in", "ada")]
    assert process.excluded == ["tab 1"]
    process.read({"eve": b"1", "ada": b"null", "bob": b"2"})
    assert process.events == [("in", "ada"), ("in", "bob")]
    assert process.presences.names("c") == {"eve": b"null", "ada": b"null", "bob": b"2"}


def test_a_member_that_goes_is_told_when_the_engine_has_it_no_more(process: Process) -> None:
    process.watch({"ada": b"1"})
    process.enter("tab", ADA)
    process.leave("tab", 0.0)
    process.wait(SLACK)
    process.read({"ada": b"null"})  # it is not told yet, or is elsewhere as well
    assert process.events == []
    process.read({})
    assert process.events == [("out", "ada")]


def test_nothing_is_told_before_it_is_read_who_is_there(process: Process) -> None:
    process.presences.open("c", process.now)
    process.enter("tab", ADA)
    assert process.presences.names("c") is None
    assert not process.presences.is_loaded("c")
    process.read({"bob": b"1"})
    assert process.events == []
    assert process.presences.names("c") == {"ada": b"null", "bob": b"1"}


def test_it_is_not_read_before_the_engine_can_know_it(process: Process) -> None:
    process.presences = Presences("me", process._tell, process.now, settles=1.0)
    process.presences.open("c", process.now)
    process.presences.nudged(["c"], process.now)
    assert process.presences.reads(process.now) == []
    process.wait(1.0)
    assert process.presences.reads(process.now) == ["c"]


def test_a_read_that_fails_is_repeated(process: Process) -> None:
    process.presences.open("c", process.now)
    process.read(None)
    assert not process.presences.is_loaded("c")
    assert process.presences.reads(process.now) == []
    process.wait(1.0)
    assert process.presences.reads(process.now) == ["c"]


def test_news_while_it_is_read_are_read_after_that(process: Process) -> None:
    process.presences.open("c", process.now)
    assert process.presences.reads(process.now) == ["c"]
    process.presences.nudged(["c", "unknown"], process.now)
    assert process.presences.reads(process.now) == []
    process.presences.have_read("c", Presence(0), True, process.now)
    assert process.presences.reads(process.now) == ["c"]


def test_who_is_missing_is_there_until_it_is_certain(process: Process) -> None:
    process.watch({"ada": b"1", "bob": b"1"})
    assert process.presences.misses("c", Presence(1, {"ada": b"1"}))
    assert not process.presences.misses("c", Presence(1, {"ada": b"1", "bob": b"1", "eve": b"1"}))
    process.read({"ada": b"1", "eve": b"1"}, certain=False)
    assert process.events == [("in", "eve")]
    process.presences.again(process.now)
    process.read({"ada": b"1"})  # others may not have told it again
    assert process.events == [("in", "eve")]
    process.wait(SETTLE)
    process.read({"ada": b"1"})
    assert sorted(process.events) == [("in", "eve"), ("out", "bob"), ("out", "eve")]


def test_what_was_read_while_it_was_not_certain_is_told_as_another_list(process: Process) -> None:
    process.presences.again(process.now)
    process.watch({"ada": b"1"})
    process.wait(SETTLE)
    process.read({"ada": b"1", "bob": b"1"})
    process.read({"ada": b"1"})
    assert process.events == [("changed", ""), ("out", "bob")]


def test_when_a_process_has_gone_all_is_read(process: Process) -> None:
    process.watch({})
    assert process.presences.is_check_due(process.now)
    assert process.presences.have_checked(Presence(2, {**ME, "other": b"null"}), process.now)
    assert not process.presences.is_check_due(process.now)
    process.wait(SOON)
    assert process.presences.reads(process.now) == []
    assert process.presences.have_checked(Presence(1, ME), process.now)
    assert process.presences.reads(process.now) == ["c"]


def test_a_process_that_the_engine_has_forgotten_hears_it(process: Process) -> None:
    assert not process.presences.have_checked(Presence(1, {"other": b"null"}), process.now)
    assert not process.presences.have_checked(None, process.now)
    assert process.presences.have_checked(Presence(2000, CROWD), process.now)


def test_an_idle_channel_is_read_once_a_minute(process: Process) -> None:
    process.watch({})
    process.wait(59.0)
    process.presences.have_checked(Presence(1, ME), process.now)
    assert process.presences.reads(process.now) == []
    process.wait(2.0)
    process.presences.have_checked(Presence(1, ME), process.now)
    assert process.presences.reads(process.now) == ["c"]


def test_beyond_the_limit_one_hears_that_the_list_is_another_once(process: Process) -> None:
    names = {f"user {number}": b"null" for number in range(LISTED)}
    process.watch(names)
    process.enter("tab", ADA)
    assert process.events == [("changed", "")]
    assert process.presences.names("c") is None
    process.enter("tab 2", BOB)
    process.read(CROWD)
    process.read(dict(list(names.items())[:950]))  # not much less: it would change all the time
    assert process.events == [("changed", "")]
    process.read(dict(list(names.items())[:800]))
    assert process.events == [("changed", "")] * 2
    assert len(process.presences.names("c") or ()) == 802


def test_a_channel_that_is_not_watched_any_more_is_not_read(process: Process) -> None:
    process.watch({})
    process.presences.shut("c")
    process.presences.nudged(["c"], process.now)
    assert process.presences.reads(process.now) == []
    assert process.presences.watched() == []
    process.presences.have_read("c", Presence(1, {"ada": b"1"}), True, process.now)
    assert process.events == []
