"""Files of prometheus_client's multiprocess mode where there is no room for them, or no place.

The disk that is full is a real one, which takes a mount: it is in a namespace of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from tests.metrics.cases_value_file import full_disk
from tests.support import programs
from tests.support.harness import require
from tests.support.patience import PATIENCE
from tidegate.environment import MULTIPROC_DIR
from tidegate.metrics import value_file
from tidegate.metrics.value_file import SIZE, ValueFile


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    found: list[OSError] = []
    monkeypatch.setattr(ValueFile, "failed", staticmethod(found.append))
    return found


def test_what_it_writes_is_what_the_library_reads(tmp_path: Path, failures: list[OSError]) -> None:
    path = str(tmp_path / "counter_0.db")
    file = ValueFile(path)
    assert os.stat(path).st_blocks * 512 >= SIZE, "no hole in it"
    for number in range(2000):
        assert file.read_value(f"{number:0100}") == (0.0, 0.0)
        file.write_value(f"{number:0100}", number, 1.0)
    assert os.stat(path).st_blocks * 512 >= os.stat(path).st_size > SIZE
    file.close()
    assert [value for _, value, _, _ in MmapedDict.read_all_values_from_file(path)] == list(range(2000))
    again = ValueFile(path)  # a successor
    assert again.read_value(f"{1999:0100}") == (1999, 1.0)
    assert len(list(again.read_all_values())) == 2000
    again.close()
    assert failures == []


def test_a_folder_that_is_gone(tmp_path: Path, failures: list[OSError]) -> None:
    file = ValueFile(str(tmp_path / "gone/counter_0.db"))
    file.write_value("key", 3.0, 0.0)
    assert file.read_value("key") == (0.0, 0.0)
    assert list(file.read_all_values()) == []
    file.close()
    assert [type(error) for error in failures] == [FileNotFoundError]


def test_no_file_without_values_is_left_where_there_is_no_room(
    tmp_path: Path, failures: list[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(value_file, "_reserve", full)
    ValueFile(str(tmp_path / "counter_0.db")).close()
    assert list(tmp_path.iterdir()) == []
    assert len(failures) == 1


def test_a_system_that_cannot_set_blocks_aside(
    tmp_path: Path, failures: list[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    path = str(tmp_path / "counter_0.db")
    file = ValueFile(path)
    assert os.stat(path).st_blocks * 512 >= SIZE
    file.write_value("key", 3.0, 0.0)
    file.close()
    assert [value for _, value, _, _ in MmapedDict.read_all_values_from_file(path)] == [3.0]
    assert failures == []


def test_a_full_disk_kills_nobody(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "being root")
    script = 'mount -t tmpfs -o size=256k tmpfs "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), *programs.program(full_disk)],
        env={"PATH": os.environ["PATH"], MULTIPROC_DIR: str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1:] == [
        "1501.0 2.0 8.0",
        "metrics of the application are not all collected from this process until it is replaced: "
        "[Errno 28] No space left on device",
        "0",
    ], "what it counts, then its child, which tells for itself"
    assert lines[0] == lines[2], "told once"
