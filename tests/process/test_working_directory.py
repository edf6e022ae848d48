"""Working directories by their name: links that lead elsewhere, folders that were replaced or removed.

What must not live here: what is imported from there (tests/worker/test_loader.py, test_fresh.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate.process.working_directory import WorkingDirectory, here

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

RELEASE = "async def handler(websocket):\n    await websocket.send({!r})\n    async for _ in websocket: pass\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two releases, a link to the first one, and us in the folder above."""
    for number in (1, 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/application.py").write_text(RELEASE.format(f"release {number}"))
    (tmp_path / "current").symlink_to("1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return tmp_path


def release(tree: Path, number: int) -> None:
    """Let the link lead there, in one step, as a deploy does it."""
    (tree / "new").symlink_to(str(number))
    (tree / "new").rename(tree / "current")


# The name.


def test_the_name_is_the_shells_where_that_is_right(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chdir(tree / "1")
    monkeypatch.setenv("PWD", str(tree / "current"))
    assert here() == str(tree / "current")
    for name in (str(tree), str(tree / "nowhere"), "current", ""):
        monkeypatch.setenv("PWD", name)
        assert here() == os.path.realpath(tree / "1")
    monkeypatch.delenv("PWD")
    assert here() == os.path.realpath(tree / "1")


def test_a_directory_that_is_gone_has_a_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chdir(tree / "1")
    shutil.rmtree(tree / "1")
    monkeypatch.setenv("PWD", str(tree / "1"))
    assert here() == str(tree / "1")
    monkeypatch.delenv("PWD")
    assert here() == "/"
    os.chdir(tree)


# Following it.


def entered(tree: Path) -> WorkingDirectory:
    directory = WorkingDirectory("current")
    os.chdir("current")
    directory.entered()
    return directory


def test_it_is_followed_and_left_again(tree: Path) -> None:
    directory = entered(tree)
    sys.path[:] = ["", str(tree / "1"), str(tree / "1/below")]
    assert not directory.follow()
    release(tree, 2)
    assert directory.follow()
    assert os.getcwd() == str(tree / "2")
    assert sys.path == ["", str(tree / "2"), str(tree / "1/below")]
    directory.back()
    assert os.getcwd() == str(tree / "1")
    assert sys.path[1] == str(tree / "1")
    assert directory.follow()
    directory.stay()
    directory.back()
    assert os.getcwd() == str(tree / "2")
    assert not directory.follow()


def test_one_that_was_asked_for_must_be_there(tree: Path) -> None:
    directory = entered(tree)
    (tree / "current").unlink()
    with pytest.raises(FileNotFoundError):
        directory.follow()
    assert os.getcwd() == str(tree / "1")
    os.chdir(tree)
    other = WorkingDirectory()
    other.entered()
    other.name = str(tree / "nowhere")
    assert not other.follow()


def test_one_that_is_gone_is_looked_for(tree: Path) -> None:
    directory = entered(tree)
    directory.enter_if_removed()
    assert os.getcwd() == str(tree / "1")
    shutil.rmtree(tree / "1")
    directory.enter_if_removed()
    with pytest.raises(FileNotFoundError):
        os.getcwd()
    (tree / "1").mkdir()
    directory.enter_if_removed()
    assert os.getcwd() == str(tree / "1")


def test_where_it_was_started(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chdir(tree / "1")
    monkeypatch.setenv("PWD", str(tree / "current"))
    directory = WorkingDirectory(str(tree / "2"))
    os.chdir(tree / "2")
    release(tree, 2)
    with directory.at_start() as name:
        assert (name, os.getcwd()) == (str(tree / "current"), str(tree / "2"))
    (tree / "current").unlink()
    with directory.at_start() as name:
        assert (name, os.getcwd()) == (str(tree / "2"), str(tree / "2"))
    shutil.rmtree(tree / "2")
    with pytest.raises(FileNotFoundError) as caught, directory.at_start():
        pass
    assert caught.value.filename == str(tree / "current")
    os.chdir(tree)


# A daemon.


class Deployed(Daemon):
    """One in a folder that deploys change, by a name that its shell has."""

    def __init__(self, tree: Path, where: str, *options: str) -> None:
        super().__init__(None, *options, "--control", str(tree / "control.sock"), "--settle", "0.1")
        self.control = str(tree / "control.sock")
        self.command = ["sh", "-c", f'cd {tree / where} && exec "$@"', "sh", *self.command]

    def ask(self, command: str) -> tuple[int, str]:
        """A command of the control socket."""
        argv = [sys.executable, "-m", "tidegate", command, "--control", self.control]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/")
        return done.returncode, done.stdout + done.stderr

    @property
    def word(self) -> str:
        with connect(self.uri) as websocket:
            return str(websocket.recv())


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--working-dir", "{}/current")], ids=["PWD", "--working-dir"])
def test_a_reload_and_an_upgrade_follow_the_link(tree: Path, options: tuple[str, ...]) -> None:
    with Deployed(tree, "current", *(option.format(tree) for option in options)) as daemon:
        assert daemon.word == "release 1"
        release(tree, 2)
        worker = wait_until(lambda: found[0] if len(found := daemon.workers()) == 1 else 0, "a single worker")
        daemon.signal(signal.SIGKILL, worker)
        wait_until(lambda: daemon.workers() not in ([], [worker]), "another worker is there")
        daemon.wait_ready()
        assert daemon.word == "release 1"  # as its siblings have it
        assert daemon.ask("reload")[0] == 0
        assert daemon.word == "release 2"
        shutil.rmtree(tree / "1")
        for number, command in ((3, "upgrade"), (4, "upgrade"), (5, "reload")):
            (tree / str(number)).mkdir()
            (tree / f"{number}/application.py").write_text(RELEASE.format(f"release {number}"))
            release(tree, number)
            assert daemon.ask(command)[0] == 0
            assert daemon.word == f"release {number}"
            shutil.rmtree(tree / str(number - 1))
        assert daemon.stop() == 0


def test_a_release_that_fails_leaves_the_daemon_in_the_one_before(tree: Path) -> None:
    with Deployed(tree, "current", "--working-dir", str(tree / "current")) as daemon:
        (tree / "2/application.py").write_text("import nothing_of_this_name")
        release(tree, 2)
        status, said = daemon.ask("reload")
        assert status == 1
        assert "nothing_of_this_name" in said
        worker = wait_until(lambda: found[0] if len(found := daemon.workers()) == 1 else 0, "a single worker")
        daemon.signal(signal.SIGKILL, worker)
        wait_until(lambda: daemon.workers() not in ([], [worker]), "another worker is there")
        daemon.wait_ready()
        assert daemon.word == "release 1"
        (tree / "current").unlink()
        for command in ("reload", "upgrade"):
            status, said = daemon.ask(command)
            assert status == 1
            assert str(tree / "current") in said
            assert "no such file or directory" in said.lower()
        assert daemon.word == "release 1"
        assert daemon.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_folder_that_is_removed_and_made_again(tree: Path, preload: tuple[str, ...]) -> None:
    with Deployed(tree, "1", *preload) as daemon:
        shutil.rmtree(tree / "1")
        worker = wait_until(lambda: found[0] if len(found := daemon.workers()) == 1 else 0, "a single worker")
        daemon.signal(signal.SIGKILL, worker)
        if preload:
            wait_until(lambda: daemon.workers() not in ([], [worker]), "another worker is there")
            daemon.wait_ready()
            assert daemon.word == "release 1"
        else:
            wait_until(lambda: f"{tree / '1'} has been removed" in daemon.log, "the reason")
        (tree / "2").rename(tree / "1")
        daemon.wait_ready()
        if not preload:
            assert daemon.word == "release 2"
            assert daemon.ask("reload")[0] == 0
        assert daemon.ask("upgrade")[0] == 0
        assert daemon.word == "release 2"
        assert daemon.stop() == 0


def test_what_is_reloaded_is_what_is_there_now(tree: Path) -> None:
    """Edits of one size in quick succession, and folders of the search path that come later."""
    daemon = Deployed(tree, "1")
    daemon._environment.pop("PYTHONDONTWRITEBYTECODE", None)
    paths = [str(tree / "later"), daemon._environment.get("PYTHONPATH", "")]
    daemon._environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with daemon:
        for number in range(8):
            (tree / "1/application.py").write_text(RELEASE.format(f"edit {number:03}"))
            assert daemon.ask("reload")[0] == 0
            assert daemon.word == f"edit {number:03}"
        (tree / "later").mkdir()
        (tree / "later/extra.py").write_text("word = 'later'")
        (tree / "1/application.py").write_text(f"import extra\n{RELEASE.format(0).replace('0', 'extra.word')}")
        assert daemon.ask("reload")[0] == 0
        assert daemon.word == "later"
        assert daemon.stop() == 0
