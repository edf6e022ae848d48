"""Quotas of control groups, in trees such as systems, containers and service managers make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.process import cgroup

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
OTHER = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\nbroken\n"


def tree(root: Path, own: str, mounts: str, **quotas: str) -> Path:
    """A root with /proc and /sys; quotas by folder, with __ for /, are of version 2, or QUOTA/PERIOD of version 1."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/mountinfo").write_text(f"{OTHER}{mounts}\n")
    for name, quota in quotas.items():
        folder = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_cpuacct", "cpu,cpuacct").lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        if "/" in quota:
            limit, _, period = quota.partition("/")
            (folder / "cpu.cfs_quota_us").write_text(f"{limit}\n")
            (folder / "cpu.cfs_period_us").write_text(f"{period}\n")
        else:
            (folder / "cpu.max").write_text(f"{quota}\n")
    return root


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", None), ("100000 100000", 1), ("150000 100000", 2), ("1000 100000", 1), ("800000 100000", 8)],
)
def test_a_container_with_version_2(tmp_path: Path, quota: str, expected: int | None) -> None:
    assert cgroup.processors(tree(tmp_path, "0::/\n", V2, __=quota)) == expected


def test_the_least_of_a_group_and_of_those_around_it(tmp_path: Path) -> None:
    own = "0::/system.slice/chat.service/worker\n"
    quotas = {
        "system.slice": "300000 100000",
        "system.slice__chat.service": "200000 100000",
        "system.slice__chat.service__worker": "max 100000",
        "system.slice__other.service": "100000 100000",
    }
    assert cgroup.processors(tree(tmp_path, own, V2, **quotas)) == 2


@pytest.mark.parametrize(("quota", "expected"), [("-1/100000", None), ("100000/100000", 1), ("250000/100000", 3)])
def test_version_1(tmp_path: Path, quota: str, expected: int | None) -> None:
    own = "5:memory:/chat\n4:cpu,cpuacct:/chat\n1:name=systemd:/elsewhere\n"
    assert cgroup.processors(tree(tmp_path, own, V1, cpu_cpuacct__chat=quota)) == expected


def test_a_container_that_sees_the_path_outside_of_it(tmp_path: Path) -> None:
    """Docker with version 1: the mount's top is the container's group, and so is what the path begins with."""
    mount = V1.replace(" / /sys", " /docker/17 /sys")
    root = tree(tmp_path, "4:cpu,cpuacct:/docker/17/inner\n", mount, cpu_cpuacct__inner="200000/100000")
    assert cgroup.processors(root) == 2
    (root / "proc/self/cgroup").write_text("4:cpu,cpuacct:/docker/18\n")
    (root / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us").write_text("100000")
    (root / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us").write_text("100000")
    assert cgroup.processors(root) == 1


def test_both_versions_at_once(tmp_path: Path) -> None:
    unified = V2.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup/unified rw")
    own = "4:cpu,cpuacct:/chat\n0::/chat\n"
    quotas = {"cpu_cpuacct__chat": "300000/100000", "unified__chat": "max 100000"}
    assert cgroup.processors(tree(tmp_path, own, f"{unified}\n{V1}", **quotas)) == 3


def test_files_that_a_container_has_put_where_they_usually_are(tmp_path: Path) -> None:
    assert cgroup.processors(tree(tmp_path, "", "", cpu="100000/100000")) == 1


def test_a_name_with_a_space(tmp_path: Path) -> None:
    mount = V2.replace("/sys/fs/cgroup rw", r"/sys/fs/cgroup/my\040groups rw")
    root = tree(tmp_path, "0::/../outside\n", mount, **{"my groups": "100000 100000"})
    assert cgroup.processors(root) == 1


@pytest.mark.parametrize("nonsense", ["", "max", "1 2 3", "100000 0", "x y", "100000/0", "x/y", "\xff \xff"])
def test_nonsense_limits_nothing(tmp_path: Path, nonsense: str) -> None:
    assert cgroup.processors(tree(tmp_path, "0::/\nnonsense\n", V2, __=nonsense)) is None


def test_no_such_file_systems(tmp_path: Path) -> None:
    assert cgroup.processors(tmp_path) is None
