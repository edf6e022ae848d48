"""What an application counts with prometheus_client, in all its workers: the multiprocess mode of that library.

    count_as    in a process of the application: which files it counts in
    Users       in the admin process: reads the files of all, and adds them up

Each worker counts in files named after its row of the scoreboard, which its successors take over. So there never are
more files than for as many workers as there were at once, and counters go on. What is told apart by the label `pid`
(gauges of the modes "all" and "liveall") is told apart by that number.

What must not live here: who makes the folder of those files and removes it (supervisor/metric_files.py).
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from .catalog import CATALOG
from .value_file import ValueFile

__all__ = ["VARIABLE", "Users", "count_as"]

logger = logging.getLogger("tidegate.metrics")

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the folder."""

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
    if VARIABLE not in os.environ:
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


class Users(Collector):
    """Collects what the processes of an application have counted.

    A metric with the name of one of the daemon's own is left out, and files that cannot be read leave out everything:
    both are logged, for the daemon's own metrics must be there whatever an application does.

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
        try:
            files = glob.glob(os.path.join(glob.escape(self._folder), "*.db"))
            found = list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call,unused-ignore]
        except Exception as error:  # whatever is in the files
            self._tell("", "the metrics of the application cannot be read: %r", error)
            return
        for metric in found:
            if self._taken.isdisjoint({metric.name, *(sample.name for sample in metric.samples)}):
                yield metric
            else:
                why = "the application's metric %s is left out: tidegate has one of this name"
                self._tell(metric.name, why, metric.name)

    def _tell(self, what: str, message: str, *arguments: object) -> None:
        """Log it, once."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(message, *arguments)


def _stem(name: str) -> str:
    return name.removesuffix("_total")
