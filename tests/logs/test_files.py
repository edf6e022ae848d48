"""Opening a file by a path that leads through folders of others: whose links are followed, and whose are not.

Each case is tried as root and as an ordinary user. What must not live here: what is written (test_stream.py).
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import require
from tidegate.logs.files import open_file

NOBODY = pwd.getpwnam("nobody")
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
TOO_MANY_LINKS = "a symbolic link that others could have made is not followed"


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that belongs to user nobody, in one that belongs to root."""
    require(os.geteuid() == 0, "being root")
    top = Path(tempfile.mkdtemp(dir="/var/tmp"))
    top.chmod(0o755)
    folder = top / "logs"
    folder.mkdir()
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    (top / "secret").write_text("root's\n")
    (top / "secret").chmod(0o600)
    (top / "etc").mkdir()
    yield folder
    shutil.rmtree(top)


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    ids = ("--reuid", str(NOBODY.pw_uid), "--regid", str(NOBODY.pw_gid), "--clear-groups")
    return subprocess.run(["setpriv", *ids, *command], capture_output=True, text=True, check=True, timeout=60)


def written(path: Path) -> None:
    descriptor = open_file(str(path), FLAGS, 0o640)
    os.write(descriptor, b"a line\n")
    os.close(descriptor)


def refused(path: Path, words: str = TOO_MANY_LINKS) -> None:
    with pytest.raises(OSError, match=words) as caught:
        open_file(str(path), FLAGS, 0o640)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("target", ["secret", "etc/made"])
def test_root_follows_no_link_in_a_folder_of_somebody_else(theirs: Path, target: str) -> None:
    as_nobody("ln", "-s", str(theirs.parent / target), str(theirs / "tidegate.log"))
    refused(theirs / "tidegate.log")
    assert (theirs.parent / "secret").read_text() == "root's\n"
    assert not (theirs.parent / "etc" / "made").exists()


def test_nor_one_to_a_folder(theirs: Path) -> None:
    as_nobody("ln", "-s", str(theirs.parent / "etc"), str(theirs / "below"))
    refused(theirs / "below" / "tidegate.log")
    as_nobody("ln", "-s", "..", str(theirs / "up"))
    refused(theirs / "up" / "etc" / "tidegate.log")
    assert not list((theirs.parent / "etc").iterdir())


def test_a_link_in_a_folder_where_everybody_may_write(theirs: Path) -> None:
    theirs.parent.chmod(0o1777)
    as_nobody("ln", "-s", str(theirs.parent / "secret"), str(theirs.parent / "tidegate.log"))
    refused(theirs.parent / "tidegate.log")
    (theirs.parent / "ours.log").symlink_to("secret")  # in a sticky folder nobody else can have put it there
    written(theirs.parent / "ours.log")
    theirs.parent.chmod(0o777)
    refused(theirs.parent / "ours.log")


def test_a_file_with_a_second_name(theirs: Path) -> None:
    os.link(theirs.parent / "secret", theirs / "tidegate.log")
    refused(theirs / "tidegate.log", "a file with other names")
    assert (theirs.parent / "secret").read_text() == "root's\n"


def test_roots_own_links_lead_where_root_wants_it(theirs: Path) -> None:
    (theirs.parent / "current").symlink_to("etc")
    (theirs.parent / "etc" / "tidegate.log").symlink_to("../secret")
    written(theirs.parent / "current" / "tidegate.log")
    assert (theirs.parent / "secret").read_text() == "root's\na line\n"
    written(theirs / "plain.log")
    assert (theirs / "plain.log").read_text() == "a line\n"


PROGRAM = """
import os, sys
from tidegate.logs.files import open_file
os.close(open_file(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
"""


def test_an_ordinary_user_follows_links_of_its_own_and_of_who_deploys(theirs: Path) -> None:
    (theirs.parent / "current").symlink_to("logs")
    as_nobody("ln", "-s", "real.log", str(theirs / "tidegate.log"))
    copy = theirs.parent / "program"  # nobody may not read the checkout
    shutil.copy(Path(open_file.__code__.co_filename), copy)
    program = PROGRAM.replace("from tidegate.logs.files import open_file", "exec(open(sys.argv[2]).read())")
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    as_nobody(python, "-c", program, str(theirs.parent / "current" / "tidegate.log"), str(copy))
    assert (theirs / "real.log").stat().st_uid == NOBODY.pw_uid


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_descriptors_by_their_paths(path: str, tmp_path: Path) -> None:
    """Containers log to /dev/stdout, which is a link to a link to whatever it is: a pipe, or a file."""
    program = PROGRAM.replace("os.close(", "os.write(").replace("0o640))", "0o640), b'x')")
    for stream in ("pipe", "file"):
        with open(tmp_path / stream, "wb") as file:
            done = subprocess.run(
                [sys.executable, "-c", program, path],
                stdout=subprocess.PIPE if stream == "pipe" else file,
                check=True,
                timeout=60,
            )
        assert (done.stdout or (tmp_path / stream).read_bytes()) == b"x"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    refused(tmp_path / "a")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/", IsADirectoryError),
        ("/no_such_folder/x", FileNotFoundError),
        ("/dev/null/x", NotADirectoryError),
        ("/tmp/", IsADirectoryError),
    ],
)
def test_paths_that_cannot_be(path: str, error: type[OSError]) -> None:
    with pytest.raises(error) as caught:
        open_file(path, FLAGS, 0o640)
    assert caught.value.filename == path
