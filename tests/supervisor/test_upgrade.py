"""Whether a program may take over, and what it makes of what it is left, apart from real daemons.

What must not live here: the upgrade of a real daemon (tests/process/test_upgrade.py).
"""

from __future__ import annotations

import os
import socket

import msgspec
import pytest

from tests.ipc.test_handover_state import LISTENER, STATE
from tidegate.config.bind import Tcp
from tidegate.config.schema import Config
from tidegate.ipc.handover_state import HandoverError
from tidegate.supervisor import upgrade
from tidegate.supervisor.sockets import listener
from tidegate.supervisor.sockets.addresses import AddressError
from tidegate.supervisor.sockets.listeners import Listeners

CONFIG = Config(application="application:handler")


def test_settings_that_a_running_daemon_cannot_change() -> None:
    same = msgspec.structs.replace(STATE, fixed={"bind": "127.0.0.1:8765"})
    upgrade.check(CONFIG, same)
    with pytest.raises(HandoverError, match=r"--bind cannot change from 127.0.0.1:80 to 127.0.0.1:8765"):
        upgrade.check(CONFIG, STATE)


def test_a_setting_that_only_the_other_program_has() -> None:
    upgrade.check(CONFIG, msgspec.structs.replace(STATE, fixed={"weather": "fine"}))


def test_an_address_that_is_listened_on_in_another_way() -> None:
    with pytest.raises(HandoverError, match=r"127.0.0.1:80 has a kind of listener.*QuicListener"):
        listener.restore(msgspec.structs.replace(LISTENER, kind="QuicListener"))


def test_listeners_are_taken_over_as_they_are() -> None:
    before, after = Listeners(), Listeners()
    before.bind([Tcp("127.0.0.1", 0)], 3)
    for slot in (2, 0):
        before.listen(slot, 8)
    (left,) = before.state()
    assert left.numbered == [2, 0]
    numbers = {slot: os.dup(number) for slot, number in left.sockets.items()}
    assert left.lock is not None
    after.restore([msgspec.structs.replace(left, sockets=numbers, lock=os.dup(left.lock))])
    before.close()
    assert after.names == [left.name]
    assert not any(sock.get_inheritable() for slot in range(3) for sock in after.at(slot))
    with pytest.raises(AddressError, match="given twice"):
        Listeners().bind([Tcp("127.0.0.1", after.at(0)[0].getsockname()[1])], 1)
    assert after.steer(frozenset({2}))
    for _ in range(5):
        socket.create_connection(after.at(0)[0].getsockname()).close()
    assert (after.waiting(0), after.waiting(2)) == (5, 0)
    after.close()
