"""The pid file: whose it is, who may take it over, and what is left of it.

What must not live here: the daemon that has one (tests/process/test_service.py).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import require
from tidegate.supervisor.system.pidfile import Pidfile, PidfileError

# Another process that writes the file, says so, and waits until its input ends.
HOLDER = """
import sys
from tidegate.supervisor.system.pidfile import Pidfile
file = Pidfile(sys.argv[1])
file.write()
print("written", flush=True)
sys.stdin.read()
file.remove()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.pid"


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def written(path: Path) -> Pidfile:
    file = Pidfile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert os.listdir(path.parent) == [path.name]
    return file


def refused(path: Path) -> PidfileError:
    before = path.read_bytes()
    with pytest.raises(PidfileError) as caught:
        Pidfile(str(path)).write()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    return caught.value


def test_it_is_there_as_long_as_the_daemon(path: Path) -> None:
    file = written(path)
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    file.remove()
    assert not path.exists()
    file.remove()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize("content", ["", "1\n", "999999\n"], ids=["empty", "of another process", "of nobody"])
def test_a_stale_one_is_replaced(path: Path, content: str) -> None:
    """Also when its number is another program's by now."""
    path.write_text(content)
    written(path).remove()
    assert not path.exists()


def test_one_that_was_left_by_a_killed_daemon_is_replaced(path: Path) -> None:
    with holder(path) as process:
        process.kill()
        process.wait()
    assert path.read_text() == f"{process.pid}\n"
    written(path).remove()


def test_that_of_a_living_daemon_is_refused(path: Path) -> None:
    with holder(path) as process:
        error = refused(path)
        assert error.living
        assert f"process {process.pid}, is running" in str(error)
    assert process.returncode == 0
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_end_of_a_child_is_not_the_end(path: Path) -> None:
    file = Pidfile(str(path))
    file.write()  # and not read here: a process that closes a file has no lock on it any more
    pid = os.fork()
    if pid == 0:
        file.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.exists()
    check = f"from tidegate.supervisor.system.pidfile import Pidfile; Pidfile({str(path)!r}).write()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    second = subprocess.run([sys.executable, "-c", check], stderr=subprocess.PIPE, check=False, env=environment)
    assert f"process {os.getpid()}, is running" in second.stderr.decode()
    file.remove()
    assert not path.exists()


def test_another_daemons_is_not_removed(path: Path) -> None:
    file = written(path)
    path.unlink()
    path.write_text("12345\n")
    file.remove()
    assert path.read_text() == "12345\n"


def test_a_daemon_that_was_started_anew_in_the_same_process_has_it_already(path: Path) -> None:
    path.write_text(f"{os.getpid()}\n")
    inode = path.stat().st_ino
    file = written(path)
    assert path.stat().st_ino == inode
    file.remove()
    assert not path.exists()


def test_what_is_no_pid_file_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    assert "is not a pid file" in refused(path).reason


def test_a_link_is_not_followed(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("other") / "file"
    target.write_text("1\n")
    path.symlink_to(target)
    assert "symbolic link" in refused(path).reason
    assert target.read_text() == "1\n"


def test_a_folder_that_is_not_there(path: Path) -> None:
    with pytest.raises(PidfileError, match="no such file or directory"):
        Pidfile(str(path / "file")).write()


def test_the_current_folder_may_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = Pidfile(path.name)
    file.write()
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()


# A process of user nobody that locks the file as far as it may, says so, and waits until its input ends.
STRANGER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def shared_lock(path: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a shared lock on a file, which is what everybody can have who may read it."""
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    arguments = [*command, python, "-c", STRANGER, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.communicate(timeout=60)


def locked_by_a_stranger(path: Path) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    require(os.geteuid() == 0, "being root")
    nobody = pwd.getpwnam("nobody")
    return shared_lock(path, "setpriv", "--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups")


@pytest.fixture
def public() -> Iterator[Path]:
    """A pid file where everybody may read it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "tidegate.pid"


@pytest.mark.parametrize("content", ["", "999999\n", "1\n"], ids=["empty", "of nobody", "of another process"])
def test_a_lock_of_a_stranger_decides_nothing(public: Path, content: str) -> None:
    public.write_text(content)
    public.chmod(0o644)
    with locked_by_a_stranger(public):
        written(public).remove()
        assert not public.exists()


def test_a_stranger_cannot_hide_a_daemon_either(public: Path) -> None:
    """After an upgrade by a user who may only read the file, the daemon has no more of a lock than the stranger."""
    public.write_text("")
    public.chmod(0o644)
    with locked_by_a_stranger(public), shared_lock(public) as daemon:
        public.write_text(f"{daemon.pid}\n")
        assert refused(public).living


def test_a_daemon_that_was_started_anew_beside_a_stranger(public: Path) -> None:
    public.write_text(f"{os.getpid()}\n")
    public.chmod(0o644)
    with locked_by_a_stranger(public):
        file = Pidfile(str(public))
        file.write()  # and not read here, which would end the lock
        second = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from tidegate.supervisor.system.pidfile import Pidfile; Pidfile({str(public)!r}).write()",
            ],
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert f"process {os.getpid()}, is running" in second.stderr.decode()
    file.remove()


def test_what_takes_its_place_meanwhile_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who may write to the folder puts another file there at the last moment."""
    link = os.link

    def swapped(source: str, target: str, **options: Any) -> None:
        link(source, target, **options)
        os.unlink(target)
        Path(target).write_text("1\n")

    monkeypatch.setattr(os, "link", swapped)
    with pytest.raises(PidfileError, match="another file has been put there"):
        Pidfile(str(path)).write()
    assert path.read_text() == "1\n"
