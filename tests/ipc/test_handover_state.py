"""What one program leaves to the next: written, read, and refused when it is none.

What must not live here: what becomes of it in a real daemon (tests/process/test_upgrade.py).
"""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.ipc import handover_state
from tidegate.ipc.handover_state import (
    ENVIRONMENT,
    FORMAT,
    ChildState,
    HandoverError,
    HandoverState,
    ListenerState,
    SlotState,
)
from tidegate.ipc.pipe import Report, StopMode

CHILD = ChildState(
    pid=7,
    pipe=11,
    line=b'{"stage":"re',
    generation=2,
    row=0,
    stage="ready",
    stop_mode=StopMode.GRACEFUL,
    why="reload",
    failure=Report("gone", "no database", 3),
    born=1.5,
    ready_at=None,
)
LISTENER = ListenerState(
    kind="TcpListener",
    name="127.0.0.1:80",
    place=(2, "127.0.0.1", 80),
    sockets={0: 12, 3: 13},
    numbered=[3, 0],
    lock=14,
    file=(1, 2),
)
STATE = HandoverState(
    version="0.1",
    fixed={"bind": "127.0.0.1:80"},
    workers=2,
    generation=2,
    slots=[SlotState(index=0, current=CHILD, leaving=[CHILD], failures=1)],
    retired=[],
    admin=SlotState(index=None, current=None, leaving=[], failures=0),
    listeners=[LISTENER],
    admin_sockets=[15],
    scoreboard=16,
    control=LISTENER,
    clients=[17],
)


def given_to(task: str, form: object, number: object) -> dict[str, str]:
    return {ENVIRONMENT: f"{task} {form} {number}", "HOME": "/"}


def test_what_is_written_can_be_read() -> None:
    number = handover_state.write(STATE)
    environment = given_to("check", FORMAT, number)
    assert handover_state.read(environment) == ("check", STATE)
    assert environment == {"HOME": "/"}  # lest what an application starts takes it for its own
    assert not os.get_inheritable(number)
    assert handover_state.read(given_to("take", FORMAT, number)) == ("take", STATE)
    with pytest.raises(OSError, match="Bad file descriptor"):  # whoever takes it over does not need it again
        os.fstat(number)


def test_everything_that_must_stay_open() -> None:
    assert sorted(set(STATE.descriptors())) == [11, 12, 13, 14, 15, 16, 17]


def test_nothing_was_left() -> None:
    assert handover_state.read({"HOME": "/"}) is None


def test_a_program_of_another_age() -> None:
    """It may know more, or less."""
    number = handover_state.write(STATE)
    content = msgspec.json.decode(os.pread(number, 2**20, 0))
    del content["clients"], content["resting"]
    content["weather"] = "fine"
    os.ftruncate(number, 0)
    os.pwrite(number, msgspec.json.encode(content), 0)
    left = handover_state.read(given_to("take", FORMAT, number))
    assert left is not None
    assert left.state == msgspec.structs.replace(STATE, clients=[])


@pytest.mark.parametrize(
    "text", ["", "take", "take 1", f"take {FORMAT} x", f"take {FORMAT} 9999", f"take {FORMAT + 1} 0", "take x 0"]
)
def test_what_cannot_be_taken_over(text: str) -> None:
    with pytest.raises(HandoverError):
        handover_state.read({ENVIRONMENT: text})


@given(st.binary(max_size=100))
def test_any_content(content: bytes) -> None:
    number = os.memfd_create("anything")
    os.write(number, content)
    with pytest.raises(HandoverError, match="nothing that can be taken over"):
        handover_state.read(given_to("take", FORMAT, number))
