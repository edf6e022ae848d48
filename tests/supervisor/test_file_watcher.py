"""Which files concern the process that looks out for changes, and when it ends.

What must not live here: reloads (tests/process/test_auto_reload.py).
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support.harness import require
from tests.support.patience import PATIENCE
from tidegate.supervisor.auto_reload import FileChanges, Task
from tidegate.supervisor.file_watcher import concerns, folders, holds, stamps


@pytest.mark.parametrize(
    ("path", "yes"),
    [
        ("/app/chat.py", True),
        ("/app/chat/rooms/__init__.py", True),
        ("/other/package/module.py", True),
        ("/app/chat.pyc", False),
        ("/app/notes.txt", False),
        ("/app/.venv/lib/module.py", False),
        ("/app/venv/lib/python3.13/site-packages/module.py", False),
        ("/app/__pycache__/module.py", False),
        ("/app/page/node_modules/gyp/module.py", False),
        ("/app/.#chat.py", False),
        ("/application/chat.py", False),
        ("/other/module.py", False),
    ],
)
def test_what_concerns_it(path: str, yes: bool) -> None:
    assert concerns(["/app", "/other/package"], path) is yes


def test_a_folder_in_a_hidden_one_is_as_good_as_any() -> None:
    assert concerns(["/home/.work/app"], "/home/.work/app/chat.py")


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A current directory, and beside it a folder where Python looks for modules."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    return tmp_path


@pytest.mark.parametrize(
    "target", ["chat:handler", "chat.rooms:App.handler", "nowhere:handler", "chat", "..:x", "json:a"]
)
def test_the_current_directory_is_always_watched(path: Path, target: str) -> None:
    (path / "here" / "chat").mkdir()
    (path / "here" / "chat" / "__init__.py").write_text("raise RuntimeError('this is not to be run')")
    assert folders(target)[0] == str(path / "here")
    assert target.startswith("json") or folders(target) == [str(path / "here")]


def test_a_package_elsewhere_is_watched_too(path: Path) -> None:
    (path / "elsewhere" / "chat_elsewhere").mkdir()
    (path / "elsewhere" / "chat_elsewhere" / "__init__.py").write_text("")
    assert folders("chat_elsewhere.rooms:handler") == [str(path / "here"), str(path / "elsewhere" / "chat_elsewhere")]


def test_a_folder_that_has_come_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "words" / "deep").mkdir(parents=True)
    (tmp_path / "words" / "deep" / "notes.txt").touch()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "setup.py").touch()
    watched = [str(tmp_path)]
    assert not holds(watched, str(tmp_path / "words"))
    assert not holds(watched, str(tmp_path / "node_modules"))
    (tmp_path / "words" / "deep" / "one.py").touch()
    assert holds(watched, str(tmp_path / "words"))


def test_stamps(tmp_path: Path) -> None:
    """A file's stamp changes when it is made, written to or replaced, and only then."""
    file = tmp_path / "file"
    assert stamps([str(file)]) == [None]
    file.write_text("one")
    one = stamps([str(file)])
    assert stamps([str(file)]) == one != [None]
    file.write_text("other")
    other = stamps([str(file)])
    assert other != one
    (tmp_path / "new").write_text("other")
    os.rename(tmp_path / "new", file)
    assert stamps([str(file)]) != other


def test_it_says_what_it_watches_then_what_has_changed_and_ends_with_its_parent(tmp_path: Path) -> None:
    require(importlib.util.find_spec("watchfiles"), "watchfiles")
    file = tmp_path / "settings.toml"
    (tmp_path / "app").mkdir()
    ours, theirs = socket.socketpair()
    task = msgspec.json.encode(Task("chat:handler", [str(file)])).decode()
    command = [sys.executable, "-X", "dev", "-m", "tidegate.supervisor.file_watcher", task]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdin=theirs, stderr=subprocess.PIPE, cwd=tmp_path / "app", env=environment
    ) as process:
        theirs.close()
        ours.settimeout(PATIENCE)
        with ours, ours.makefile("rb") as lines:
            assert msgspec.json.decode(lines.readline(), type=FileChanges) == FileChanges(
                watches=[str(tmp_path / "app")]
            )
            (tmp_path / "app" / "chat.py").write_text("")
            assert msgspec.json.decode(lines.readline(), type=FileChanges) == FileChanges(changed=["chat.py"])
            file.write_text("workers = 2")
            assert msgspec.json.decode(lines.readline(), type=FileChanges) == FileChanges(changed=["../settings.toml"])
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, b"")
