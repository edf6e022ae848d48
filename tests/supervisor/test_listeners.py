"""Addresses: who gets which socket, who else may have them, and what is left of them.

What must not live here: workers that serve them (tests/process/test_bind.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.kinds import Address, Fd, Tcp, Unix
from tidegate.supervisor import listeners as module
from tidegate.supervisor.listeners import AddressError, Listeners, bind_admin

# Other tests of the same process may have left a thread in a pool; what is forked here takes no lock.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

LOOPBACK = Tcp("127.0.0.1", 0)


@contextlib.contextmanager
def bound(*addresses: Address, slots: int = 1) -> Iterator[Listeners]:
    listeners = Listeners()
    listeners.bind(addresses, slots)
    try:
        yield listeners
    finally:
        listeners.close()


def port_of(listeners: Listeners) -> int:
    port: int = listeners.at(0)[0].getsockname()[1]
    return port


def refused(*addresses: Address) -> str:
    """Why the addresses cannot be bound; none of them is kept."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AddressError) as caught:
        Listeners().bind(addresses, 2)
    assert len(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_each_slot_has_its_own_socket_on_the_same_port() -> None:
    with bound(LOOPBACK, slots=3) as listeners:
        sockets = [listeners.at(slot)[0] for slot in range(3)]
        assert len({sock.fileno() for sock in sockets}) == 3
        assert len({sock.getsockname() for sock in sockets}) == 1
        assert listeners.at(1)[0] is sockets[1]
        assert listeners.names == [f"127.0.0.1:{port_of(listeners)}"]
        assert not any(sock.get_inheritable() for sock in sockets)


def test_a_slot_that_comes_later_gets_one_too() -> None:
    with bound(LOOPBACK) as listeners:
        assert listeners.at(7)[0].getsockname() == listeners.at(0)[0].getsockname()


def test_a_socket_that_nobody_listens_on_takes_no_connection() -> None:
    """Of two slots one is ready: it gets all of them."""
    with bound(LOOPBACK, slots=2) as listeners:
        serving = listeners.at(1)[0]
        serving.listen(64)
        clients = [socket.create_connection(serving.getsockname()) for _ in range(20)]
        for client in clients:
            assert select.select([serving], [], [], 10)[0]
            serving.accept()[0].close()
            client.close()


def test_where_groups_are_not_balanced_all_slots_share_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.TcpListener, "shared", True)
    with bound(LOOPBACK, slots=3) as listeners:
        assert len({listeners.at(slot)[0].fileno() for slot in range(3)}) == 1
        assert not listeners.at(0)[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_every_address_of_a_host_has_the_same_port() -> None:
    with bound(Tcp("localhost", 0)) as listeners:
        assert len({sock.getsockname()[1] for sock in listeners.at(0)}) == 1


def test_a_second_claim_is_refused_and_names_the_first() -> None:
    with bound(LOOPBACK) as listeners:
        address = Tcp("127.0.0.1", port_of(listeners))
        assert refused(address) == f"{address} could not be bound: another tidegate (pid {os.getpid()}) has it"
    with bound(address):
        pass


def test_a_claim_on_an_address_that_covers_another() -> None:
    with bound(LOOPBACK) as listeners:
        for sock in listeners.at(0):
            sock.listen(1)
        assert "address already in use" in refused(Tcp("0.0.0.0", port_of(listeners)))


def test_a_claim_by_a_locked_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    with bound(LOOPBACK) as listeners:
        address = Tcp("127.0.0.1", port_of(listeners))
        with pytest.raises(AddressError, match="another tidegate has it"):
            Listeners().bind([address], 1)
    with bound(address):
        pass


def test_what_is_refused_gives_back_what_came_before_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "in use" in refused(Unix(str(path)), LOOPBACK, Tcp("127.0.0.1", other.getsockname()[1]))
    assert not path.exists()


def test_hosts_that_do_not_exist() -> None:
    assert "the host is unknown" in refused(Tcp("no.such.host.invalid", 80))
    assert "the host is unknown" in refused(Tcp("a" * 70, 80))


def test_a_unix_socket_and_its_file(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with bound(Unix(str(path)), slots=2) as listeners:
        assert listeners.at(0)[0] is listeners.at(1)[0]
        assert "another tidegate" in refused(Unix(str(path)))
        assert "another tidegate" in refused(Unix(f"{tmp_path}/../{tmp_path.name}/socket"))
        assert path.is_socket()
    assert not path.exists()


def test_a_unix_socket_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with bound(Unix(str(path))):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.is_socket()
    other.listen(0)
    assert "another server listens on it" in refused(Unix(str(path)))
    other.close()


def test_a_unix_socket_whose_queue_is_full_is_somebodys(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as callers:
        other.bind(path)
        other.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(path)
        assert "another server listens on it" in refused(Unix(path))


@pytest.mark.parametrize("kind", ["missing", "long", "file"])
def test_unix_paths_that_cannot_be(kind: str, tmp_path: Path) -> None:
    path = {"missing": tmp_path / "no" / "socket", "long": tmp_path / ("x" * 200), "file": tmp_path / "file"}[kind]
    if kind == "file":
        path.write_text("precious")
    words = {"missing": "no such file or directory", "long": "too long", "file": "is no socket"}[kind]
    assert words in refused(Unix(str(path)))
    assert path.exists() == (kind == "file")


def test_a_descriptor_is_taken_as_it_comes() -> None:
    given = socket.create_server(("127.0.0.1", 0))
    name = given.getsockname()
    number = given.detach()
    with bound(Fd(number), slots=2) as listeners:
        assert listeners.at(0)[0] is listeners.at(1)[0]
        assert listeners.at(0)[0].getsockname() == name
        assert listeners.names == [f"fd://{number} (127.0.0.1:{name[1]})"]
        socket.create_connection(name).close()


def test_descriptors_that_cannot_be() -> None:
    assert "there is no such file descriptor" in refused(Fd(99_999))
    reader, writer = os.pipe()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert "it is no socket" in refused(Fd(reader))
    assert "no stream socket" in refused(Fd(datagrams.fileno()))
    os.fstat(datagrams.fileno())  # still open: it is not ours
    datagrams.close()
    os.close(reader)
    os.close(writer)


def test_a_child_keeps_its_own_socket_alone_and_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with bound(LOOPBACK, Unix(str(path)), slots=3) as listeners:
        child = os.fork()
        if child == 0:
            listeners.leave(1)
            mine = listeners.at(1)
            others = [sock.fileno() for slot in (0, 2) for sock in listeners.at(slot) if sock not in mine]
            os._exit(0 if others == [-1, -1] and all(sock.fileno() >= 0 for sock in mine) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert path.is_socket()
        assert "another tidegate" in refused(Tcp("127.0.0.1", port_of(listeners)))
        assert all(sock.fileno() >= 0 for slot in range(3) for sock in listeners.at(slot))


def test_a_child_that_outlives_its_parent_holds_no_claim() -> None:
    with bound(LOOPBACK) as listeners:
        address = Tcp("127.0.0.1", port_of(listeners))
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            listeners.leave(None)
            ours.close()
            theirs.send(b"left")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        assert ours.recv(4) == b"left"
    with bound(address):
        pass
    ours.close()
    os.waitpid(child, 0)


def test_the_admin_address() -> None:
    (sock,) = bind_admin(LOOPBACK)
    socket.create_connection(sock.getsockname()).close()
    with pytest.raises(AddressError, match="address already in use"):
        bind_admin(Tcp("127.0.0.1", sock.getsockname()[1]))
    sock.close()
    assert bind_admin(None) == []
