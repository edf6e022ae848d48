"""What an application counts with prometheus_client, in all its workers: the multiprocess mode of that library.

    count_as    in a process of the application: which files it counts in
    Users       in the admin process: reads the files of all, and adds them up

Each worker counts in files named after its row of the scoreboard, which its successors take over. So there never are
more files than for as many workers as there were at once, and counters go on. What is told apart by the label `pid`
(gauges of the modes "all" and "liveall") is told apart by that number.

What must not live here: who makes the folder of those files and removes it (supervisor/multiproc_dir.py).
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

__all__ = ["Users", "count_as"]

logger = logging.getLogger("tidegate.metrics")

_SUFFIXES = ("", "_total", "_created", "_bucket", "_count", "_sum", "_info")

_name = ""
_pid = 0
_installed = False
_told = 0  # the process that has told why it counts for itself


def count_as(name: str) -> None:
    """What this process counts is in files of this name from now on. Without a folder for them nothing changes.

    It must come before the application makes its first metric. A child that somebody forks from this process later
    has files of its own, until it is given a name as well.
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
    pid = os.getpid()
    return _name if pid == _pid else f"{_name}-{pid}"


def _on_failure(error: OSError) -> None:
    """A value has no place in a file: say so once, for each of the processes."""
    global _told
    if _told != os.getpid():
        _told = os.getpid()
        why = "metrics of the application are not all collected from this process until it is replaced: %s"
        logger.warning(why, error)


LARGEST = 2**26
"""Bytes of a file that is read: a million values of labels."""


class Users(Collector):
    """Collects what the processes of an application have counted.

    A metric with the name of one of the daemon's own is left out, and so is a file that cannot be read: both are
    logged, for the daemon's own metrics must be there whatever an application does.

    Parameters:
        folder: where their files are.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._taken = {_stem(metric.full_name) + suffix for metric in CATALOG for suffix in _SUFFIXES}
        self._told: set[str] = set()

    def describe(self) -> list[Metric]:
        return []  # what there is, only the files know

    def collect(self) -> Iterator[Metric]:
        for metric in self._read():
            if self._taken.isdisjoint({metric.name, *(sample.name for sample in metric.samples)}):
                yield metric
            else:
                why = "the application's metric %s is left out: tidegate has one of this name"
                self._tell(metric.name, why, metric.name)

    def _read(self) -> list[Metric]:
        """What is in the files, without those that cannot be read, whatever they are."""
        files = list(filter(self._is_readable, glob.glob(os.path.join(glob.escape(self._folder), "*.db"))))
        try:
            return _merged(files)
        except Exception as error:
            why = repr(error)
        # One of them spoils it: the others count.
        sound = []
        for path in files:
            try:
                _merged([path])
            except Exception as error:
                self._tell(path, "%s is left out of the metrics of the application: %r", path, error)
            else:
                sound.append(path)
        try:
            return _merged(sound)
        except Exception as error:
            self._tell("", "the metrics of the application cannot be read: %r, %s", error, why)
            return []

    def _is_readable(self, path: str) -> bool:
        """Whether it is a file whose reading ends: a pipe would wait for a writer, and a sparse one may be endless."""
        try:
            status = os.lstat(path)
        except OSError:  # it is gone
            return False
        if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST:
            return True
        why = "%s is left out of the metrics of the application: it is no file of at most %d bytes"
        self._tell(path, why, path, LARGEST)
        return False

    def _tell(self, what: str, message: str, *arguments: object) -> None:
        """Log it, once."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(message, *arguments)


def _merged(files: list[str]) -> list[Metric]:
    return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call,unused-ignore]


def _stem(name: str) -> str:
    return name.removesuffix("_total")
