"""Whether a configuration can run on this machine.

What must not live here: checks that need no machine (test_schema.py), switching to a user
(tests/supervisor/system/test_privileges.py).
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tidegate.config.errors import ConfigError
from tidegate.config.prerequisites import decide, identify, log_file, prepare
from tidegate.config.schema import Config
from tidegate.process import cgroup

NOBODY = pwd.getpwnam("nobody")


def test_prepare_sets_what_children_inherit(tmp_path: Path) -> None:
    """In a process of its own, of which all of it is asked."""
    program = f"""
import os, resource
from tidegate.config.prerequisites import prepare
from tidegate.config.schema import Config
prepare(Config(application="a:b", working_dir={str(tmp_path)!r}, umask=0o027, open_files=300))
open("file", "w").close()
print(os.getcwd(), oct(os.stat("file").st_mode & 0o777), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
prepare(Config(application="a:b"))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == hard)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.splitlines() == [f"{tmp_path} 0o640 300", "True"], done.stderr


UNMET = {
    "working_dir": ("/nowhere/at/all", "(no such file or directory): give a directory that can be entered"),
    "open_files": (2**30, "which is what the system allows, or max"),
    "user": ("no_such_user", "(there is no such user): give the name or number of a user"),
    "group": ("no_such_group", "(there is no such group): give the name or number of a group"),
    "reload_on_change": (True, "(watchfiles is not installed): install it: pip install 'tidegate[reload]'"),
    "bus": (
        "redis://:secret@redis.example.com",
        "(packages for this engine are not installed): install them: pip install 'tidegate[redis]'",
    ),
    "cpu_affinity": ((9999,), "(9999 is not usable here): give processors of"),
}


@pytest.mark.parametrize("name", UNMET)
def test_an_unmet_requirement_names_the_setting_and_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("watchfiles", "hiredis"):
        monkeypatch.setitem(sys.modules, package, None)
    value, words = UNMET[name]
    config = msgspec.structs.replace(Config(application="a:b"), **{name: value})
    with pytest.raises(
        ConfigError, match=rf"^--{name.replace('_', '-')} .* is not allowed.*{re.escape(words)}"
    ) as caught:
        prepare(config)
    assert "secret" not in str(caught.value)


def test_what_is_not_asked_for_is_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert prepare(Config(application="a:b")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let processes choose")
def test_usable_processors_are_allowed() -> None:
    usable = min(os.sched_getaffinity(0))
    prepare(Config(application="a:b", cpu_affinity="auto"))
    prepare(Config(application="a:b", cpu_affinity=(usable,)))
    with pytest.raises(ConfigError, match=rf"--cpu-affinity '{usable},9999'"):
        prepare(Config(application="a:b", cpu_affinity=(usable, 9999)))


def test_a_log_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere" / "log")
    words = r"--log-file .*no such file or directory.*give a path that can be written"
    with pytest.raises(ConfigError, match=words), log_file(Config(application="a:b", log_file=path)) as name:
        Path(name).touch()


def test_auto_is_the_number_of_usable_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the affinity and the quotas of the control groups allow."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 3}, raising=False)
    for quota, expected in ((None, 3), (1, 1), (2, 2), (64, 3)):
        monkeypatch.setattr(cgroup, "processors", lambda quota=quota: quota)
        assert decide(Config(application="a:b", workers="auto")).workers == expected
    assert decide(Config(application="a:b", workers=7)).workers == 7


def test_publishing_by_http_needs_a_control_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = Config(application="a:b", publish_token="0123456789abcdef")
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with pytest.raises(ConfigError) as caught:
        decide(config)
    assert str(caught.value) == (
        "--publish-token '...' is not allowed (--control is auto, and RUNTIME_DIRECTORY is not set): give"
        " --control PATH as well"
    )
    assert decide(msgspec.structs.replace(config, control="control.sock")).control == "control.sock"
    elsewhere = msgspec.structs.replace(config, bus="nats://127.0.0.1/room")
    assert decide(elsewhere) == elsewhere
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert decide(config) == config


def test_nobody_asked_for() -> None:
    assert identify(None, None) is None


def test_who_is_unknown_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"--user 'no_such_user' is not allowed .there is no such user."):
        identify("no_such_user", None)
    with pytest.raises(ConfigError, match=r"--group 'no_such_group' is not allowed .there is no such group."):
        identify("nobody", "no_such_group")
    with pytest.raises(ConfigError, match=r"the user database gives this number no group.: give --group as well$"):
        identify("3999999", None)


def test_a_name_and_its_number_are_the_same() -> None:
    by_name = identify("nobody", None)
    assert by_name is not None
    assert by_name == identify(str(NOBODY.pw_uid), None)
    assert (by_name.uid, by_name.gid, by_name.home) == (NOBODY.pw_uid, NOBODY.pw_gid, NOBODY.pw_dir)
    assert str(by_name).startswith("nobody (uid ")
