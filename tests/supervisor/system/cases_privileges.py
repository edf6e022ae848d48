"""What a process that began as root sees once it has given that up, for test_privileges.py; it prints it as JSON.

What must not live here: what it should see.
"""

from __future__ import annotations

import ctypes
import grp
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidegate.config.bind import Tcp
from tidegate.config.errors import ConfigError
from tidegate.config.prerequisites import Identity, identify
from tidegate.supervisor.sockets.listeners import Listeners
from tidegate.supervisor.system.privileges import drop


def fails(call: Callable[..., Any], *arguments: Any) -> str | None:
    """The error of a call, in words; None if there is none."""
    try:
        call(*arguments)
    except (OSError, RuntimeError, ConfigError) as error:
        return str(error)
    return None


def somebody(user: str | None, group: str | None) -> Identity:
    """Somebody else than this process is now."""
    found = identify(user, group)
    assert found is not None
    return found


def tell(**found: Any) -> None:
    print(json.dumps(found))


def no_way_back() -> None:
    drop(somebody("nobody", None))
    child = subprocess.run(["id", "-u"], capture_output=True, text=True, check=True).stdout.strip()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    tell(
        ids=os.getresuid(),
        groups=os.getgroups(),
        child=child,
        home=os.environ["HOME"],
        capabilities=[int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")],
        back=[fails(os.setuid, 0), fails(os.seteuid, 0), fails(os.setgid, 0), fails(os.setgroups, [0])],
        seen=os.stat("/proc/self/fd").st_uid,
        no_new_privileges=status["NoNewPrivs"].strip(),
    )


def way_back_left_open() -> None:
    ctypes.CDLL(None).prctl(28, 1 << 2 | 1 << 4, 0, 0, 0)  # PR_SET_SECUREBITS: NO_SETUID_FIXUP, KEEP_CAPS
    tell(error=fails(drop, somebody("nobody", None)))


def group_alone_then_both() -> None:
    drop(somebody(None, "daemon"))
    first = [os.getuid(), os.getgid()]
    drop(somebody("nobody", "1234"))
    tell(first=first, then=[os.getuid(), os.getgid(), os.getgroups()], named=grp.getgrnam("daemon").gr_gid)


def numbers() -> None:
    drop(somebody("3999999", "3999998"))
    tell(ids=[os.getuid(), os.getgid(), os.getgroups()], home=os.environ.get("HOME"))


def no_longer_root() -> None:
    drop(somebody("nobody", None))
    tell(
        same=identify("nobody", None) is None,
        other=fails(identify, "daemon", None),
        group=fails(identify, None, "daemon"),
    )


def sockets_bound_afterwards() -> None:
    listeners = Listeners()
    listeners.bind([Tcp("127.0.0.1", 0)], 2)
    nobody = somebody("nobody", None)
    listeners.chown(nobody.uid, nobody.gid)
    drop(nobody)
    ports = [listeners.at(slot)[0].getsockname()[1] for slot in range(4)]
    tell(ports=len(set(ports)))
