"""From root to nobody, and not back; each case in a process of its own, for it cannot be undone.

What must not live here: the daemon that does it (tests/process/test_service.py).
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable

from tests.supervisor.system import cases_privileges as cases
from tests.support import programs
from tests.support.harness import require

NOBODY = pwd.getpwnam("nobody")


def as_root(case: Callable[[], None]) -> dict[str, object]:
    """What a case, begun as root, tells."""
    require(os.geteuid() == 0, "being root")
    done = programs.run(case)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_there_is_no_way_back() -> None:
    told = as_root(cases.no_way_back)
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
    told = as_root(cases.way_back_left_open)
    assert "could become root again" in str(told["error"])


def test_a_group_alone_and_a_user_with_another_group() -> None:
    told = as_root(cases.group_alone_then_both)
    assert told["first"] == [0, told["named"]]
    assert told["then"] == [NOBODY.pw_uid, 1234, [1234]]


def test_a_number_of_nobody_in_particular() -> None:
    told = as_root(cases.numbers)
    assert told == {"ids": [3999999, 3999998, [3999998]], "home": os.environ.get("HOME")}


def test_only_root_may() -> None:
    told = as_root(cases.no_longer_root)
    assert told["same"] is True
    why = "is not allowed (only root can switch to another): start the daemon as root, or leave out"
    assert f"--user 'daemon' {why} --user" in str(told["other"])
    assert f"--group 'daemon' {why} --group" in str(told["group"])


def test_a_group_of_sockets_can_be_joined_afterwards() -> None:
    """More slots than at the start need sockets that are bound when root is gone."""
    told = as_root(cases.sockets_bound_afterwards)
    assert told["ports"] == 1
