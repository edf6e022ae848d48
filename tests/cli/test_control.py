"""What all commands that ask a daemon have in common: where it is, how long they wait, what they say, how they end.

What must not live here: what each of them asks for (their own tests), real daemons (tests/process/test_control.py).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.cli.asked import ACCEPTED, Asked, nowhere, run, words
from tidegate.cli import control as module

__all__ = ["nowhere"]

DONE = {"done": True, "text": "all is well"}


def test_progress_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(ACCEPTED, {"text": "one"}, {"text": "two"}, DONE) as asked:
        assert run("reload", "--control", asked.path) == 0
    assert asked.requests == [{"command": "reload", "force": False}]
    assert words(capsys) == ("tidegate reload: all is well\n", "tidegate reload: one\ntidegate reload: two\n")


def test_the_daemons_own_words_for_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    text = "worker 0 (pid 7): the application could not be loaded:\nTraceback\n\x1b[31mred"
    with Asked(ACCEPTED, {"done": False, "text": text}) as asked:
        assert run("reload", "--control", asked.path) == 1
    out, err = words(capsys)
    assert out == ""
    assert err == "tidegate reload: " + text.replace("\x1b", "\\x1b") + "\n"


def test_answers_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(b'{"acc', b'epted":true}\n{"te', b'xt":"on', b'e"}\n{"done":true}\n') as asked:
        assert run("drain", "--control", asked.path) == 0
    assert words(capsys) == ("", "tidegate drain: one\n")


def test_words_of_a_later_version_do_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked({"accepted": True, "colour": "green"}, {"done": True, "text": "yes", "more": [1]}) as asked:
        assert run("drain", "--control", asked.path) == 0
    assert words(capsys)[0] == "tidegate drain: yes\n"


# Where it is.


@pytest.mark.parametrize("name", ["TIDEGATE_CONTROL", "RUNTIME_DIRECTORY"])
def test_the_environment_says_where(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Asked(ACCEPTED, DONE) as asked:
        monkeypatch.setenv(name, asked.path if name == "TIDEGATE_CONTROL" else os.path.dirname(asked.path))
        assert run("drain") == 0


def test_the_command_line_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    with Asked(ACCEPTED, DONE) as asked:
        monkeypatch.setenv("TIDEGATE_CONTROL", "/nowhere")
        assert run("drain", "--control", asked.path) == 0


@pytest.mark.parametrize("arguments", [[], ["--control", "auto"]])
def test_the_usual_place(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Asked(ACCEPTED, DONE) as asked:
        monkeypatch.setattr(module, "USUAL", asked.path)
        assert run("drain", *arguments) == 0
    assert run("drain", *arguments) == 5
    assert f"no daemon listens on {asked.path} (no such file or directory)" in words(capsys)[1]


@pytest.mark.parametrize("kind", ["nothing", "file", "dead", "below a file"])
def test_no_daemon(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "control.sock"
    if kind != "nothing":
        path.write_text("")
    if kind == "dead":
        path.unlink()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    if kind == "below a file":
        path /= "control.sock"
    assert run("stop", "--control", str(path)) == 5
    out, err = words(capsys)
    assert out == ""
    assert err.startswith(f"tidegate stop: no daemon listens on {path} (")
    assert "--control PATH or TIDEGATE_CONTROL" in err
    assert "started without --control or RUNTIME_DIRECTORY has none" in err
    assert err.count("\n") == 1


def test_a_path_that_no_socket_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stop", "--control", "x" * 200) == 1
    assert "af_unix path too long" in words(capsys)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--control", "none"], "--control is none: give the path of the daemon's control socket"),
        (["--control", ""], "--control '' is not allowed (the path is empty): give a path"),
        (["--timeout", "soon"], "--timeout 'soon' is not allowed: give seconds above 0, such as 10"),
        (["--timeout", "0"], "--timeout '0' is not allowed (it must be above 0)"),
        (["--timeout"], "--timeout needs a value: give seconds above 0"),
        (["now"], "unexpected extra argument (now)"),
        (["--noww"], "No such option"),
    ],
)
@pytest.mark.parametrize("command", ["status", "reload", "drain", "stop", "upgrade"])
def test_mistakes(command: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake on the command line is one line and status 2."""
    assert run(command, *arguments) == 2
    err = words(capsys)[1]
    assert err.startswith(f"tidegate {command}: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_setting_of_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEGATE_CONTROL", "none")
    assert run("drain") == 2
    assert "TIDEGATE_CONTROL is none" in words(capsys)[1]


# How long it takes.


@pytest.mark.parametrize("answers", [[], [ACCEPTED], [ACCEPTED, {"text": "begins"}]])
def test_the_time_is_over(answers: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(*answers, hold=True) as asked:
        assert run("reload", "--control", asked.path, "--timeout", "200ms") == 6
    assert f"not done within 0.2 s: the daemon at {asked.path} goes on with it" in words(capsys)[1]


def test_a_daemon_that_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with Asked(hold=True) as asked:
        assert run("reload", "--control", asked.path) == 6
    assert "has not answered within 0.2 s" in words(capsys)[1]


def test_a_daemon_that_accepts_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its process is stopped, say, and its queue is full."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "control.sock"))
        busy.listen(0)
        first.connect(str(tmp_path / "control.sock"))
        assert run("reload", "--control", str(tmp_path / "control.sock"), "--timeout", "0.2") == 6
    assert "not done within 0.2 s" in words(capsys)[1]


def test_without_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked({"text": "waits for the end of: scale 3"}, ACCEPTED, hold=True) as asked:
        assert run("reload", "--no-wait", "--control", asked.path) == 0
    assert words(capsys) == ("", "tidegate reload: waits for the end of: scale 3\n")


def test_without_waiting_for_what_fails_at_once() -> None:
    with Asked({"done": False, "text": "no"}) as asked:
        assert run("reload", "--no-wait", "--control", asked.path) == 1


# What may answer.


@pytest.mark.parametrize("answers", [[], [ACCEPTED], [ACCEPTED, b'{"done":tr']])
def test_a_daemon_that_ends_without_an_answer(answers: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(*answers) as asked:
        assert run("reload", "--control", asked.path) == 1
    assert "closed the connection without an answer" in words(capsys)[1]


@pytest.mark.parametrize("line", [b"HTTP/1.1 400 Bad Request\r\n", b"[]\n", b'{"done":"yes"}\n', b'{"text":"\xff"}\n'])
def test_what_is_no_daemon(line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(line) as asked:
        assert run("reload", "--control", asked.path) == 1
    assert f"{asked.path} is not tidegate's: its answer was b" in words(capsys)[1]


def test_no_descriptor_stays() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Asked(ACCEPTED, DONE) as asked:
        assert run("drain", "--control", asked.path) == 0
    assert run("drain", "--control", asked.path) == 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_daemon_says_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Asked(ACCEPTED, {"done": True, "text": "a\tb\nc\x1b[2J\x00\x9b\u202eä"}) as asked:
        assert run("reload", "--control", asked.path) == 0
    assert words(capsys)[0] == "tidegate reload: a\tb\nc\\x1b[2J\\x00\\x9b\\u202eä\n"


@pytest.mark.parametrize("command", ["status", "reload", "scale", "drain", "stop", "upgrade"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each command lists the exit statuses and the shared options."""
    assert run(command, "--help") == 0
    out = " ".join(words(capsys)[0].split())
    for said in ("Exit status: 0 done; 1 failed", "5 no daemon is there", "6 timed out", "--control PATH", "--timeout"):
        assert said in out
    assert ("--no-wait" in out) == (command != "status")
