"""A newcomer, with the README alone: a server of one's own behind nginx with TLS, scraped by Prometheus.

The commands are taken from the README and run as they stand, in a directory that has nothing but what a checkout has.
Only ports are others, so that tests can run beside each other.

What must not live here: what the parts do beyond that (tests of their own).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect

from tests.support.harness import ROOT, free_port, require, wait_until
from tests.support.patience import LONG, PATIENCE

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
(PROGRAM,) = (text for language, text in BLOCKS if language == "python")

INSTALL, SERVE = SHELL[0], SHELL[2]

PORTS = ("8765", "9465", "8443", "9090")
NEEDED = ("openssl", "nginx", "prometheus", "curl", "gcc")


def commands(block: str) -> list[str]:
    """Its commands, without what they are given on standard input."""
    block = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [command.strip() for line in lines for command in line.split(" && ")]


def test_there_are_few_commands() -> None:
    saved = 1  # echo.py, in an editor
    demo = 1
    assert len(commands(INSTALL)) - demo + saved + len(commands(SERVE)) < 15


def test_the_ports_are_there_to_be_replaced() -> None:
    assert [port for port in PORTS if port in SERVE] == list(PORTS)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What somebody has who has just got the project."""
    listed = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
        "src",
        *("README.md", "MANIFEST.in"),
    ]
    names = subprocess.run([*listed, "pyproject.toml"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


class Newcomer:
    """Somebody at a shell.

    Parameters:
        directory: where.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {port: str(free_port()) for port in PORTS}
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        moved = {
            "TIDEGATE_BIND": f"127.0.0.1:{self.ports['8765']}",
            "TIDEGATE_ADMIN": f"127.0.0.1:{self.ports['9465']}",
        }
        self.environment = {**kept, **moved, "NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}
        self.sessions: set[int] = set()

    def start(self, text: str) -> subprocess.Popen[bytes]:
        """Run commands in a shell of their own; `said()` is what they write."""
        text = re.sub("|".join(PORTS), lambda match: self.ports[match[0]], text)
        with (self.directory / "output").open("wb") as file:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.sessions.add(shell.pid)
        return shell

    def said(self) -> str:
        return (self.directory / "output").read_text(encoding="utf-8", errors="replace")

    def run(self, text: str, timeout: float) -> str:
        """What commands have written, of which none has failed; what they leave behind goes on."""
        status = self.start(text).wait(timeout)
        assert status == 0, self.said()[-8000:]
        return self.said()

    def shows(self, port: str) -> bool:
        """Whether a page is there, at what the README calls this port."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.ports[port]}/", timeout=PATIENCE) as response:
                return b"<html" in response.read()
        except OSError:
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers."""
        url = f"http://127.0.0.1:{self.ports['9090']}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=PATIENCE) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
            return found

    def leave(self) -> None:
        """End whatever was started."""
        number = self.directory / "nginx.pid"
        if number.exists():
            os.kill(int(number.read_text()), signal.SIGTERM)
        for process in self._left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(self._left(), timeout=PATIENCE)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _left(self) -> list[psutil.Process]:
        found = []
        for pid in psutil.pids():
            try:
                if os.getsid(pid) in self.sessions:
                    found.append(psutil.Process(pid))
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found


@pytest.fixture
def newcomer(checkout: Path) -> Iterator[Newcomer]:
    for program in NEEDED:
        require(shutil.which(program), program)
    newcomer = Newcomer(checkout)
    try:
        yield newcomer
    finally:
        newcomer.leave()


@pytest.mark.slow
def test_newcomer(newcomer: Newcomer) -> None:
    """The README's commands work one after another for a user who has nothing installed."""
    demo = newcomer.start(INSTALL)
    wait_until(lambda: demo.poll() is not None or newcomer.shows("8765"), "the demo's page", timeout=LONG)
    assert demo.poll() is None, newcomer.said()[-8000:]
    wait_until(lambda: newcomer.shows("9465"), "the admin page", timeout=LONG)
    newcomer.leave()
    (newcomer.directory / "echo.py").write_text(PROGRAM, encoding="utf-8")

    said = newcomer.run(SERVE, timeout=PATIENCE)
    assert "ready: 2 of 2 workers ready" in said  # of /readyz
    assert "\nhello\n" in said  # the echo, by way of nginx and TLS
    assert "reload: generation 2 serves with 2 workers" in said
    assert '"status":"success"' in said

    trusted = ssl.create_default_context(cafile=str(newcomer.directory / "cert.pem"))
    with connect(f"wss://localhost:{newcomer.ports['8443']}/", ssl=trusted, proxy=None) as websocket:
        websocket.send("still here")
        assert websocket.recv(timeout=PATIENCE) == "still here"
    # Both, and no other: Prometheus sees what was done.
    (handshakes,) = wait_until(lambda: _counted(newcomer, 2), "a scrape that has both connections")
    assert handshakes["metric"]["job"] == "tidegate"


def _counted(newcomer: Newcomer, number: int) -> list[dict[str, Any]]:
    found = newcomer.ask('tidegate_handshakes_total{result="ok"}')
    return found if found and float(found[0]["value"][1]) == number else []
