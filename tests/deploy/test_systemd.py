"""The units of deploy/systemd: systemd understands them, and the daemon understands what they ask of it.

What must not live here: the protocol between systemd and the daemon (tests/process/test_service.py).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT, require
from tidegate.cli.serve import command
from tidegate.config.schema import settings

UNITS = ROOT / "deploy" / "systemd"
SERVICE = UNITS / "tidegate.service"
SOCKET = UNITS / "tidegate.socket"

# The first systemd with Type=notify-reload.
NOTIFY_RELOAD = 253


def directives(path: Path) -> dict[str, dict[str, list[str]]]:
    """Section -> directive -> values, of a unit file without continued lines."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line!r} is no directive"
            assert not line.endswith("\\"), f"{path.name}: {line!r} goes on in the next line"
            section.setdefault(name, []).append(value)
    return found


def systemd_version() -> int:
    done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[1])


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Copies of the units whose program and directory are there, and that this systemd is new enough for."""
    require(shutil.which("systemd-analyze"), "systemd-analyze")
    text = SERVICE.read_text(encoding="utf-8")
    text = text.replace("/srv/app/.venv/bin/tidegate", f"{sys.executable} -m tidegate").replace("/srv/app", "/")
    if systemd_version() < NOTIFY_RELOAD:
        # As the comment there says.
        text = text.replace("Type=notify-reload", "Type=notify\nExecReload=/bin/kill -HUP $MAINPID")
    (tmp_path / SERVICE.name).write_text(text, encoding="utf-8")
    shutil.copy(SOCKET, tmp_path)
    return [str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name)]


def test_systemd_understands_them(units: list[str]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_little_is_left_to_whoever_gets_in(units: list[str]) -> None:
    """systemd's own opinion of the exposure, from 0 to 10 (a service without any of it has 9.6)."""
    analyze = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", units[0]]
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_command_is_one() -> None:
    (line,) = directives(SERVICE)["Service"]["ExecStart"]
    commented = re.findall(r"^#\s+ExecStart=(.*)$", SOCKET.read_text(encoding="utf-8"), re.MULTILINE)
    assert commented
    for text in (line, *commented):
        program, subcommand, *arguments = shlex.split(text)
        assert (Path(program).name, subcommand) == ("tidegate", "serve")
        command.make_context("serve", arguments)  # raises what the command would say


def test_the_options_that_are_spoken_of_exist() -> None:
    known = {setting.flag for setting in settings().values()} | {option for p in command.params for option in p.opts}
    others = {"--system", "--now"}  # of useradd and systemctl
    for path in (SERVICE, SOCKET):
        assert set(re.findall(r"(?<!\w)--[a-z][a-z-]+", path.read_text(encoding="utf-8"))) - others <= known


def test_what_the_daemon_relies_on() -> None:
    """The choices without which the promises do not hold."""
    service = {name: values[-1] for name, values in directives(SERVICE)["Service"].items()}
    assert service["Type"] == "notify-reload"
    assert service["NotifyAccess"] == "main"
    assert service["KillMode"] == "mixed", "workers would get a SIGTERM of their own"
    assert service["OOMPolicy"] == "continue", "one worker that is killed would end all"
    assert service["RestartPreventExitStatus"].split() == ["2", "3"]
    assert "AF_NETLINK" in service["RestrictAddressFamilies"].split()
    timeout, boot = settings()["graceful_timeout"].default, settings()["boot_timeout"].default
    assert int(service["TimeoutStopSec"]) > timeout
    assert int(service["TimeoutStartSec"]) > boot
    socket = {name: values[-1] for name, values in directives(SOCKET)["Socket"].items()}
    assert socket["Accept"] == "no"
    assert int(socket["Backlog"]) == settings()["backlog"].default
