"""A daemon's control socket that says what a case wants, for commands run in this process.

    with Asked(b'{"accepted":true}\n', ...) as asked: status, out, err = asked.run("reload")

What must not live here: test cases; what a real daemon answers (tests/process/test_control.py).
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from typing import Any, Self

import pytest

from tests.support.patience import PATIENCE
from tidegate.cli import main

ACCEPTED = {"accepted": True}


class Asked:
    """A control socket for one request.

    Parameters:
        answers: what it says, one after the other: objects, or bytes as they are.
        hold: whether the connection stays open then.

    Attributes:
        requests: what it was asked.
    """

    def __init__(self, *answers: Any, hold: bool = False) -> None:
        self._answers, self._hold = answers, hold
        self.requests: list[Any] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-test-")
        self.path = f"{self._folder.name}/control.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, sock.makefile("rb") as lines:
            if line := lines.readline():
                self.requests.append(json.loads(line))
            for answer in self._answers:
                sock.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
            if self._hold:
                self._over.wait(PATIENCE)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with socket.socket(socket.AF_UNIX) as last:  # if nobody has come
            last.connect(self.path)
        self._thread.join()
        self._listener.close()
        self._folder.cleanup()


def run(*arguments: str) -> int:
    """The exit status of a command line."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def words(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What has been written since the last time: to standard output, and to standard error."""
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon of whoever runs the tests is asked."""
    for name in ("TIDEGATE_CONTROL", "RUNTIME_DIRECTORY"):
        if name in os.environ:
            monkeypatch.delenv(name)
