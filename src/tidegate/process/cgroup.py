"""The processors that the control groups of this process allow it, by version 2, version 1, or both.

    processors    the least quota of its own group and of every group above it; None: no quota

A group is found where its hierarchy is mounted, or at the usual place, where a container may have mounted its own
files. Which processors a group may use (cpuset) is part of a process's affinity already.

What must not live here: the use of the number (config/prerequisites.py).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["processors"]

_USUAL = ("sys/fs/cgroup", "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")


def processors(root: Path = Path("/")) -> int | None:
    """Return the quota in processors, rounded up; None without a quota.

    Args:
        root: where the file systems of /proc and /sys are.
    """
    quotas = [quota for folder in dict.fromkeys(_folders(root)) if (quota := _quota(folder)) is not None]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of every group that this process is in, as far as they are visible."""
    for name in _USUAL:
        yield root / name
    own = _own_paths(root)
    for place, top, controllers in _mounts(root):
        path = own.get("cpu" if "cpu" in controllers else "")
        if path is None:
            continue
        folder = root / place.lstrip("/")
        yield folder
        with contextlib.suppress(ValueError):  # the group is outside of what is mounted here
            for part in PurePosixPath(path).relative_to(top).parts:
                if part == "..":
                    break
                folder /= part
                yield folder


def _own_paths(root: Path) -> dict[str, str]:
    """Return the path of the group of this process: under "cpu" in version 1, under "" in version 2 (cgroups(7))."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            paths["cpu" if controllers else ""] = path
    return paths


def _mounts(root: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Yield where hierarchies are mounted, their top group and their controllers: proc_pid_mountinfo(5)."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, system = before.split(), after.split(" ", 2)
        controllers = set(system[-1].split(",")) if system[0] == "cgroup" else set()
        if len(fields) > 4 and (system[0] == "cgroup2" or "cpu" in controllers):
            yield _unescaped(fields[4]), _unescaped(fields[3]), controllers


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _quota(folder: Path) -> float | None:
    """Return the quota of one group, in processors."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period) if quota != "max" and int(period) > 0 else None
    with contextlib.suppress(OSError, ValueError):
        microseconds = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_microseconds = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return microseconds / period_microseconds if microseconds > 0 and period_microseconds > 0 else None
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
