"""The metrics that an application makes with prometheus_client, in all workers: the multiprocess mode of that library.

    count_as                in a process of the application: sets the files that it counts in
    ApplicationCollector    in the admin process: reads the files of all processes, and adds them up

Each worker counts in files named after its row of the scoreboard, which later workers with that row take over. So there
are only as many files as for the largest number of workers at one time, and counters continue. The label `pid` (of
gauges of the modes "all" and "liveall") has the number of the row.

What must not live here: the folder of those files, its making and removal (supervisor/multiproc_dir.py).
"""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Iterator

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ..environment import MULTIPROC_DIR
from .catalog import CATALOG
from .value_file import ValueFile

__all__ = ["ApplicationCollector", "count_as"]

logger = logging.getLogger("tidegate.metrics")

_SUFFIXES = ("", "_total", "_created", "_bucket", "_count", "_sum", "_info")

_name = ""
_pid = 0
_installed = False
_logged = 0  # the process that has logged why it counts without a file


def count_as(name: str) -> None:
    """Have this process count in files of this name from now on; without a folder for them, do nothing.

    Call it before the application makes its first metric. A child that the application forks later has files of its
    own, until it is given a name as well.
    """
    global _name, _pid, _installed
    if MULTIPROC_DIR not in os.environ:
        return
    _name, _pid = name, os.getpid()
    if not _installed:  # once: two such classes would write the same files
        values.MmapedDict = ValueFile  # type: ignore[attr-defined,misc,unused-ignore]
        ValueFile.failed = staticmethod(_on_failure)
        values.ValueClass = values.MultiProcessValue(_identify)  # type: ignore[no-untyped-call,unused-ignore]
        _installed = True


def _identify() -> str:
    """Return the name of this process's files."""
    pid = os.getpid()
    return _name if pid == _pid else f"{_name}-{pid}"


def _on_failure(error: OSError) -> None:
    """Log once in each process that a value has no place in a file."""
    global _logged
    if _logged != os.getpid():
        _logged = os.getpid()
        why = "metrics of the application are not all collected from this process until it is replaced: %s"
        logger.warning(why, error)


LARGEST = 2**26
"""The most bytes of a file that is read: a million label values."""


class ApplicationCollector(Collector):
    """Collects the metrics of an application from the files of its processes.

    A metric whose name the daemon has is left out, and so is a file that cannot be read. Both are logged: the daemon's
    metrics are there whatever an application does.

    Parameters:
        folder: where the files are.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._taken = {_stem(metric.full_name) + suffix for metric in CATALOG for suffix in _SUFFIXES}
        self._logged: set[str] = set()

    def describe(self) -> list[Metric]:
        return []  # only the files have the names

    def collect(self) -> Iterator[Metric]:
        for metric in self._read():
            if self._taken.isdisjoint({metric.name, *(sample.name for sample in metric.samples)}):
                yield metric
            else:
                why = "the application's metric %s is left out: tidegate has one of this name"
                self._log(metric.name, why, metric.name)

    def _read(self) -> list[Metric]:
        """Read the files, without those that cannot be read."""
        files = list(filter(self._is_readable, glob.glob(os.path.join(glob.escape(self._folder), "*.db"))))
        try:
            return _merged(files)
        except Exception as error:
            why = repr(error)
        # One of them cannot be read: find it, and read the others.
        sound = []
        for path in files:
            try:
                _merged([path])
            except Exception as error:
                self._log(path, "%s is left out of the metrics of the application: %r", path, error)
            else:
                sound.append(path)
        try:
            return _merged(sound)
        except Exception as error:
            self._log("", "the metrics of the application cannot be read: %r, %s", error, why)
            return []

    def _is_readable(self, path: str) -> bool:
        """Return whether reading it ends: a pipe would wait for a writer, and a sparse file may be endless."""
        try:
            status = os.lstat(path)
        except OSError:  # it was removed
            return False
        if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST:
            return True
        why = "%s is left out of the metrics of the application: it is not a regular file of at most %d bytes"
        self._log(path, why, path, LARGEST)
        return False

    def _log(self, what: str, message: str, *arguments: object) -> None:
        """Log a message once for each `what`."""
        if what not in self._logged:
            self._logged.add(what)
            logger.warning(message, *arguments)


def _merged(files: list[str]) -> list[Metric]:
    return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call,unused-ignore]


def _stem(name: str) -> str:
    return name.removesuffix("_total")
