"""Kernel settings of deploy/sysctl: this kernel has them, takes them, and they fit what the daemon is told.

What must not live here: changing any of them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.deploy.fronts import DEPLOY, find, read
from tests.support.harness import require
from tidegate.config.schema import settings

KERNEL = "sysctl/60-tidegate.conf"
LIMITS = "sysctl/60-tidegate.limits.conf"


def values() -> dict[str, str]:
    """Name -> value; a name that may be missing begins with a minus."""
    found = {}
    for line in read(KERNEL).splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"(-?[a-z0-9_.]+) = ([0-9 ]+)", line)
            assert match is not None, f"{line!r} is no setting"
            assert match[1] not in found, f"{match[1]} is there twice"
            found[match[1]] = match[2]
    return found


def test_the_kernel_has_them() -> None:
    """Those that containers of their own have may be missing in one; what is of this network must be there."""
    missing = [
        name for name in values() if not name.startswith("-") and not Path("/proc/sys", *name.split(".")).exists()
    ]
    assert not missing


def test_sysctl_understands_them() -> None:
    program = find("sysctl")
    require(program, "sysctl")
    command = [str(program), "--dry-run", f"--load={DEPLOY / KERNEL}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = [line.partition(" = ")[::2] for line in done.stdout.splitlines()]
    assert dict(printed).items() >= {n: v for n, v in values().items() if not n.startswith("-")}.items()


def test_they_fit_the_daemon() -> None:
    found = values()
    assert int(found["net.core.somaxconn"]) >= settings()["backlog"].default
    assert int(found["net.ipv4.tcp_max_syn_backlog"]) >= settings()["backlog"].default
    first, last = map(int, found["net.ipv4.ip_local_port_range"].split())
    ours = {settings()["bind"].default[0].port, settings()["admin"].default.port}
    assert not ours & set(range(first, last + 1))


def test_limits_of_logins() -> None:
    rows = [line.split() for line in read(LIMITS).splitlines() if line and not line.startswith("#")]
    hard = {row[2]: int(row[3]) for row in rows if row[:2] == ["tidegate", "hard"]}
    soft = {row[2]: int(row[3]) for row in rows if row[:2] == ["tidegate", "soft"]}
    assert len(rows) == len(hard) + len(soft)
    (service,) = re.findall(r"^LimitNOFILE=(\d+)$", read("systemd/tidegate.service"), re.MULTILINE)
    assert soft["nofile"] <= hard["nofile"] == int(service)
    assert hard["nofile"] <= 1024 * 1024, "the kernel's own fs.nr_open: with more, no login would succeed"


def test_every_one_has_its_reason() -> None:
    """A comment stands before each, or before the few that belong together."""
    blocks = read(KERNEL).split("\n\n")[1:]
    assert blocks
    for block in blocks:
        assert block.startswith("#"), f"no reason: {block}"
