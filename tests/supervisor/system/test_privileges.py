"""From root to nobody, and not back; each case in a process of its own, for it cannot be undone.

What must not live here: the daemon that does it (tests/process/test_service.py).
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import textwrap

from tests.support.harness import require

NOBODY = pwd.getpwnam("nobody")


def as_root(program: str) -> dict[str, object]:
    """What a program, begun as root, prints as JSON."""
    require(os.geteuid() == 0, "being root")
    prelude = """
        import grp, json, os, pwd, socket, subprocess, sys
        from tidegate.supervisor.system import privileges
        from tidegate.supervisor.system.privileges import drop
        from tidegate.config.errors import ConfigError
        from tidegate.config.prerequisites import identify
        def fails(call, *arguments):
            try:
                call(*arguments)
            except (OSError, RuntimeError, ConfigError) as error:
                return str(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_there_is_no_way_back() -> None:
    told = as_root("""
        drop(identify("nobody", None))
        child = subprocess.run(["id", "-u"], capture_output=True, text=True).stdout.strip()
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        print(json.dumps({
            "ids": [*os.getresuid()], "groups": os.getgroups(), "child": child, "home": os.environ["HOME"],
            "capabilities": [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")],
            "back": [fails(os.setuid, 0), fails(os.seteuid, 0), fails(os.setgid, 0), fails(os.setgroups, [0])],
            "seen": os.stat("/proc/self/fd").st_uid, "no_new_privileges": status["NoNewPrivs"].strip(),
        }))
    """)
    uid = NOBODY.pw_uid
    assert told["ids"] == [uid, uid, uid]
    assert told["groups"] == [NOBODY.pw_gid]
    assert told["child"] == str(uid)
    assert told["home"] == NOBODY.pw_dir
    assert told["capabilities"] == [0, 0, 0]
    assert None not in told["back"]  # type: ignore[operator]
    assert told["no_new_privileges"] == "1"
    assert told["seen"] == uid, "processes of the same user may not look at it"


def test_a_way_back_that_is_left_open_is_an_error() -> None:
    """As with a securebit that lets a process keep what root may."""
    told = as_root("""
        import ctypes
        ctypes.CDLL(None).prctl(28, 1 << 2 | 1 << 4, 0, 0, 0)  # PR_SET_SECUREBITS: NO_SETUID_FIXUP, KEEP_CAPS
        print(json.dumps({"error": fails(drop, identify("nobody", None))}))
    """)
    assert "could become root again" in str(told["error"])


def test_a_group_alone_and_a_user_with_another_group() -> None:
    told = as_root("""
        drop(identify(None, "daemon"))
        first = [os.getuid(), os.getgid()]
        drop(identify("nobody", "1234"))
        print(json.dumps({"first": first, "then": [os.getuid(), os.getgid(), os.getgroups()],
                          "named": grp.getgrnam("daemon").gr_gid}))
    """)
    assert told["first"] == [0, told["named"]]
    assert told["then"] == [NOBODY.pw_uid, 1234, [1234]]


def test_a_number_of_nobody_in_particular() -> None:
    told = as_root("""
        drop(identify("3999999", "3999998"))
        print(json.dumps({"ids": [os.getuid(), os.getgid(), os.getgroups()], "home": os.environ.get("HOME")}))
    """)
    assert told == {"ids": [3999999, 3999998, [3999998]], "home": os.environ.get("HOME")}


def test_only_root_may() -> None:
    told = as_root("""
        drop(identify("nobody", None))
        print(json.dumps({"same": identify("nobody", None) is None, "other": fails(identify, "daemon", None),
                          "group": fails(identify, None, "daemon")}))
    """)
    assert told["same"] is True
    why = "is not allowed (only root can switch to another): start the daemon as root, or leave out"
    assert f"--user 'daemon' {why} --user" in str(told["other"])
    assert f"--group 'daemon' {why} --group" in str(told["group"])


def test_a_group_of_sockets_can_be_joined_afterwards() -> None:
    """More slots than at the start need sockets that are bound when root is gone."""
    told = as_root("""
        from tidegate.config.bind import Tcp
        from tidegate.supervisor.sockets.listeners import Listeners
        listeners = Listeners()
        listeners.bind([Tcp("127.0.0.1", 0)], 2)
        nobody = identify("nobody", None)
        listeners.give(nobody.uid, nobody.gid)
        drop(nobody)
        ports = [listeners.at(slot)[0].getsockname()[1] for slot in range(4)]
        print(json.dumps({"ports": len(set(ports))}))
    """)
    assert told["ports"] == 1
