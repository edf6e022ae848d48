"""What today's release says to another one, beside what was recorded of a release that is in use.

Today's must read what was recorded, and must write it again; it may write more, which older ones leave out. So a class,
a module or a field in Python may be called anything, and its word stays. Red here means that an upgrade in place, or
the way back, would fail: do not record anew, but let the word be what it was.

What must not live here: how it is recorded (record.py), upgrades of real daemons (test_upgrade.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.releases import record
from tests.releases.record import recorded
from tidegate._core.scoreboard import Scoreboard
from tidegate.config.bind import Fd, Tcp, Unix
from tidegate.config.schema import Config
from tidegate.ipc import control_protocol, handover_state
from tidegate.ipc.control_protocol import Answer
from tidegate.ipc.handover_state import HandoverError, ListenerState
from tidegate.ipc.pipe import Command, Pipe, Report
from tidegate.supervisor import upgrade
from tidegate.supervisor.sockets import listener as listening
from tidegate.supervisor.sockets.listeners import Listeners
from tidegate.supervisor.system.pidfile import Pidfile

LAYOUTS = sorted(path.stem for path in record.FOLDER.glob("scoreboard-*.json"))
TODAY = f"scoreboard-{record.layout_of_today()}"


def kept(before: Any, now: Any, place: str = "$") -> Iterator[str]:
    """The places in which something that was recorded is not there any more, or is something else."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key, value in before.items():
            if key not in now:
                yield f"{place}.{key} is missing"
            else:
                yield from kept(value, now[key], f"{place}.{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from kept(one, other, f"{place}[{i}]")
    elif before != now:
        yield f"{place} is {now!r} and was {before!r}"


def read(content: bytes, task: str = "check") -> handover_state.Handover:
    """What a program makes of this state; the variable and its form are fixed as well."""
    number = os.memfd_create("state")
    try:
        os.write(number, content)
        left = handover_state.read({"TIDEGATE_UPGRADE": f"{task} 1 {number}"})
    finally:
        with contextlib.suppress(OSError):
            os.close(number)
    assert left is not None
    return left


# The state that the supervisor hands over.


def test_the_state_of_the_recorded_release_is_read() -> None:
    """Every field of it has its place: written again, nothing of it is lost."""
    state = recorded("state")
    left = read(json.dumps(state).encode())
    assert left.task == "check"
    assert list(kept(state, json.loads(msgspec.json.encode(left.state)))) == []


def test_the_state_that_is_written_has_all_that_the_recorded_release_reads() -> None:
    assert list(kept(recorded("state"), record.state())) == []


def test_the_state_that_a_daemon_leaves_has_the_recorded_form() -> None:
    """Of a real one: with workers that serve and one that leaves, and somebody who waits for the upgrade."""
    assert list(kept(recorded("state_of_a_daemon"), record.left_by_a_daemon())) == []


def listener(kind: str, **other: Any) -> ListenerState:
    found = next(item for item in recorded("state")["listeners"] if item["kind"] == kind)
    return msgspec.json.decode(msgspec.json.encode(found | other), type=ListenerState)


@pytest.mark.parametrize("kind", ["TcpListener", "UnixListener", "FdListener"])
def test_each_kind_of_listener_has_the_recorded_word(kind: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        bound = Listeners()
        stack.callback(bound.close)
        number = os.dup(sock.fileno())
        place = {
            "TcpListener": Tcp("127.0.0.1", 0),
            "UnixListener": Unix(str(tmp_path / "socket")),
            "FdListener": Fd(number),
        }
        bound.bind([place[kind]], 1)
        (left,) = bound.state()
        was = listener(kind)
        assert left.kind == kind
        form = [type(part) for part in msgspec.to_builtins(left)["place"]]
        assert form == [type(part) for part in msgspec.to_builtins(was)["place"]]
        # And one that was left under this word becomes the same again.
        taken = Listeners()
        taken.restore([msgspec.structs.replace(was, place=left.place, sockets={0: os.dup(left.sockets[0])}, lock=None)])
        assert taken.names == bound.names
        assert type(taken._listeners[0]) is type(bound._listeners[0])
        stack.callback(taken.close)


def test_an_unknown_kind_of_listener_is_refused_before_anything_has_happened() -> None:
    """By the program that checks: in the daemon's own process it would be the end of the daemon."""
    state = recorded("state")
    state["fixed"] = {}
    upgrade.check(Config(application="a:b"), read(json.dumps(state).encode()).state)
    for place in (state["listeners"][0], state["control"]):
        place["kind"], before = "QuicListener", place["kind"]
        with pytest.raises(HandoverError, match="has a kind of listener that this tidegate does not know"):
            upgrade.check(Config(application="a:b"), read(json.dumps(state).encode()).state)
        place["kind"] = before


def test_a_check_touches_nothing_of_what_is_listened_on() -> None:
    listening.check(listener("FdListener", sockets={0: 9999}))


# The words between processes.


@pytest.mark.parametrize("kind", ["reports", "orders", "requests", "answers"])
def test_words_are_written_as_they_were(kind: str) -> None:
    assert list(kept(recorded("words")[kind], record.written()[kind])) == []


def through_a_pipe(line: str, kind: type[Report] | type[Command]) -> Report | Command:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(line.encode())
        (word,) = Pipe(ours, kind).receive()
        return word


def test_words_are_read_as_they_were_meant() -> None:
    words = recorded("words")
    assert all(words[kind] for kind in ("reports", "orders", "requests", "answers"))
    for name, line in words["reports"].items():
        assert through_a_pipe(line, Report) == record.REPORTS[name]
    for name, line in words["orders"].items():
        assert through_a_pipe(line, Command) == record.COMMANDS[name]
    for name, line in words["requests"].items():
        assert control_protocol.read_request(line.encode()) == record.REQUESTS[name]
    for name, line in words["answers"].items():
        assert msgspec.json.decode(line, type=Answer) == record.ANSWERS[name]


def test_the_sign_of_life_of_the_recorded_admin_process_is_read() -> None:
    assert through_a_pipe('{"stage":"ready","error":null,"exit":null}\n', Report) == Report("ready")


# What keeps a second daemon away, also one of another release.


def lock_of(name: str) -> str:
    """The abstract name; such names have no more bytes than paths of sockets."""
    whole = f"tidegate/{name}"
    return whole if len(whole) < 107 else f"tidegate/{hashlib.sha256(name.encode()).hexdigest()}"


def test_locks_of_addresses_have_the_names_that_they_had(tmp_path: Path) -> None:
    file, long = tmp_path / "socket", tmp_path / ("long" * 20) / "socket"
    long.parent.mkdir()
    bound = Listeners()
    try:
        with contextlib.chdir(long.parent):  # a path of so many bytes is no address
            bound.bind([Tcp("127.0.0.1", 0), Unix(str(file)), Unix("socket")], 1)
        port = bound.at(0)[0].getsockname()[1]
        assert len(lock_of(f"unix/{long}")) == len("tidegate/") + 64
        for name in (f"tcp/127.0.0.1:{port}", f"unix/{file}", f"unix/{long}"):
            with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match="Address already in use"):
                other.bind(f"\0{lock_of(name)}")
    finally:
        with contextlib.chdir(long.parent):
            bound.close()


def test_a_pid_file_of_the_recorded_release_is_that_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}\n")
    inode = path.stat().st_ino
    file = Pidfile(str(path))
    file.write()
    assert (path.read_text(), path.stat().st_ino) == (f"{os.getpid()}\n", inode)
    file.remove()
    file.write()
    with path.open() as anew:
        assert anew.read() == f"{os.getpid()}\n"


# The settings: the next release is started with the command line and the environment of the one before.


def test_each_recorded_setting_is_called_as_it_was() -> None:
    assert list(kept(recorded("settings"), record.settings_of_today())) == []


# The scoreboard.


def board_of(sample: dict[str, Any]) -> Scoreboard:
    """The memory that was recorded."""
    number = os.memfd_create("scoreboard")
    os.ftruncate(number, sample["size"])
    for offset, word in sample["words"].items():
        os.pwrite(number, word.to_bytes(8, "little"), int(offset))
    try:
        return Scoreboard.attach(number)
    except ValueError:
        os.close(number)
        raise


def test_the_layout_of_today_is_recorded() -> None:
    """A change of the layout is a new one: with another number, and with a file of its own beside the others."""
    assert TODAY in LAYOUTS, "the scoreboard's layout is new: record it with `python -m tests.releases.record`"


@pytest.mark.parametrize("name", LAYOUTS)
def test_memory_of_the_layout_of_today_is_read_and_written_and_none_else(name: str) -> None:
    """Its number says which layout a memory has: with the same number every word is where it was."""
    sample = recorded(name)
    if name != TODAY:
        with pytest.raises(ValueError, match=f"the scoreboard has layout {sample['layout']}, and this tidegate reads"):
            board_of(sample)
        return
    board = board_of(sample)
    assert list(kept(sample["reading"], json.loads(json.dumps(record.reading(board))))) == []
    board.close()
    now = json.loads(json.dumps(record.memory(sample["sets"])))
    for part in (now, sample):
        for offset in sample["changing"]:
            part["words"].pop(str(offset))
        del part["changing"], part["reading"]
    assert now == sample


def test_names_of_closed_sets_keep_their_places() -> None:
    """In every layout of the same number, also after names were added to them."""
    today = record.sets_of_today()
    assert recorded(TODAY)["sets"]
    for name, names in recorded(TODAY)["sets"].items():
        assert today[name][: len(names)] == names
