"""The folder in which processes of the application count with prometheus_client: PROMETHEUS_MULTIPROC_DIR.

    make                before anything of an application is imported: a new folder for each daemon
    restore             after an upgrade in place: the folder that was made before
    renew_if_removed    now and then: another folder, if it has been removed
    ended               remove a worker's gauges of live processes
    close               remove the folder when the daemon ends

It is in $RUNTIME_DIRECTORY or in shared memory where that is possible, so that counting writes to no disk; or in the
folder that the variable names at the start.

What must not live here: what is in the files (prometheus_client, metrics/application.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

from ..environment import MULTIPROC_DIR, runtime_directory
from ..process import forks

__all__ = ["MultiprocDir"]

logger = logging.getLogger("tidegate.supervisor")

PREFIX = "tidegate-metrics-"
FRESH = 60.0  # seconds


class MultiprocDir:
    """The folder of a daemon.

    Attributes:
        folder: its path; None: there is none.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self._former: list[str] = []
        # Every process of the daemon has it open, with a shared lock: a folder without one is of a killed daemon.
        self._lock = -1

    def make(self) -> None:
        """Make a folder in which every process that is forked from now on counts.

        If none can be made, each process counts by itself.
        """
        reasons = []
        for parent in _parents():
            try:
                self._use(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
            except OSError as error:
                reasons.append(str(error))
                continue
            _sweep(parent or tempfile.gettempdir())
            return
        os.environ.pop(MULTIPROC_DIR, None)
        logger.warning("metrics of the application are not collected: no folder could be made for them: %s", reasons)

    def restore(self, folder: str | None, *, rows: bool) -> None:
        """Take over the folder of the program before this one.

        Args:
            folder: its path; None: it had none.
            rows: whether its workers keep their rows. If not, new workers must not write into their files.
        """
        if folder is not None and rows:
            with contextlib.suppress(OSError):  # it has been removed
                self._use(folder)
                return
        if folder is not None:
            self._former.append(folder)
            os.environ[MULTIPROC_DIR] = os.path.dirname(folder)
        self.make()

    def renew_if_removed(self) -> bool:
        """Make another folder if this one has been removed; return whether it was.

        Cleaners of temporary files do that, and systemd when the last session of a user ends (RemoveIPC=).
        """
        if self.folder is None or self._is_ours(self.folder):
            return False
        before = self.folder
        forks.closed(self._lock)
        os.close(self._lock)
        self._lock, self.folder = -1, None
        os.environ[MULTIPROC_DIR] = os.path.dirname(before)
        self.make()
        logger.warning(
            "%s has been removed, and with it what the application had counted: %s; what other workers count is not"
            " collected until a reload",
            before,
            f"workers that start now count in {self.folder}" if self.folder else "workers that start now count alone",
        )
        return True

    def _is_ours(self, folder: str) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.stat(folder), os.fstat(self._lock))
        return False

    def _use(self, folder: str) -> None:
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        forks.keep(self._lock)
        self.folder = os.environ[MULTIPROC_DIR] = folder

    def ended(self, row: int) -> None:
        """Remove the gauges of live processes of a worker that has ended, before another one has its row."""
        if self.folder is not None:
            # As prometheus_client does it, which the supervisor does not import.
            for path in glob.glob(f"{glob.escape(self.folder)}/gauge_live*_{row}.db"):
                with contextlib.suppress(OSError):  # it is gone, or the file system has become read-only
                    os.remove(path)

    def close(self) -> None:
        """Remove the folder."""
        for folder in (*self._former, *([self.folder] if self.folder is not None else [])):
            shutil.rmtree(folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
        self._lock, self.folder, self._former = -1, None, []


def _sweep(parent: str) -> None:
    """Remove the folders of daemons that were killed."""
    for folder in glob.glob(f"{glob.escape(parent)}/{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, or another user's
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # One that is not even a minute old may be about to be locked.
                if time.time() - os.fstat(lock).st_mtime > FRESH:
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def _parents() -> Iterator[str | None]:
    """Yield the places where it can be made, best first."""

    yield from filter(None, (os.environ.get(MULTIPROC_DIR), runtime_directory()))
    if os.path.isdir("/dev/shm"):
        yield "/dev/shm"
    yield None
