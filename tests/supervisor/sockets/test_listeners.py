"""Addresses: who gets which socket, who else may have them, and what is left of them.

What must not live here: workers that serve them (tests/process/test_bind.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import free_port, require
from tests.support.patience import PATIENCE
from tidegate.config.bind import Address, Fd, Tcp, Unix
from tidegate.supervisor.sockets import listener as module
from tidegate.supervisor.sockets.addresses import AddressError
from tidegate.supervisor.sockets.listeners import Listeners

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
            assert select.select([serving], [], [], PATIENCE)[0]
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


def test_a_second_lock_is_refused() -> None:
    """By another daemon: tests/process/test_bind.py."""
    with bound(LOOPBACK) as listeners:
        address = Tcp("127.0.0.1", port_of(listeners))
        assert refused(address) == f"{address} could not be bound: it is given twice"
    with bound(address):
        pass


def test_an_address_that_is_given_twice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number, port = other.fileno(), free_port()
        assert refused(Tcp("127.0.0.1", port), Tcp("127.0.0.1", port)).endswith("it is given twice")
        covered = refused(Tcp("127.0.0.1", port), Tcp("0.0.0.0", port))
        assert covered == f"0.0.0.0:{port} could not be bound: 127.0.0.1:{port}, which is given as well, has it"
        path = tmp_path / "socket"
        (tmp_path / "here").symlink_to(tmp_path)
        assert refused(Unix(str(path)), Unix(str(tmp_path / "here/socket"))).endswith("it is given twice")
        listeners = Listeners()
        with pytest.raises(AddressError, match=f"fd://{number} could not be bound: it is given twice"):
            listeners.bind([Fd(number), Fd(number)], 1)
        other.detach()


def test_a_name_of_which_the_machine_has_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    monkeypatch.setattr(module, "resolve", lambda address: found)
    with bound(Tcp("localhost", 0), slots=2) as listeners:
        assert [sock.getsockname()[0] for sock in listeners.at(1)] == ["127.0.0.1"]
        assert listeners.names == [f"127.0.0.1:{port_of(listeners)}"]


def test_an_address_that_another_program_takes_before_we_listen() -> None:
    with bound(LOOPBACK) as listeners, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port_of(listeners)))
        other.listen()
        with pytest.raises(AddressError, match=rf"{listeners.names[0]} could not be bound: address already in use"):
            listeners.listen(0, 8)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_the_file_of_a_unix_socket_that_somebody_has_removed(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with bound(Unix("socket"), LOOPBACK) as listeners:
        listeners.listen(0, 8)
        monkeypatch.chdir("/")
        listeners.report_missing()
        assert (listeners.renew(), caplog.records) == ([], [])
        path, before = tmp_path / "socket", listeners.at(0)
        path.rename(tmp_path / "moved")
        if how == "replaced":
            path.write_text("somebody else's")
        for _ in range(3):
            listeners.report_missing()
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["unix"]
        assert "unix:socket is gone" in caplog.text
        (words,) = listeners.renew()
        if how == "replaced":
            assert words == "unix:socket is gone, and could not be bound again: address already in use"
            assert listeners.at(0) == before
            listeners.close()
            assert path.read_text() == "somebody else's"
            return
        assert words == "unix:socket was gone, and has been bound again"
        assert listeners.at(0)[1] is before[1]
        listeners.listen(0, 8)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        listeners.report_missing()
        assert len(caplog.records) == 1
    assert not path.exists()


# A process of user nobody that takes an abstract name, says so, and waits until its input ends.
STRANGER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0" + sys.argv[1])
if sys.argv[2] == "listening":
    sock.listen(0)
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["listening", "bound"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_name_that_a_stranger_has_taken_decides_nothing(
    kind: str, state: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    require(os.geteuid() == 0, "being root")
    address: Address = Unix(str(tmp_path / "socket"))
    name = f"tidegate/unix/{tmp_path / 'socket'}"
    if kind == "tcp":
        address = Tcp("127.0.0.1", free_port())
        name = f"tidegate/tcp/{address}"
    if len(name) > 106:
        name = "tidegate/" + hashlib.sha256(name.removeprefix("tidegate/").encode()).hexdigest()
    nobody = pwd.getpwnam("nobody")
    ids = ("--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups")
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    command = ["setpriv", *ids, python, "-c", STRANGER, name, state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "taken\n"
        with bound(address) as listeners:
            (sock,) = listeners.at(0)
            sock.listen(1)
            assert f"process {stranger.pid} of another user has the name @{name}" in caplog.text
            # The address itself keeps a second one away.
            refused(address)
        # Who will be that user takes it for another daemon of its own.
        with pytest.raises(AddressError, match=rf"another tidegate \(pid {stranger.pid}\) has it"):
            Listeners().bind([address], 1, nobody.pw_uid)
        stranger.communicate(timeout=60)


def test_a_file_that_somebody_has_put_in_a_sockets_place_is_not_given_away(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "being root")
    nobody = pwd.getpwnam("nobody")
    secret = tmp_path / "secret"
    secret.write_text("root's")
    for swap in (os.link, os.symlink):
        with bound(Unix(str(tmp_path / "socket"))) as listeners:
            (tmp_path / "socket").unlink()
            swap(secret, tmp_path / "socket")
            with pytest.raises(OSError, match="another file has been put there"):
                listeners.chown(nobody.pw_uid, nobody.pw_gid)
        assert secret.stat().st_uid == 0
        (tmp_path / "socket").unlink()  # which is not removed either: it is somebody else's


def test_a_socket_is_given_away(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "being root")
    nobody = pwd.getpwnam("nobody")
    with bound(Unix(str(tmp_path / "socket"))) as listeners:
        listeners.chown(nobody.pw_uid, nobody.pw_gid)
        status = (tmp_path / "socket").stat()
        assert (status.st_uid, status.st_gid) == (nobody.pw_uid, nobody.pw_gid)


def test_a_lock_on_an_address_that_covers_another() -> None:
    with bound(LOOPBACK) as listeners:
        for sock in listeners.at(0):
            sock.listen(1)
        assert "address already in use" in refused(Tcp("0.0.0.0", port_of(listeners)))


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
        assert "it is given twice" in refused(Unix(str(path)))
        assert "it is given twice" in refused(Unix(f"{tmp_path}/../{tmp_path.name}/socket"))
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
    words = {"missing": "no such file or directory", "long": "too long", "file": "is not a socket"}[kind]
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
    assert "it is not a socket" in refused(Fd(reader))
    assert "stream socket" in refused(Fd(datagrams.fileno()))
    os.fstat(datagrams.fileno())  # still open: it is not ours
    datagrams.close()
    os.close(reader)
    os.close(writer)


def test_a_child_keeps_its_own_socket_alone_and_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with bound(LOOPBACK, Unix(str(path)), slots=3) as listeners:
        child = os.fork()
        if child == 0:
            listeners.close_in_child(1)
            mine = listeners.at(1)
            others = [sock.fileno() for slot in (0, 2) for sock in listeners.at(slot) if sock not in mine]
            os._exit(0 if others == [-1, -1] and all(sock.fileno() >= 0 for sock in mine) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert path.is_socket()
        assert "it is given twice" in refused(Tcp("127.0.0.1", port_of(listeners)))
        assert all(sock.fileno() >= 0 for slot in range(3) for sock in listeners.at(slot))


def test_a_child_that_outlives_its_parent_holds_no_lock() -> None:
    with bound(LOOPBACK) as listeners:
        address = Tcp("127.0.0.1", port_of(listeners))
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            listeners.close_in_child(None)
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
