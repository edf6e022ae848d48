"""Whether a configuration can run on this machine, in this process: one question, asked here and nowhere else.

    prepare              at the start: set what children inherit, check what is needed, return the user to switch to
    decide               at the start and at each reload: the number of workers
    identify             the user and group of the settings, as numbers
    log_file             the path of the log, while it is opened
    usable_processors    the number that `--workers auto` stands for

Errors are ConfigErrors: they name the setting, what this machine lacks, and the remedy.

What must not live here: checks that need no machine (config/consistency.py), switching to the user
(supervisor/system/privileges.py), pinning to a processor (supervisor/system/cpu_affinity.py).
"""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import os
import pwd
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from ..environment import runtime_directory
from ..process import cgroup
from .errors import ConfigError
from .schema import Config, settings
from .types import SLOTS

__all__ = ["Identity", "decide", "identify", "log_file", "prepare", "usable_processors"]


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and groups that a process switches to.

    Attributes:
        uid, gid: the user and the group.
        groups: the supplementary groups, as the group database has them for the user.
        name, home: the user's, None where the user database does not know it.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str | None = None
    home: str | None = None

    def __str__(self) -> str:
        return f"{self.name or self.uid} (uid {self.uid}, gid {self.gid})"


def prepare(config: Config) -> Identity | None:
    """Set up the process as the configuration asks: working directory, umask, limit of open files.

    Returns:
        The user to switch to once the addresses are bound; None to stay.

    Raises:
        ConfigError: this machine does not allow it, or lacks what it needs.
    """
    if config.working_dir is not None:
        try:
            os.chdir(config.working_dir)
        except OSError as error:
            flag = settings()["working_dir"].flag
            raise ConfigError(flag, config.working_dir, "a directory that can be entered", _reason(error)) from None
    if config.umask is not None:
        os.umask(config.umask)
    _limit_open_files(config.open_files)
    if config.reload_on_change and importlib.util.find_spec("watchfiles") is None:
        reason, remedy = "watchfiles is not installed", "install it: pip install 'tidegate[reload]'"
        raise ConfigError(settings()["reload_on_change"].flag, "true", reason=reason, remedy=remedy)
    _check_bus(config)
    _check_processors(config)
    return identify(config.user, config.group)


def decide(config: Config) -> Config:
    """Return the configuration with a number of workers: `auto` depends on the machine.

    Raises:
        ConfigError: something else that it asks for depends on the environment, and is not there.
    """
    is_local = config.bus.startswith("local:")
    if config.publish_token is not None and is_local and config.control == "auto" and not runtime_directory(os.environ):
        reason = "--control is auto, and RUNTIME_DIRECTORY is not set"
        raise ConfigError(settings()["publish_token"].flag, "...", "--control PATH as well", reason)
    if config.workers != "auto":
        return config
    return msgspec.structs.replace(config, workers=min(usable_processors(), SLOTS))


def identify(user: str | None, group: str | None) -> Identity | None:
    """Return the user and groups that the settings name; None if this process has them already.

    Parameters:
        user: a name or a number; None: the user stays.
        group: a name or a number; None: the user's own.

    Raises:
        ConfigError: there is no such user or group, or only root could switch to it.
    """
    if user is None and group is None:
        return None
    known = _user(user) if user is not None else None
    uid = os.geteuid() if user is None else known.pw_uid if known is not None else int(user)
    if group is not None:
        gid = _group(group)
    elif known is not None:
        gid = known.pw_gid
    else:
        raise ConfigError("--user", str(user), "--group as well", "the user database gives this number no group")
    if (uid, gid) == (os.getuid(), os.getgid()) == (os.geteuid(), os.getegid()) and uid != 0:
        return None  # as under systemd's User=, where the option is not needed but right
    if os.geteuid() != 0:
        option, value = ("--user", user) if user is not None else ("--group", group)
        reason, remedy = "only root can switch to another", f"start the daemon as root, or leave out {option}"
        raise ConfigError(option, str(value), reason=reason, remedy=remedy)
    if known is not None:
        groups = tuple(os.getgrouplist(known.pw_name, gid))
        return Identity(uid, gid, groups, known.pw_name, known.pw_dir)
    return Identity(uid, gid, (gid,))


@contextlib.contextmanager
def log_file(config: Config) -> Iterator[str]:
    """Give the path of the log, to be opened in the block; ConfigError when that fails."""
    try:
        yield config.log_file
    except OSError as error:
        flag = settings()["log_file"].flag
        raise ConfigError(flag, config.log_file, "a path that can be written", _reason(error)) from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _limit_open_files(wanted: int | None) -> None:
    """Raise the limit to `wanted`, or to what the system allows: the usual 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted is None:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            if soft != hard:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return
    try:
        # Root may have more than it was given.
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError):
        allowed = f"a number up to {hard}, which is what the system allows, or max"
        raise ConfigError(settings()["open_files"].flag, str(wanted), allowed) from None


def _check_bus(config: Config) -> None:
    """Look whether the packages for the engine of the bus are installed."""
    setting = settings()["bus"]
    if config.bus == setting.default:
        return
    from ..bus.connect import missing

    remedy = missing(config.bus)
    if remedy is not None:
        reason = "packages for this engine are not installed"
        raise ConfigError(setting.flag, setting.show(config.bus) or "", reason=reason, remedy=f"install them: {remedy}")


def _check_processors(config: Config) -> None:
    if config.cpu_affinity is None:
        return
    setting = settings()["cpu_affinity"]
    given = setting.write(config.cpu_affinity)
    if sys.platform != "linux":
        raise ConfigError(setting.flag, given, "none", "this system has no processor affinity")
    usable = os.sched_getaffinity(0)
    if config.cpu_affinity != "auto" and (others := sorted(set(config.cpu_affinity) - usable)):
        words = ", ".join(map(str, sorted(usable)))
        raise ConfigError(setting.flag, given, f"processors of {words}", f"{others[0]} is not usable here")


def usable_processors() -> int:
    """Return how many processors this process may use: its affinity, and its control groups' quotas, rounded up."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, cgroup.processors() or processors))


def _user(user: str) -> pwd.struct_passwd | None:
    """Return what the user database has; None for a number that it does not know, as in containers."""
    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if _is_number(user) and int(user) < 2**32 - 1:
            return None
        raise ConfigError("--user", user, "the name or number of a user", "there is no such user") from None


def _group(group: str) -> int:
    if _is_number(group) and int(group) < 2**32 - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError("--group", group, "the name or number of a group", "there is no such group") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
