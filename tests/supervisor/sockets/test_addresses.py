"""What addresses stand for, and what is said where they cannot be had.

What must not live here: sockets of slots (test_listeners.py).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.config.bind import Tcp
from tidegate.supervisor.sockets import addresses
from tidegate.supervisor.sockets.addresses import (
    AddressError,
    SocketAddress,
    bind_admin,
    bind_each,
    check_other,
    resolve,
)

LOOPBACK = Tcp("127.0.0.1", 0)
SIX: SocketAddress = (socket.AF_INET6, ("::1", 8765, 0, 0))
FOUR: SocketAddress = (socket.AF_INET, ("127.0.0.1", 8765))


def test_a_name_may_have_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: Any, **__: Any) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", place) for family, place in (SIX, FOUR, FOUR)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert resolve(Tcp("localhost", 8765)) == [SIX, FOUR]


def failing(places: dict[Any, int]) -> Callable[[Any], None]:
    def bind(place: Any) -> None:
        if place in places:
            raise OSError(places[place], "Some reason")

    return bind


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_of_several_those_will_do_that_the_machine_has(number: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        bind_each(Tcp("localhost", 1), ["six", "four"], failing({"six": number}))
    (record,) = caplog.records
    assert "localhost:1: this machine does not have six" in record.getMessage()
    with pytest.raises(AddressError, match="localhost:1 could not be bound: some reason"):
        bind_each(Tcp("localhost", 1), ["six", "four"], failing({"six": number, "four": number}))
    with pytest.raises(AddressError):
        bind_each(Tcp("::1", 1), ["six"], failing({"six": number}))


def test_one_that_somebody_has_is_not_left_out() -> None:
    with pytest.raises(AddressError):
        bind_each(Tcp("localhost", 1), ["six", "four"], failing({"four": errno.EADDRINUSE}))


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (FOUR, "it is given twice"),
        ((socket.AF_INET, ("0.0.0.0", 8765)), "127.0.0.1:8765, which is given as well, has it"),
        (SIX, ""),
        ((socket.AF_INET, ("127.0.0.1", 8766)), ""),
        ((socket.AF_INET, ("127.0.0.2", 8765)), ""),
    ],
)
def test_our_own_addresses(place: SocketAddress, reason: str) -> None:
    if not reason:
        check_other(*place, [FOUR])
        return
    with pytest.raises(OSError, match=reason) as caught:
        check_other(*place, [FOUR])
    assert caught.value.errno == errno.EADDRINUSE


def test_one_that_covers_everything_covers_the_others() -> None:
    with pytest.raises(OSError, match=r"0\.0\.0\.0:8765, which is given as well, has it"):
        check_other(*FOUR, [(socket.AF_INET, ("0.0.0.0", 8765))])


def test_the_admin_address(monkeypatch: pytest.MonkeyPatch) -> None:
    (sock,) = bind_admin(LOOPBACK)
    socket.create_connection(sock.getsockname()).close()
    address = Tcp("127.0.0.1", sock.getsockname()[1])
    words = f"the admin address {address} could not be bound: address already in use: give another address with --admin"
    with pytest.raises(AddressError, match=words):
        bind_admin(address)
    sock.close()
    with pytest.raises(AddressError, match="it is given twice: give another address with --admin"):
        bind_admin(address, [(socket.AF_INET, ("127.0.0.1", address.port))])
    assert bind_admin(None) == []


def test_the_admin_address_by_a_name_of_which_the_machine_has_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: SocketAddress = (socket.AF_INET, ("192.0.2.1", 0))  # nobody's, RFC 5737
    monkeypatch.setattr(addresses, "resolve", lambda address: [absent, (socket.AF_INET, ("127.0.0.1", 0))])
    (sock,) = bind_admin(Tcp("localhost", 0))
    assert sock.getsockname()[0] == "127.0.0.1"
    sock.close()
